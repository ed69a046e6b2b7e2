"""Gaussian process regression with an ARD Matérn-5/2 and a linear kernel, with parameters at or drawn from their
posterior.

Equation numbers are those of Rasmussen & Williams, Gaussian Processes for Machine Learning (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs, dtrtrs
from scipy.optimize import minimize

Array = NDArray[np.float64]
Groups = NDArray[np.intp]

THINNING = 2
"""Steps of a chain from one draw of kernel parameters to the next. Set by the time of a suggestion."""
_BURN_IN = 2
"""Draws at the start of a chain that are not used. It starts at the mode, so there are few."""

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-8
"""Added to variances of about 1, so that covariances of equal points can be factored: the root of a
float's precision."""
_BLOCK = 16384
"""Covariances computed at a time: as many as the processor's cache holds."""
_BOUND = 5.0
"""Kernel parameters are sought within so many standard deviations of the prior: wide enough never to matter."""


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
        cls, dimension: int, length: float, spread: float, linear: tuple[float, float], noise: tuple[float, float]
    ) -> Prior:
        """The prior whose median length scale is `length` in one dimension, and `spread` the deviation of its log."""
        return cls((math.log(length) + 0.5 * math.log(dimension), spread), linear, noise)

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
        return self.with_basis(points, self.basis(others))

    def basis(self, others: Array) -> tuple[Array, Array]:
        """What is needed of others [m, columns] for covariances with them: two matrices [columns + 2 or columns, m]."""
        scaled = others * (_SQRT5 / self.lengths)
        squares = np.einsum("ij,ij->i", scaled, scaled)
        return np.vstack([-2.0 * scaled.T, np.ones_like(squares), squares]), self.linear * (others - 0.5).T

    def with_basis(self, points: Array, basis: tuple[Array, Array]) -> Array:
        """Covariances [n, m] between points [n, columns] and those that the basis was made of."""
        scaled, centred = self._scaled(points), points - 0.5
        result = np.empty((len(points), basis[0].shape[1]))
        rows = max(1, _BLOCK // max(1, result.shape[1]))
        scratch = np.empty((min(rows, len(points)), result.shape[1]))
        for start in range(0, len(points), rows):
            block = slice(start, start + rows)
            matern = result[block]
            other = scratch[: len(matern)]
            np.maximum(np.matmul(scaled[block], basis[0], out=matern), 0.0, out=matern)
            np.sqrt(matern, out=other)
            matern /= 3.0
            matern += other
            matern += 1.0
            matern *= np.exp(np.subtract(math.log(self.signal), other, out=other), out=other)
            matern += np.matmul(centred[block], basis[1], out=other)
        return result

    def with_slope(self, points: Array, basis: tuple[Array, Array]) -> tuple[Array, Array]:
        """Covariances [n, m], and c [n, m] such that the Matérn part's gradient in x is -c (x - z) / lengths²."""
        squared = self._scaled(points) @ basis[0]
        np.maximum(squared, 0.0, out=squared)
        distance = np.sqrt(squared)
        decay = np.exp(math.log(self.signal) - distance)
        distance += 1.0
        squared /= 3.0
        squared += distance
        squared *= decay
        squared += (points - 0.5) @ basis[1]
        distance *= decay
        distance *= 5.0 / 3.0
        return squared, distance

    def _scaled(self, points: Array) -> Array:
        """[n, columns + 2], whose product with a basis is 5 r²: |s|² - 2 s z + |z|²."""
        scaled = np.empty((len(points), points.shape[1] + 2))
        inner = np.multiply(points, _SQRT5 / self.lengths, out=scaled[:, :-2])
        scaled[:, -2], scaled[:, -1] = np.einsum("ij,ij->i", inner, inner), 1.0
        return scaled

    def variance(self, points: Array) -> Array:
        """Prior variances [n], without noise."""
        centred = points - 0.5
        return np.asarray(self.signal + self.linear * np.einsum("ij,ij->i", centred, centred))


class GaussianProcess:
    """A posterior over functions, given observations at points.

    Args:
        points: [n, columns].
        targets: [n], with mean near 0 and variance near 1.
        errors: [n], variances of the targets' errors as far as they were measured; the kernel's noise comes on top.
        kernel: its parameters.
    """

    def __init__(self, points: Array, targets: Array, errors: Array, kernel: Kernel) -> None:
        self.points, self.targets, self.errors = points, targets, errors
        self.kernel = kernel
        self._basis, self._centred = kernel.basis(points), points - 0.5
        covariance = kernel.with_basis(points, self._basis)
        covariance.flat[:: len(points) + 1] += kernel.noise + _JITTER + errors
        self._factor = _cholesky(covariance)
        self.weights = _solve(self._factor, targets)

    def with_fantasies(self, points: Array) -> GaussianProcess:
        """This posterior as if points [n, columns] had been observed one standard deviation below their expectation.

        Pretended observations drive suggestions apart (Ginsbourger, Le Riche & Carraro 2010, "Kriging is well-suited to
        parallelize optimization", section 4.2). With the expected value itself they stay too close to
        each other (docs/benchmarks.md, "eight workers").
        """
        if not len(points):
            return self
        mean, variance = self.predict(points)
        targets = np.concatenate([self.targets, mean - np.sqrt(variance)])
        errors = np.concatenate([self.errors, np.zeros(len(points))])
        return GaussianProcess(np.vstack([self.points, points]), targets, errors, self.kernel)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Posterior means and variances [n], without noise, at points (eq. 2.25, 2.26)."""
        cross = self.kernel.with_basis(points, self._basis)
        mean = cross @ self.weights
        half, _ = dtrtrs(self._factor, cross.T, lower=1, overwrite_b=1)
        variance = self.kernel.variance(points) - np.einsum("ij,ij->j", half, half)
        return mean, np.maximum(variance, 1e-12)

    def mean(self, points: Array) -> Array:
        """Posterior means [n]."""
        return np.asarray(self.kernel.with_basis(points, self._basis) @ self.weights)

    def swapped_means(self, base: Array, other: Array, slices: Sequence[slice]) -> Array:
        """Posterior means [len(slices), n] at base points whose columns in one slice at a time are those of others.

        One slice changes a squared distance and a linear covariance by its own columns alone, so each takes time and
        memory in proportion to n times the observations, whatever the number of columns.

        Args:
            base, other: [n, columns] each.
            slices: of the columns.
        """
        kernel, inverse = self.kernel, _SQRT5 / self.kernel.lengths
        squares, linear = kernel._scaled(base) @ self._basis[0], (base - 0.5) @ self._basis[1]
        means = np.empty((len(slices), len(base)))
        for row, columns in enumerate(slices):
            before, after = base[:, columns] * inverse[columns], other[:, columns] * inverse[columns]
            observed = (self.points[:, columns] * inverse[columns]).T
            moved = (after**2 - before**2).sum(axis=1)[:, None] - 2.0 * (after - before) @ observed
            straight = linear + (other - base)[:, columns] @ self._basis[1][columns]
            squared = np.maximum(squares + moved, 0.0)
            distance = np.sqrt(squared)
            matern = kernel.signal * (1.0 + distance + squared / 3.0) * np.exp(-distance)
            means[row] = (matern + straight) @ self.weights
        return means

    @property
    def fitted(self) -> Array:
        """Posterior means [n] at the observations: K weights, where (K + noise) weights are the targets."""
        return np.asarray(self.targets - (self.kernel.noise + _JITTER + self.errors) * self.weights)

    def at_observations(self) -> tuple[Array, Array]:
        """Posterior means and variances [n] of the true values at the observations, their own departures from the
        smooth function included: only the errors are removed, and the kernel's noise is not.

        With errors R, targets y and K the rest of the covariance: y - R (K + R)^-1 y, and R - R (K + R)^-1 R.
        """
        variance = self.errors - self.errors**2 * self._precision
        return np.asarray(self.targets - self.errors * self.weights), np.maximum(variance, 1e-12)

    def leave_group_out(self, groups: NDArray[np.intp]) -> Array:
        """Means [n] of each observation, predicted from all that are not of its group (eq. 5.12, with blocks).

        Args:
            groups: [n], of each observation.
        """
        inverse = self._inverse()
        means = self.targets - self.weights / np.diag(inverse)
        names, counts = np.unique(groups, return_counts=True)
        for name in names[counts > 1]:
            rows = np.flatnonzero(groups == name)
            block = np.tril(inverse[np.ix_(rows, rows)])
            block += np.tril(block, -1).T
            means[rows] = self.targets[rows] - np.linalg.solve(block, self.weights[rows])
        return np.asarray(means)

    @property
    def _precision(self) -> Array:
        """The diagonal [n] of the inverse of the covariance."""
        return np.diag(self._inverse()).copy()

    def _inverse(self) -> Array:
        """The inverse [n, n] of the covariance, of which the lower triangle counts."""
        inverse, _ = dpotri(self._factor, lower=1)
        return np.asarray(inverse)

    def predict_with_gradients(self, points: Array) -> tuple[Array, Array, Array, Array]:
        """Means [n], variances [n] and their gradients [n, columns] each."""
        cross, slope = self.kernel.with_slope(points, self._basis)
        solved = _solve(self._factor, cross.T).T
        variance = np.maximum(self.kernel.variance(points) - np.einsum("ij,ij->i", cross, solved), 1e-12)
        mean_gradient = self._pull(points, slope, self.weights)
        prior_gradient = 2.0 * self.kernel.linear * (points - 0.5)
        variance_gradient = prior_gradient - 2.0 * self._pull(points, slope, solved)
        return cross @ self.weights, variance, mean_gradient, variance_gradient

    def mean_with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Means [n] and their gradients [n, columns]."""
        cross, slope = self.kernel.with_slope(points, self._basis)
        return cross @ self.weights, self._pull(points, slope, self.weights)

    def _pull(self, points: Array, slope: Array, weights: Array) -> Array:
        """Gradient [n, columns] of sum over observations of weights, [m] or [n, m], times covariance."""
        weighted = slope * weights
        matern = (weighted @ self.points - points * weighted.sum(axis=1)[:, None]) / self.kernel.lengths**2
        return np.asarray(matern + self.kernel.linear * (weights @ self._centred))


def fit(
    points: Array,
    targets: Array,
    errors: Array,
    groups: Groups,
    prior: Prior,
    starts: list[Array],
    max_steps: int,
) -> Array:
    """Find the kernel parameters with the highest posterior density (eq. 5.8 plus the log prior).

    Args:
        points, targets, errors: the observations, as for `GaussianProcess`.
        groups: [columns], the parameter each column belongs to; its columns share a length scale.
        starts: where to start, as returned by earlier fits or `Prior.mode`; the best of what is found counts.
        max_steps: steps of L-BFGS-B from each start.

    Returns:
        Logarithms of one length scale a parameter, then signal, linear and noise variance.
    """
    means, deviations = prior.vectors(int(groups[-1]) + 1)

    def objective(vector: Array) -> tuple[float, Array]:
        return _negative_log_posterior(vector, points, targets, errors, groups, prior)

    bounds = list(zip(means - _BOUND * deviations, means + _BOUND * deviations, strict=True))
    results = [
        minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": max_steps, "ftol": 1e-6},
        )
        for start in starts
    ]
    return np.asarray(min(results, key=lambda result: float(result.fun)).x)


def log_posterior(points: Array, targets: Array, errors: Array, groups: Groups, prior: Prior, vector: Array) -> float:
    """The log posterior density of kernel parameters, as `fit` maximises it, but for a constant."""
    return -_negative_log_posterior(vector, points, targets, errors, groups, prior)[0]


def draw(
    points: Array,
    targets: Array,
    errors: Array,
    groups: Groups,
    prior: Prior,
    start: Array,
    count: int,
    rng: np.random.Generator,
) -> list[Array]:
    """Draw kernel parameters from their posterior density, by elliptical slice sampling.

    It needs only a likelihood, because the prior is normal (Murray, Adams & MacKay 2010, "Elliptical slice
    sampling", arXiv 1001.0175, figure 2).

    Args:
        points, targets, errors, groups, prior: as for `fit`.
        start: where the chain starts: what `fit` found.
        count: how many.

    Returns:
        Vectors like those of `fit`.
    """
    means, deviations = prior.vectors(int(groups[-1]) + 1)

    def log_likelihood(offset: Array) -> float:
        kernel = Kernel.of_vector(means + offset, groups)
        covariance = kernel(points, points)
        covariance.flat[:: len(points) + 1] += kernel.noise + _JITTER + errors
        try:
            factor = _cholesky(covariance)
        except np.linalg.LinAlgError:
            return -math.inf
        half, _ = dtrtrs(factor, targets, lower=1)
        return -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())

    state, draws = start - means, []
    likelihood = log_likelihood(state)
    for step in range(1, THINNING * (count + _BURN_IN) + 1):
        other = deviations * rng.standard_normal(len(means))
        threshold = likelihood + math.log(rng.random())
        angle = rng.uniform(0.0, 2.0 * math.pi)
        low, high = angle - 2.0 * math.pi, angle
        while (likelihood := log_likelihood(state * math.cos(angle) + other * math.sin(angle))) <= threshold:
            low, high = (angle, high) if angle < 0.0 else (low, angle)
            angle = rng.uniform(low, high)
        state = state * math.cos(angle) + other * math.sin(angle)
        if step % THINNING == 0:
            draws.append(means + state)
    return draws[_BURN_IN:]


def _negative_log_posterior(
    vector: Array, points: Array, targets: Array, errors: Array, groups: Groups, prior: Prior
) -> tuple[float, Array]:
    """Negative log density of kernel parameters, but for a constant, and its gradient."""
    dimension = int(groups[-1]) + 1
    means, deviations = prior.vectors(dimension)
    value, gradient = _negative_log_likelihood(vector, points, targets, errors, groups, np.eye(dimension)[groups])
    offset = (vector - means) / deviations
    return value + 0.5 * float(offset @ offset), gradient + offset / deviations


def _negative_log_likelihood(
    vector: Array, points: Array, targets: Array, errors: Array, groups: Groups, one_hot: Array
) -> tuple[float, Array]:
    """Negative log marginal likelihood (eq. 5.8) and its gradient (eq. 5.9) in the logarithms of the parameters."""
    kernel = Kernel.of_vector(vector, groups)
    n = len(targets)
    centred = points - 0.5
    product = centred @ centred.T
    covariance, slope = kernel.with_slope(points, kernel.basis(points))
    covariance.flat[:: n + 1] += kernel.noise + _JITTER + errors
    try:
        factor = _cholesky(covariance.copy())
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(vector)
    weights = _solve(factor, targets)
    value = 0.5 * float(targets @ weights) + float(np.log(np.diag(factor)).sum()) + 0.5 * n * math.log(2 * math.pi)
    inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
    # The lower triangle, whose transpose lies in memory as the other matrices do; the rest by symmetry
    outer = inverse.T + np.tril(inverse, -1) - np.outer(weights, weights)
    trace, linear = float(np.trace(outer)), kernel.linear * float(np.vdot(outer, product))
    signal = (
        float(np.vdot(outer, covariance)) - linear - (kernel.noise + _JITTER) * trace - float(np.diag(outer) @ errors)
    )
    # sum over pairs of pull times squared difference, a column: both squares, less twice the product
    pull, scaled = np.multiply(outer, slope, out=slope), points / kernel.lengths
    per_column = 2.0 * (pull.sum(axis=1) @ scaled**2 - np.einsum("ij,ij->j", scaled, pull @ scaled))
    gradient = [0.5 * per_column @ one_hot, [0.5 * signal, 0.5 * linear, 0.5 * kernel.noise * trace]]
    return value, np.concatenate(gradient)


def _cholesky(covariance: Array) -> Array:
    """Lower factor [n, n] of a symmetric matrix, which is overwritten."""
    factor, failed = dpotrf(covariance.T, lower=1, clean=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("covariance is not positive definite")
    return np.asarray(factor)


def _solve(factor: Array, targets: Array) -> Array:
    """Solve for targets [n] or [n, m], given the lower factor."""
    solution, _ = dpotrs(factor, targets, lower=1)
    return np.asarray(solution)
