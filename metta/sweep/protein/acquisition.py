"""What a suggestion is worth: log expected improvement, less its cost, given that it succeeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr

from metta.sweep.protein.gaussian_process import GaussianProcess
from metta.sweep.protein.history import History
from metta.sweep.protein.surrogate import Surrogate

Array = NDArray[np.float64]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_SQRT_HALF_PI = 0.5 * math.log(0.5 * math.pi)
_COST_SLACK = 0.1
"""Width of the border at a limit of the log cost, where the model is sure: a tenth of the cost. A convention: it makes
the border differentiable."""
_FAR, _FAR_PENALTY = 0.2, 1e15
"""A log cost beyond the limit by the first number takes the second off a value: more than any other term does."""
_WHOLE = 0.9999
"""The largest share of the budget that a trial counts as taking, so that its price is finite."""
_STEEP = 100.0
"""Penalty for each unit of log probability by which success is less likely than failure: more than improvements
differ, and finite, so that among likely failures the least likely one comes first."""


@dataclass(frozen=True)
class ExpectedImprovement:
    """What a trial promises, at points [n, columns]: cost-aware log expected improvement.

    It is log EI, averaged over score models, less `cost_weight` * log cost, plus log P(success), log P(cost below the
    limit) and the logarithm of the share of the budget that is left after it. Within a budget the cost is the expected
    one, which grows with the uncertainty of the model of it; without one it is the model's mean.

    A point that is more likely to fail than not is chosen only where there is nothing else. Otherwise a model that has
    found the best would try the other side of a border again and again, where it has little hope, because all other
    points promise even less.

    Attributes:
        surrogate: the models of cost and success.
        scores: the score models, outstanding trials included. EI is averaged over them (Snoek, Larochelle & Adams
            2012, "Practical Bayesian optimization of machine learning algorithms", eq. 7).
        best: what is to be improved on, by score model, in its units.
        cost_weight: 1 for improvement per cost, 0 for improvement alone (cost cooling: Lee, Perrone, Archambeau &
            Seeger 2020, "Cost-aware Bayesian optimization").
        log_cost_limit: the logarithm of a cost from which on a trial is worth less and less, or infinity. A trial
            that costs far more is chosen only where there is nothing else.
        log_budget: the logarithm of what all further trials may cost, or infinity. The more of it a trial takes, the
            more it must promise; one that takes more than all of it is lost.
    """

    surrogate: Surrogate
    scores: Sequence[GaussianProcess]
    best: Sequence[float]
    cost_weight: float
    log_cost_limit: float
    log_budget: float = math.inf

    @classmethod
    def of(cls, history: History, surrogate: Surrogate, scores: Sequence[GaussianProcess]) -> ExpectedImprovement:
        """What is worth trying next, within the budget; see `metta.sweep.protein.proposal.model.MakeAcquisition`."""
        budget = history.budget
        limit = budget.log_cost_limit(history.data.costs, history.search.settings)
        best = [float(np.max(model.fitted)) for model in scores]
        return cls(surrogate, scores, best, budget.cost_weight, limit, budget.log_left)

    def __call__(self, points: Array) -> Array:
        """Values [n]."""
        values = [log_expected_improvement(*m.predict(points), b) for m, b in zip(self.scores, self.best, strict=True)]
        improvement = np.logaddexp.reduce(values) - math.log(len(values))
        log_success = self.surrogate.log_success(points)
        likely_to_fail = _STEEP * np.maximum(math.log(0.5) - log_success, 0.0)
        if self._budgeted:
            log_cost, deviation = self.surrogate.predict_log_cost(points)
        else:
            log_cost, deviation = self.surrogate.log_cost(points), np.zeros(len(points))
        too_expensive = np.where(log_cost > self._limit + _FAR, _FAR_PENALTY, 0.0)
        price = self._price(log_cost, deviation)[0]
        return np.asarray(improvement + log_success - likely_to_fail - too_expensive - price)

    def with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Values [n] and gradients [n, columns], both without the probability of success."""
        improvement, gradient = self._improvement_with_gradient(points)
        if not self._budgeted:
            log_cost, cost_gradient = self.surrogate.log_cost_with_gradient(points)
            price, slope, _ = self._price(log_cost, np.zeros(len(points)))
            return improvement - price, gradient - slope[:, None] * cost_gradient
        log_cost, deviation, cost_gradient, risk_gradient = self.surrogate.predict_log_cost_with_gradients(points)
        price, slope, risk = self._price(log_cost, deviation)
        return improvement - price, gradient - slope[:, None] * cost_gradient - risk[:, None] * risk_gradient

    def _price(self, log_cost: Array, deviation: Array) -> tuple[Array, Array, Array]:
        """How much a log cost and its deviation lower the value [n], and the slopes [n] of that in both."""
        expected = log_cost + 0.5 * deviation**2
        share = np.minimum(np.exp(np.minimum(expected - self.log_budget, 0.0)), _WHOLE)
        price = self.cost_weight * expected - np.log1p(-share)
        slope = self.cost_weight + np.where(share < _WHOLE, share / (1.0 - share), 0.0)
        risk = slope * deviation
        if math.isfinite(self._limit):
            spread = np.hypot(deviation, _COST_SLACK)
            slack = (self._limit - log_cost) / spread
            log_within = log_ndtr(slack)
            density = np.exp(-0.5 * slack**2 - _LOG_SQRT_2PI - log_within) / spread
            price, slope, risk = price - log_within, slope + density, risk + density * slack * deviation / spread
        return price, slope, risk

    def _improvement_with_gradient(self, points: Array) -> tuple[Array, Array]:
        """log EI [n] averaged over the score models, and its gradient [n, columns]."""
        pairs = [
            log_expected_improvement_gradient(*model.predict_with_gradients(points), best)
            for model, best in zip(self.scores, self.best, strict=True)
        ]
        values = np.array([value for value, _ in pairs])
        total = np.logaddexp.reduce(values)
        gradient = np.einsum("sn,snj->nj", np.exp(values - total), np.array([gradient for _, gradient in pairs]))
        return total - math.log(len(values)), gradient

    @property
    def _budgeted(self) -> bool:
        """Whether the uncertainty of a cost matters."""
        return math.isfinite(self.log_budget)

    @property
    def _limit(self) -> float:
        return min(self.log_cost_limit, self.log_budget)


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
    """log EI over `best` for maximisation, given means and variances [n] of a Gaussian process."""
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
    slope = np.exp(log_ndtr(z) - value)  # h'(z) / h(z), because h' = Phi
    z_gradient = (mean_gradient - z[:, None] * deviation_gradient) / deviation[:, None]
    gradient = deviation_gradient / deviation[:, None] + slope[:, None] * z_gradient
    return np.log(deviation) + value, gradient


def _log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0."""
    return np.where(x > -math.log(2.0), np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
