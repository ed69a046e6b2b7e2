"""What a suggestion is worth: log expected improvement, less what it costs, given that it succeeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr

from metta.sweep.protein.gaussian_process import GaussianProcess
from metta.sweep.protein.surrogate import Surrogate

Array = NDArray[np.float64]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_SQRT_HALF_PI = 0.5 * math.log(0.5 * math.pi)
_COST_SLACK = 0.2
_FAR_TOO_DEAR = 1e15


@dataclass(frozen=True)
class Acquisition:
    """log EI - cost_weight * log cost + log P(success) + log P(cost below the limit), at points [n, columns].

    Attributes:
        surrogate: the models.
        score: the score model, outstanding trials included.
        best: what is to be improved on, in the score model's units.
        cost_weight: 1 for improvement per cost, 0 for improvement alone (cost cooling: Lee, Perrone, Archambeau &
            Seeger 2020, "Cost-aware Bayesian optimization").
        log_cost_limit: a cost above it is ever less worth having, or infinity. What costs far more is only
            chosen where there is nothing else.
    """

    surrogate: Surrogate
    score: GaussianProcess
    best: float
    cost_weight: float
    log_cost_limit: float

    def __call__(self, points: Array) -> Array:
        """Values [n]."""
        mean, variance = self.score.predict(points)
        log_cost = self.surrogate.log_cost(points)
        value = log_expected_improvement(mean, variance, self.best) + self.surrogate.log_success(points)
        value = value - self.cost_weight * log_cost
        if not self._limited:
            return np.asarray(value)
        slack = self._slack(log_cost)
        return np.asarray(value + log_ndtr(slack) - np.where(slack < -1.0, _FAR_TOO_DEAR, 0.0))

    def with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Values [n] and gradients [n, columns], both without the probability of success."""
        value, gradient = log_expected_improvement_gradient(*self.score.predict_with_gradients(points), self.best)
        log_cost, cost_gradient = self.surrogate.log_cost_with_gradient(points)
        value, price = value - self.cost_weight * log_cost, np.full(len(points), self.cost_weight)
        if self._limited:
            slack = self._slack(log_cost)
            log_within = log_ndtr(slack)
            value = value + log_within
            price = price + np.exp(-0.5 * slack**2 - _LOG_SQRT_2PI - log_within) / _COST_SLACK
        return value, gradient - price[:, None] * cost_gradient

    @property
    def _limited(self) -> bool:
        return math.isfinite(self.log_cost_limit)

    def _slack(self, log_cost: Array) -> Array:
        return np.asarray((self.log_cost_limit - log_cost) / _COST_SLACK)


def log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z)), accurate far into the lower tail.

    Ament et al. 2023, "Unexpected improvements to expected improvement" (arXiv 2310.20708), eq. 9.
    """
    result = np.empty_like(z)
    upper = z > -1.0
    near = z[upper]
    result[upper] = np.log(np.exp(-0.5 * near**2 - _LOG_SQRT_2PI) + near * ndtr(near))
    far = z[~upper]
    ratio = np.log(erfcx(-far / math.sqrt(2.0)) * np.abs(far)) + _LOG_SQRT_HALF_PI
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.where(far < -1e5, -2.0 * np.log(np.abs(far)), _log1mexp(ratio))
    result[~upper] = -0.5 * far**2 - _LOG_SQRT_2PI + tail
    return result


def log_expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """log EI over `best` for maximisation, where means and variances [n] are those of a Gaussian process."""
    deviation = np.sqrt(variance)
    return np.asarray(np.log(deviation) + log_h((mean - best) / deviation))


def log_expected_improvement_gradient(
    mean: Array, variance: Array, mean_gradient: Array, variance_gradient: Array, best: float
) -> tuple[Array, Array]:
    """log EI [n] and its gradient [n, columns]."""
    deviation = np.sqrt(variance)
    z = (mean - best) / deviation
    value = log_h(z)
    deviation_gradient = variance_gradient / (2.0 * deviation[:, None])
    slope = np.exp(log_ndtr(z) - value)  # h'(z) / h(z), for h' = Phi
    z_gradient = (mean_gradient - z[:, None] * deviation_gradient) / deviation[:, None]
    gradient = deviation_gradient / deviation[:, None] + slope[:, None] * z_gradient
    return np.log(deviation) + value, gradient


def _log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0."""
    return np.where(x > -math.log(2.0), np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
