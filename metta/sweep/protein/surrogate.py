"""What Protein believes of the objective: a model of the score, one of the log cost, one of success."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri

from metta.sweep.protein.gaussian_process import GaussianProcess, Kernel, Prior, fit
from metta.sweep.protein.space import Space

Array = NDArray[np.float64]

MAX_FIT_POINTS = 256
MAX_MODEL_POINTS = 1000


def normal_scores(scores: Array) -> Array:
    """Map scores [n] to the quantiles of a standard normal by rank; equal scores share their mean rank.

    Outliers lose their pull this way and only the order counts (the Gaussian copula of Salinas, Shen & Perrone
    2020, "A quantile-based approach for hyperparameter transfer learning").
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - 0.5 * (counts - 1)
    return np.asarray(ndtri((mean_rank[inverse] - 0.5) / len(scores)))


@dataclass(frozen=True)
class Data:
    """Observations as arrays, in the order of trial numbers.

    Attributes:
        points: [n, columns]. All else is [n].
        scores: to be maximised; NaN where there is none.
        costs: NaN where there is none.
        failed: whether the trial failed.
    """

    points: Array
    scores: Array
    costs: Array
    failed: NDArray[np.bool_]

    def subset(self, size: int) -> Data:
        """At most `size` observations: the best half of them by score, the rest evenly from all others."""
        n = len(self.scores)
        if n <= size:
            return self
        order = np.argsort(-np.where(np.isnan(self.scores), -np.inf, self.scores), kind="stable")
        best, rest = order[: size // 2], np.sort(order[size // 2 :])
        spread = rest[np.linspace(0, len(rest) - 1, size - len(best)).astype(int)]
        keep = np.sort(np.concatenate([best, spread]))
        return Data(self.points[keep], self.scores[keep], self.costs[keep], self.failed[keep])


class Surrogate:
    """Gaussian processes of score and log cost, and of success once a trial has failed.

    Args:
        space: the search space.
        data: observations; at least one has a score.
        start: kernel parameters of an earlier fit, by model ("score", "cost"), to start from.
        max_steps: steps of the optimiser of kernel parameters; 0 keeps `start`.

    Attributes:
        kernels: logarithms of the kernel parameters, by model, as `start` takes them.
    """

    def __init__(self, space: Space, data: Data, start: dict[str, list[float]], max_steps: int) -> None:
        self.space = space
        self.kernels: dict[str, list[float]] = {}
        scored, costed = ~np.isnan(data.scores), ~np.isnan(data.costs)
        self._known_scores, first = np.unique(data.scores[scored], return_index=True)
        all_normal = normal_scores(data.scores[scored])
        self._known_normal = all_normal[first]
        modelled = data.subset(MAX_MODEL_POINTS)
        scored, costed = ~np.isnan(modelled.scores), ~np.isnan(modelled.costs)
        targets = np.interp(modelled.scores[scored], self._known_scores, self._known_normal)
        self._score_scale = float(np.std(targets)) or 1.0
        self._score_mean = float(np.mean(targets))
        self.score = self._model(
            "score",
            modelled.points[scored],
            (targets - self._score_mean) / self._score_scale,
            Prior.of_dimension(space.dimension),
            start,
            max_steps,
        )
        log_cost = log_costs(modelled.costs[costed])
        self._cost_mean, self._cost_scale = (
            (float(np.mean(log_cost)), float(np.std(log_cost)) or 1.0) if len(log_cost) else (0.0, 1.0)
        )
        self.cost = (
            self._model(
                "cost",
                modelled.points[costed],
                (log_cost - self._cost_mean) / self._cost_scale,
                Prior(Prior.of_dimension(space.dimension).length, linear=(0.0, 1.5)),
                start,
                max_steps,
            )
            if len(log_cost)
            else None
        )
        self.success = self._success_model(modelled) if modelled.failed.any() else None

    def _model(
        self,
        name: str,
        points: Array,
        targets: Array,
        prior: Prior,
        start: dict[str, list[float]],
        max_steps: int,
    ) -> GaussianProcess:
        groups = self.space.group
        vector = np.array(start[name]) if name in start else None
        if max_steps or vector is None:
            keep = np.unique(np.linspace(0, len(targets) - 1, MAX_FIT_POINTS).astype(int))
            vector = fit(points[keep], targets[keep], groups, prior, vector, max_steps or 30)
        vector = np.array([float(f"{value:.6g}") for value in vector])
        self.kernels[name] = vector.tolist()
        return GaussianProcess(points, targets, Kernel.of_vector(vector, groups))

    def _success_model(self, data: Data) -> GaussianProcess:
        """Least-squares classification (Rasmussen & Williams, section 6.5): +1 for success, -1 for failure."""
        lengths = np.full(self.space.columns, 0.2 * math.sqrt(self.space.dimension))
        return GaussianProcess(data.points, np.where(data.failed, -2.0, 0.0), Kernel(lengths, 1.0, 0.0, 0.1))

    @property
    def best_normal(self) -> float:
        """The highest posterior mean at an observation, in the score model's units."""
        return float(np.max(self.score.mean(self.score.points)))

    def log_cost(self, points: Array) -> Array:
        """Posterior mean of the log cost [n]; 0 while no cost is known."""
        if self.cost is None:
            return np.zeros(len(points))
        return self._cost_mean + self._cost_scale * self.cost.mean(points)

    def log_success(self, points: Array) -> Array:
        """Logarithm of the probability of success [n]."""
        if self.success is None:
            return np.zeros(len(points))
        mean, variance = self.success.predict(points)
        return np.asarray(log_ndtr(2.0 * (mean + 1.0) / np.sqrt(1.0 + variance)))

    def log_cost_with_gradient(self, points: Array) -> tuple[Array, Array]:
        if self.cost is None:
            return np.zeros(len(points)), np.zeros_like(points)
        mean, gradient = self.cost.mean_with_gradient(points)
        return self._cost_mean + self._cost_scale * mean, self._cost_scale * gradient

    def predict_score(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation [n] of the score, in its own units."""
        mean, variance = self.score.predict(points)
        deviation = np.sqrt(variance)
        low, middle, high = (self._to_score(mean + step * deviation) for step in (-1.0, 0.0, 1.0))
        return middle, (high - low) / 2.0

    def _to_score(self, normal: Array) -> Array:
        normal = self._score_mean + self._score_scale * normal
        return np.interp(normal, self._known_normal, self._known_scores)


def log_costs(costs: Array) -> Array:
    """Logarithms of costs [n]; a cost of zero counts as a thousandth of the smallest that is not."""
    positive = costs[costs > 0]
    floor = float(positive.min()) * 1e-3 if len(positive) else 1.0
    return np.log(np.maximum(costs, floor))
