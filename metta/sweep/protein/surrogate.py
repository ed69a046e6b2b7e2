"""What Protein believes of the objective: a model of the score, one of the log cost, one of success."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from metta.sweep.protein.curves import LARGEST, Scale
from metta.sweep.protein.gaussian_process import GaussianProcess, Kernel, Prior, draw, fit
from metta.sweep.protein.space import Space
from metta.sweep.protein.types import Prediction

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

MAX_FIT_POINTS = 256
"""Observations that kernels are fitted to. Set by the time of a suggestion, see docs/benchmarks.md, "Speed"."""
MAX_MODEL_POINTS, MAX_COST_POINTS = 1000, 256
"""Observations in the models of score and success, and in that of the cost, which is the simpler function. Set by the
time of a suggestion, see docs/benchmarks.md, "Speed"."""
MANY_POINTS = 48
DRAWS = 6
"""Score models that the acquisition is averaged over, while there are at most `MANY_POINTS` observations. That drawn
kernels are better than one was measured on `benchmarks/optimizers`, see docs/benchmarks.md; their number is what 200
suggestions in four seconds allow."""
KNEE = 3.0
"""Median absolute deviations below the median from which on scores are squeezed. The score scale was chosen on
`benchmarks/optimizers`, see docs/benchmarks.md."""

SMALLEST = math.ulp(0.0)
"""The smallest positive number that a float can hold."""
_LOG_LARGEST = math.log(LARGEST)
_MOST_Z = 1e100
"""Scores farther from the median, in units, count as this far: their squares can be held."""
_MOST_ERROR = 1e12
"""The largest variance of a target's error. Targets have a variance of 1, so such a measurement teaches nothing."""

# Medians of length scales in one dimension; then normal priors, as (mean, standard deviation), of the logarithms of
# length scales (the deviation alone), linear and noise variance. Log cost is nearly linear in logarithms of counts.
# Score, mixed score and cost: measured on `benchmarks/optimizers`; normal score: on the tuned-on tables of
# `benchmarks/curves`; see docs/benchmarks.md. Success: short lengths, so that one failure spoils little of the space;
# chosen by that property, which a test asserts, and not measured.
_PRIORS = {
    "score": (0.5, 0.5, (0.0, 1.0), (-5.0, 1.5)),
    "normal score": (0.7, 1.2, (-5.0, 1.0), (-1.5, 1.0)),
    "mixed score": (0.5, 0.9, (-2.0, 1.5), (-5.0, 1.5)),
    "cost": (0.5, 0.9, (0.0, 1.5), (-5.0, 1.5)),
    "success": (0.15, 0.9, (-6.0, 1.0), (-2.0, 1.0)),
}


@dataclass(frozen=True)
class Data:
    """Observations as arrays, in the order of trial numbers.

    Attributes:
        points: [n, columns]. All else is [n].
        scores: to be maximised; NaN where there is none.
        errors: standard errors of the scores; 0 where none was measured.
        costs: NaN where there is none.
        failed: whether the trial failed.
    """

    points: Array
    scores: Array
    errors: Array
    costs: Array
    failed: NDArray[np.bool_]

    def scored(self, size: int) -> Indices:
        """Rows of at most `size` observations with a score: the best half, the rest evenly from all others."""
        return self._representative(np.flatnonzero(~np.isnan(self.scores)), size)

    def balanced(self, size: int) -> Data:
        """At most `size` observations: half are failures, which are rarer and teach more; the others as in `scored`."""
        failures, others = np.flatnonzero(self.failed), np.flatnonzero(~self.failed)
        failures = spread(failures, max(size // 2, size - len(others)))
        return self.only(np.sort(np.concatenate([failures, self._representative(others, size - len(failures))])))

    def _representative(self, indices: Indices, size: int) -> Indices:
        if len(indices) <= size:
            return indices
        order = indices[np.argsort(-np.nan_to_num(self.scores[indices], nan=-np.inf), kind="stable")]
        best, rest = order[: size // 2], np.sort(order[size // 2 :])
        return np.sort(np.concatenate([best, spread(rest, size - len(best))]))

    def only(self, keep: Indices) -> Data:
        """These rows."""
        return Data(self.points[keep], self.scores[keep], self.errors[keep], self.costs[keep], self.failed[keep])

    def joined(self, more: Data | None) -> Data:
        """These rows, then those of another."""
        if more is None:
            return self
        pairs = [(getattr(self, field.name), getattr(more, field.name)) for field in fields(self)]
        return Data(*(np.concatenate(pair) for pair in pairs))


class ScoreScale:
    """A monotone map of scores: linear, but logarithmic far below the median, and standardised.

    Good scores keep their distances, which say how much there is to gain. How bad a bad score is matters little, so
    crashed scores have little influence. Ranks, mapped to normal quantiles, would flatten the top, which was worse late
    in a sweep (docs/benchmarks.md).

    Args:
        scores: [n], n at least 1.
    """

    def __init__(self, scores: Array) -> None:
        self._factor = _safe_factor(scores)
        scores = scores * self._factor
        self._median = float(np.median(scores))
        self._unit = float(np.median(np.abs(scores - self._median))) or _deviation(scores) or 1.0
        squeezed = self._squeeze(self._z(scores))
        self._mean, self._deviation = float(np.mean(squeezed)), float(np.std(squeezed)) or 1.0

    def _z(self, scores: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.clip((scores - self._median) / self._unit, -_MOST_Z, _MOST_Z)

    @staticmethod
    def _squeeze(z: Array) -> Array:
        return np.where(z < -KNEE, -KNEE - np.log1p(np.maximum(-z - KNEE, 0.0)), z)

    def __call__(self, scores: Array) -> Array:
        return (self._squeeze(self._z(scores * self._factor)) - self._mean) / self._deviation

    def errors(self, errors: Array, scores: Array) -> Array:
        """The variances [n] on this scale of scores [n] with standard errors [n] in their own units."""
        with np.errstate(over="ignore"):
            return np.minimum((errors * self.slope(scores)) ** 2, _MOST_ERROR)

    def slope(self, scores: Array) -> Array:
        """How much the map stretches small differences between scores [n]."""
        z = self._z(scores * self._factor)
        with np.errstate(over="ignore", divide="ignore"):
            slope = 1.0 / (np.maximum(1.0, 1.0 - z - KNEE) * self._unit * self._deviation) * self._factor
        return np.minimum(slope, LARGEST)

    def inverse(self, values: Array) -> Array:
        """Scores [n] that the map takes to values [n]; never infinite."""
        z = values * self._deviation + self._mean
        with np.errstate(over="ignore"):
            steps = np.where(z < -KNEE, -KNEE - np.expm1(np.clip(-z - KNEE, 0.0, 700.0)), z)
            return np.clip((self._median + self._unit * steps) / self._factor, -LARGEST, LARGEST)


class Surrogate:
    """Gaussian processes of score and log cost, and of success once a trial has failed.

    Args:
        space: the search space.
        data: observations; at least one has a score.
        start: logarithms of kernel parameters by model, as in `kernels`, of an earlier fit.
        max_steps: steps of each model's fit by name ("score", or "normal score" where `scale` is given; "cost",
            "success"); a model that is not named keeps the kernel of `start`, if there is one.
        rng: of the kernels that are drawn, or None where only the likeliest model is used.
        mixed: whether cheap trials are mixed with expensive ones, as within a budget. Cheap ones have hardly learnt,
            so the score bends between the two: less of it is linear, and length scales differ more.
        scale: of the scores, where they are normal scores already, as learning curves give them. Then the errors are
            the differences between runs of the same hyperparameters, and the kernel's noise is the roughness of the
            landscape itself.
        noise: the variance of single runs in the units of `data.scores`, where `scale` is given.
        shorter: what `data`'s runs showed before their end, as further observations of score and cost, or None.

    Attributes:
        score: the likeliest model of the score; its observations are those of `rows`, then those of `shorter`.
        rows: of `data` that it was made of: all that have a score, unless there are very many.
        draws: models of the score with kernels drawn from their posterior density; after many observations only the
            likeliest. A few trials say little about length scales, and a single estimate would be taken as certain.
        kernels: logarithms of the kernel parameters, by model.
    """

    def __init__(
        self,
        space: Space,
        data: Data,
        start: Mapping[str, Sequence[float]],
        max_steps: Mapping[str, int],
        rng: np.random.Generator | None = None,
        mixed: bool = False,
        scale: Scale | None = None,
        noise: float | None = None,
        shorter: Data | None = None,
    ) -> None:
        self.space, self._mixed = space, mixed
        self._score_name = "score" if scale is None else "normal score"
        self.kernels: dict[str, list[float]] = {}
        self._start, self._max_steps = start, max_steps
        self._noise = noise
        self._scale: Scale = scale or ScoreScale(data.scores[~np.isnan(data.scores)])
        self.rows = data.scored(MAX_MODEL_POINTS)
        self.score = self._score_model(data.only(self.rows).joined(shorter))
        few = len(self.rows) <= MANY_POINTS
        self.draws = [self.score] if rng is None or not few else self._draw(rng)
        self._data, self._shorter = data, shorter

    @cached_property
    def cost(self) -> GaussianProcess | None:
        """The model of the log cost, standardised; None while no cost is known. Made when it is first asked for."""
        return self._cost_model(self._data.joined(self._shorter))

    @cached_property
    def success(self) -> GaussianProcess | None:
        """The model of success; None until a trial fails. Made when it is first asked for."""
        return self._success_model(self._data.balanced(MAX_MODEL_POINTS)) if self._data.failed.any() else None

    def _score_model(self, data: Data) -> GaussianProcess:
        targets, variances = self._scale(data.scores), self._scale.errors(data.errors, data.scores)
        return self._model(self._score_name, data.points, targets, variances)

    def _cost_model(self, data: Data) -> GaussianProcess | None:
        self._cost_mean, self._cost_scale = 0.0, 1.0
        costed = spread(np.flatnonzero(~np.isnan(data.costs)), MAX_COST_POINTS)
        if not len(costed):
            return None
        log_cost = log_costs(data.costs[costed])
        self._cost_mean, self._cost_scale = float(np.mean(log_cost)), float(np.std(log_cost)) or 1.0
        return self._model("cost", data.points[costed], (log_cost - self._cost_mean) / self._cost_scale)

    def _success_model(self, data: Data) -> GaussianProcess:
        """Least-squares classification (Rasmussen & Williams, section 6.5): 0, the prior's mean, or -2 for failures."""
        return self._model("success", data.points, np.where(data.failed, -2.0, 0.0))

    def _model(self, name: str, points: Array, targets: Array, errors: Array | None = None) -> GaussianProcess:
        errors = np.zeros(len(targets)) if errors is None else errors
        space, prior, steps = self.space, self._prior(name), self._max_steps.get(name, 0)
        warm = [np.array(self._start[name])] if name in self._start else []
        vector = warm[0] if warm else prior.mode(space.dimension)
        if steps or not warm:
            keep = spread(np.arange(len(targets)), MAX_FIT_POINTS)
            starts = warm if warm and len(targets) > MANY_POINTS else [*warm, prior.mode(space.dimension)]
            vector = fit(points[keep], targets[keep], errors[keep], space.group, prior, starts, steps or 30)
        # Rounded before use, so that the stored kernel gives exactly the same model
        self.kernels[name] = [float(f"{value:.6g}") for value in vector]
        return GaussianProcess(points, targets, errors, Kernel.of_vector(np.array(self.kernels[name]), space.group))

    def _prior(self, name: str) -> Prior:
        if name == "score" and self._mixed:
            name = "mixed score"
        return Prior.of_dimension(self.space.dimension, *_PRIORS[name])

    def _draw(self, rng: np.random.Generator) -> list[GaussianProcess]:
        observed = self.score.points, self.score.targets, self.score.errors
        start, group = np.array(self.kernels[self._score_name]), self.space.group
        vectors = draw(*observed, group, self._prior(self._score_name), start, DRAWS, rng)
        return [GaussianProcess(*observed, Kernel.of_vector(vector, group)) for vector in vectors]

    def predict_score(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation [n] of the score, in its own units."""
        mean, variance = self.score.predict(points)
        deviation = np.sqrt(variance)
        low, middle, high = (self._scale.inverse(mean + step * deviation) for step in (-1.0, 0.0, 1.0))
        return middle, high / 2.0 - low / 2.0

    def score_noise(self, points: Array) -> Array:
        """Standard deviation [n] of single measurements round the score, in its own units."""
        mean = self.score.mean(points)
        if self._noise is None:
            deviation = math.sqrt(self.score.kernel.noise + float(np.mean(self.score.errors)))
        else:
            deviation = math.sqrt(self._noise) * float(self._scale.slope(np.zeros(1))[0])
        return self._scale.inverse(mean + deviation) / 2.0 - self._scale.inverse(mean - deviation) / 2.0

    def predictions(self, points: Array, sign: float) -> list[Prediction]:
        """What is expected of trials at points [n, columns].

        Args:
            sign: -1 where the metric is to be minimised.
        """
        scores, deviations = self.predict_score(points)
        costs = exp(self.log_cost(points)) if self.cost else np.full(len(points), math.nan)
        columns = (scores, deviations, self.score_noise(points), costs, np.exp(self.log_success(points)))
        return [
            Prediction(sign * score, deviation, noise, None if math.isnan(cost) else cost, success)
            for score, deviation, noise, cost, success in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def log_cost(self, points: Array) -> Array:
        """Posterior mean of the log cost [n]; 0 while no cost is known."""
        if self.cost is None:
            return np.zeros(len(points))
        return self._cost_mean + self._cost_scale * self.cost.mean(points)

    def predict_log_cost(self, points: Array) -> tuple[Array, Array]:
        """Posterior mean and standard deviation [n] of the log cost of a trial; 0 while no cost is known."""
        if self.cost is None:
            return np.zeros(len(points)), np.zeros(len(points))
        mean, variance = self.cost.predict(points)
        deviation = self._cost_scale * np.sqrt(variance + self.cost.kernel.noise)
        return self._cost_mean + self._cost_scale * mean, deviation

    def log_cost_with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Posterior mean of the log cost [n], and its gradient [n, columns]; 0 while no cost is known."""
        if self.cost is None:
            return np.zeros(len(points)), np.zeros_like(points)
        mean, gradient = self.cost.mean_with_gradient(points)
        return self._cost_mean + self._cost_scale * mean, self._cost_scale * gradient

    def predict_log_cost_with_gradients(self, points: Array) -> tuple[Array, Array, Array, Array]:
        """Mean and standard deviation [n] of the log cost of a trial, and their gradients [n, columns]."""
        if self.cost is None:
            nothing, flat = np.zeros(len(points)), np.zeros_like(points)
            return nothing, nothing, flat, flat
        mean, variance, mean_gradient, variance_gradient = self.cost.predict_with_gradients(points)
        scale, deviation = self._cost_scale, np.sqrt(variance + self.cost.kernel.noise)
        deviation_gradient = scale * variance_gradient / (2.0 * deviation[:, None])
        log_cost = self._cost_mean + scale * mean
        return log_cost, scale * deviation, scale * mean_gradient, deviation_gradient

    def log_success(self, points: Array) -> Array:
        """Logarithm of the probability [n] that a trial does not fail."""
        if self.success is None:
            return np.zeros(len(points))
        mean, variance = self.success.predict(points)
        return np.asarray(log_ndtr(2.0 * (mean + 1.0) / np.sqrt(0.25 + variance)))


def spread(indices: Indices, size: int) -> Indices:
    """At most `size` of the indices, evenly from all."""
    if len(indices) <= size:
        return indices
    return np.asarray(indices[np.linspace(0, len(indices) - 1, size).astype(int)])


def normal_score_prior(dimension: int) -> Prior:
    """The prior of a kernel for normal scores of whole runs, whose errors are the differences between seeds."""
    return Prior.of_dimension(dimension, *_PRIORS["normal score"])


def _safe_factor(scores: Array) -> float:
    """A power of two that takes scores away from the ends of what floats can hold; 1 for all ordinary ones."""
    largest = float(np.abs(scores).max())
    if largest > 1e300:
        return 2.0**-16
    return 2.0**200 if 0.0 < largest < 1e-290 else 1.0


def _deviation(values: Array) -> float:
    """The standard deviation of values [n] whose squares may be beyond what floats can hold."""
    unit = 2.0 ** math.frexp(float(np.abs(values).max()))[1]
    return float(np.std(values / unit)) * unit


def exp(logarithms: Array) -> Array:
    """Exponentials [n]; never infinite."""
    return np.exp(np.minimum(logarithms, _LOG_LARGEST))


def log_costs(costs: Array) -> Array:
    """Logarithms of costs [n]; a cost of zero counts as a thousandth of the smallest that is not."""
    positive = costs[costs > 0]
    floor = max(float(positive.min()) * 1e-3, SMALLEST) if len(positive) else 1.0
    return np.asarray(np.log(np.maximum(costs, floor)))
