"""Gaussian process regression with an ARD Matérn-5/2 and a linear kernel, fitted by its posterior mode.

Equation numbers are those of Rasmussen & Williams, Gaussian Processes for Machine Learning (2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import minimize

Array = NDArray[np.float64]
Groups = NDArray[np.intp]

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-8


@dataclass(frozen=True)
class Prior:
    """Normal priors on the logarithms of a kernel's parameters, as (mean, standard deviation).

    The length scales' prior grows with the square root of the dimension, so that the prior over functions does
    not become rougher with it (Hvarfner, Hellsten & Nardi 2024, "Vanilla Bayesian optimization performs great in
    high dimensions").
    """

    length: tuple[float, float]
    linear: tuple[float, float]
    noise: tuple[float, float]
    signal: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of_dimension(
        cls, dimension: int, length: float, linear: tuple[float, float], noise: tuple[float, float]
    ) -> Prior:
        """The prior whose median length scale is `length` in one dimension."""
        return cls((math.log(length) + 0.5 * math.log(dimension), 0.9), linear, noise)

    def mode(self, dimension: int) -> Array:
        """Where the prior is densest, in the order of `Kernel.of_vector`."""
        return self.vectors(dimension)[0]

    def vectors(self, dimension: int) -> tuple[Array, Array]:
        """Means and standard deviations in the order of `Kernel.of_vector`."""
        pairs = [self.length] * dimension + [self.signal, self.linear, self.noise]
        means, deviations = np.array(pairs).T
        return means, deviations


@dataclass(frozen=True)
class Kernel:
    """k(x, z) = signal * Matérn-5/2(r) + linear * (x - 1/2)(z - 1/2), r scaled by `lengths` (eq. 4.17, 4.22).

    Attributes:
        lengths: [columns], the length scale of each column.
        signal, linear, noise: variances.
    """

    lengths: Array
    signal: float
    linear: float
    noise: float

    @classmethod
    def of_vector(cls, vector: Array, groups: Groups) -> Kernel:
        """Read logarithms: one length scale a parameter, then the three variances."""
        values = np.exp(vector)
        return cls(values[:-3][groups], float(values[-3]), float(values[-2]), float(values[-1]))

    def __call__(self, points: Array, others: Array) -> Array:
        """Covariances [n, m] between points [n, columns] and others [m, columns], without noise."""
        r = np.sqrt(_squared_distances(points / self.lengths, others / self.lengths))
        return self._matern(r) + self.linear * ((points - 0.5) @ (others - 0.5).T)

    def variance(self, points: Array) -> Array:
        """Prior variances [n], without noise."""
        centred = points - 0.5
        return np.asarray(self.signal + self.linear * np.einsum("ij,ij->i", centred, centred))

    def _matern(self, r: Array) -> Array:
        return np.asarray(self.signal * (1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * np.exp(-_SQRT5 * r))

    def slope(self, points: Array, others: Array) -> Array:
        """c [n, m] such that the Matérn part's gradient in x is -c (x - z) / lengths²."""
        r = np.sqrt(_squared_distances(points / self.lengths, others / self.lengths))
        return np.asarray(self.signal * 5.0 / 3.0 * (1.0 + _SQRT5 * r) * np.exp(-_SQRT5 * r))


class GaussianProcess:
    """A posterior over functions, given observations at points.

    Args:
        points: [n, columns].
        targets: [n], with mean near 0 and variance near 1.
        kernel: its parameters.
    """

    def __init__(self, points: Array, targets: Array, kernel: Kernel) -> None:
        self.points = points
        self.kernel = kernel
        covariance = kernel(points, points)
        covariance[np.diag_indices_from(covariance)] += kernel.noise + _JITTER
        self._factor = _cholesky(covariance)
        self.set_targets(targets)

    def set_targets(self, targets: Array) -> None:
        """Replace the targets [n]; the points stay (eq. 2.25)."""
        self.targets = targets
        self.weights = cho_solve((self._factor, True), targets, check_finite=False)

    def with_fantasies(self, points: Array) -> GaussianProcess:
        """This posterior as if points [n, columns] had been observed to be what it expects of them."""
        if not len(points):
            return self
        targets = np.concatenate([self.targets, self.mean(points)])
        return GaussianProcess(np.vstack([self.points, points]), targets, self.kernel)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Posterior means and variances [n], without noise, at points (eq. 2.25, 2.26)."""
        cross = self.kernel(points, self.points)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = self.kernel.variance(points) - np.einsum("ij,ij->j", half, half)
        return cross @ self.weights, np.maximum(variance, 1e-12)

    def mean(self, points: Array) -> Array:
        """Posterior means [n]."""
        return np.asarray(self.kernel(points, self.points) @ self.weights)

    def predict_with_gradients(self, points: Array) -> tuple[Array, Array, Array, Array]:
        """Means [n], variances [n] and their gradients [n, columns] each."""
        cross = self.kernel(points, self.points)
        solved = cho_solve((self._factor, True), cross.T, check_finite=False).T
        variance = np.maximum(self.kernel.variance(points) - np.einsum("ij,ij->i", cross, solved), 1e-12)
        slope = self.kernel.slope(points, self.points)
        mean_gradient = self._pull(points, slope, np.broadcast_to(self.weights, slope.shape))
        prior_gradient = 2.0 * self.kernel.linear * (points - 0.5)
        variance_gradient = prior_gradient - 2.0 * self._pull(points, slope, solved)
        return cross @ self.weights, variance, mean_gradient, variance_gradient

    def mean_with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Means [n] and their gradients [n, columns]."""
        slope = self.kernel.slope(points, self.points)
        return self.mean(points), self._pull(points, slope, np.broadcast_to(self.weights, slope.shape))

    def _pull(self, points: Array, slope: Array, weights: Array) -> Array:
        """Gradient [n, columns] of sum over observations of weights [n, m] times covariance."""
        weighted = slope * weights
        matern = (weighted @ self.points - points * weighted.sum(axis=1)[:, None]) / self.kernel.lengths**2
        return np.asarray(matern + self.kernel.linear * (weights @ (self.points - 0.5)))


def fit(points: Array, targets: Array, groups: Groups, prior: Prior, starts: list[Array], max_steps: int) -> Array:
    """Find the kernel parameters with the highest posterior density (eq. 5.8 plus the log prior).

    Args:
        points, targets: the observations, as for `GaussianProcess`.
        groups: [columns], the parameter each column belongs to; its columns share a length scale.
        starts: where to start, as returned by earlier fits or `Prior.mode`; the best of what is found counts.
        max_steps: steps of L-BFGS-B from each start.

    Returns:
        Logarithms of one length scale a parameter, then signal, linear and noise variance.
    """
    dimension = int(groups[-1]) + 1
    means, deviations = prior.vectors(dimension)
    one_hot = np.eye(dimension)[groups]

    def objective(vector: Array) -> tuple[float, Array]:
        value, gradient = _negative_log_likelihood(vector, points, targets, groups, one_hot)
        offset = (vector - means) / deviations
        return value + 0.5 * float(offset @ offset), gradient + offset / deviations

    bounds = list(zip(means - 5 * deviations, means + 5 * deviations, strict=True))
    results = [
        minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_steps})
        for start in starts
    ]
    return np.asarray(min(results, key=lambda result: float(result.fun)).x)


def _negative_log_likelihood(
    vector: Array, points: Array, targets: Array, groups: Groups, one_hot: Array
) -> tuple[float, Array]:
    """Negative log marginal likelihood (eq. 5.8) and its gradient (eq. 5.9) in the logarithms of the parameters."""
    kernel = Kernel.of_vector(vector, groups)
    n = len(targets)
    scaled = points / kernel.lengths
    r = np.sqrt(_squared_distances(scaled, scaled))
    decay = kernel.signal * np.exp(-_SQRT5 * r)
    matern = (1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * decay
    centred = points - 0.5
    product = centred @ centred.T
    covariance = matern + kernel.linear * product
    covariance[np.diag_indices(n)] += kernel.noise + _JITTER
    try:
        factor = _cholesky(covariance)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(vector)
    weights = cho_solve((factor, True), targets, check_finite=False)
    value = 0.5 * float(targets @ weights) + float(np.log(np.diag(factor)).sum()) + 0.5 * n * math.log(2 * math.pi)
    inverse, _ = dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    outer = inverse - np.outer(weights, weights)
    pull = outer * (5.0 / 3.0 * (1.0 + _SQRT5 * r) * decay)
    # sum over pairs of pull times squared difference, a column: both squares, less twice the product
    per_column = 2.0 * (pull.sum(axis=1) @ scaled**2 - np.einsum("ij,ij->j", scaled, pull @ scaled))
    gradient = np.concatenate(
        [
            0.5 * per_column @ one_hot,
            [
                0.5 * float(np.vdot(outer, matern)),
                0.5 * kernel.linear * float(np.vdot(outer, product)),
                0.5 * kernel.noise * float(np.trace(outer)),
            ],
        ]
    )
    return value, gradient


def _squared_distances(points: Array, others: Array) -> Array:
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :] - 2.0 * points @ others.T
    return np.asarray(np.maximum(squares, 0.0))


def _cholesky(covariance: Array) -> Array:
    factor, failed = dpotrf(covariance, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("covariance is not positive definite")
    return np.asarray(factor)
