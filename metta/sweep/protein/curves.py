"""Learning curves: what a trial has shown so far, and how well an early value predicts the end of a run.

That differs by task, so it is learnt in each sweep, from the runs that went on to their end. Runs that were stopped
enter the model of the score with the end that their curves predict, and with the uncertainty of that prediction.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]
CurvePoint = tuple[float, float, float]
"""Step, cost of the trial until then, and value of the metric."""

STEPS_GRID = 4
"""Runs of different lengths are compared at steps that are powers of the 4th root of 2, so there are few of them."""
END_SHARE = 0.25
"""The last values of a whole run within this share of it are averaged: they say more about its configuration than the
last one alone. Measured on `benchmarks/curves`, see docs/benchmarks.md."""
LARGEST = sys.float_info.max
"""The largest number that a float can hold."""
_TOLERANCE = 1e-9
"""Differences of shares that are rounding errors."""
_MIN_SPREAD = 0.1
"""Normal quantiles nearer to 0 than this do not set the slope beyond the known values: it would be too steep."""


@dataclass(frozen=True)
class Rung:
    """Where runs are compared: at the same share of each run, or after the same steps.

    Attributes:
        share: of each run; None where steps are compared.
        steps: since the start; None where shares are compared.
    """

    share: float | None = None
    steps: float | None = None

    @classmethod
    def at_steps(cls, steps: float) -> Rung:
        """The rung at the last step of the grid that a run with so many steps has passed."""
        return cls(steps=2.0 ** (math.floor(STEPS_GRID * math.log2(steps) + _TOLERANCE) / STEPS_GRID))

    def of(self, total: float) -> float:
        """Its share of a run with so many steps in all."""
        return self.share if self.share is not None else (self.steps or 0.0) / total

    def __str__(self) -> str:
        return f"{self.share:.0%} of a run" if self.share is not None else f"{self.steps:.0f} steps"


@dataclass(frozen=True)
class Curve:
    """What a trial reported, in the order of steps.

    Attributes:
        steps, costs, values: [n] each. Costs are those of the trial so far. Values are to be maximised.
        total: steps of a whole run of this trial.
    """

    steps: Array
    costs: Array
    values: Array
    total: float
    _at: dict[float, float | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, points: Sequence[CurvePoint], total: float | None, sign: float = 1.0) -> Curve:
        """A curve from its points; points without a finite value are left out.

        Args:
            total: steps of a whole run; None means the last step.
            sign: -1 where the metric is to be minimised.

        Raises:
            ValueError: steps that do not increase, or a total that is no positive number.
        """
        columns = np.array([point for point in points if math.isfinite(point[2])], dtype=float).reshape(-1, 3)
        steps = columns[:, 0]
        if not np.isfinite(columns).all() or (np.diff(steps) <= 0).any():
            raise ValueError("the steps of a curve must increase, and steps and costs must be finite")
        if total is None:
            total = float(steps[-1]) if len(steps) else 1.0
        if not (math.isfinite(total) and total > 0):
            raise ValueError(f"the steps of a whole run must be a positive number, not {total}")
        return cls(steps, columns[:, 1], sign * columns[:, 2], total)

    @property
    def share(self) -> float:
        """How much of a whole run it covers."""
        return float(self.steps[-1]) / self.total if len(self.steps) else 0.0

    def reaches(self, share: float) -> bool:
        return self.share >= share - _TOLERANCE

    def at(self, share: float) -> float | None:
        """The value at a share of the run, between two points by a straight line; None if it does not reach it."""
        if share not in self._at:
            reached = len(self.steps) > 0 and self.reaches(share)
            self._at[share] = float(np.interp(share * self.total, self.steps, self.values)) if reached else None
        return self._at[share]

    def mean_until(self, share: float) -> float:
        """Mean of the values up to a share of the run; the first value where there is none before."""
        end = int(np.searchsorted(self.steps, share * self.total * (1.0 + _TOLERANCE), side="right"))
        return float(self.values[: max(1, end)].mean())

    def end(self, score: float) -> float:
        """The score of a whole run: the mean of its last values where the curve is that of the score itself.

        Args:
            score: as measured at the end.
        """
        if not len(self.values) or not math.isclose(self.values[-1], score, rel_tol=1e-9, abs_tol=1e-12):
            return score
        last = self.values[self.steps > (1.0 - END_SHARE) * self.total + _TOLERANCE * self.total]
        return float(last.mean()) if len(last) else score


class Scale(Protocol):
    """A monotone map of what a model is given as scores to targets with mean near 0 and variance near 1.

    `inverse` leads back to scores in the units of the metric.
    """

    def __call__(self, scores: Array) -> Array: ...

    def slope(self, scores: Array) -> Array: ...

    def errors(self, errors: Array, scores: Array) -> Array: ...

    def inverse(self, values: Array) -> Array: ...


class NormalScores:
    """Ranks as normal quantiles: of heavy tails, cliffs and divergence only the order is kept.

    A value between two known ones lies between their quantiles. Equal values share the middle of theirs.

    Args:
        values: [n], n at least 1.
    """

    def __init__(self, values: Array) -> None:
        self._values, counts = np.unique(values, return_counts=True)
        shares = (np.cumsum(counts) - 0.5 * counts) / len(values)
        self._quantiles = np.asarray(ndtri(shares))

    def __call__(self, values: Array) -> Array:
        return np.interp(values, self._values, self._quantiles)

    def inverse(self, quantiles: Array) -> Array:
        """Values at normal quantiles; beyond the known ones on the line from their middle to the last of them.

        Never infinite, even where differences of values are.
        """
        known, values = self._quantiles, self._values
        inside = np.interp(quantiles, known, values)
        beyond = quantiles - np.clip(quantiles, known[0], known[-1])
        middle = np.interp(0.0, known, values)
        with np.errstate(over="ignore"):
            below = (values[0] - middle) / min(known[0], -_MIN_SPREAD)
            above = (values[-1] - middle) / max(known[-1], _MIN_SPREAD)
            slopes = np.clip(np.where(beyond < 0, below, above), -LARGEST, LARGEST)
            return np.asarray(np.clip(inside + beyond * slopes, -LARGEST, LARGEST))


class Standardised:
    """Normal scores as targets of a model, and back to scores.

    Args:
        scores: between scores and normal scores.
        known: normal scores [n] of the observations; NaN where there is none.
    """

    def __init__(self, scores: NormalScores, known: Array) -> None:
        self._scores = scores
        self._mean, self._deviation = float(np.nanmean(known)), float(np.nanstd(known)) or 1.0

    def __call__(self, scores: Array) -> Array:
        return (scores - self._mean) / self._deviation

    def slope(self, scores: Array) -> Array:
        """How much the map stretches differences between normal scores [n]."""
        return np.full(len(scores), 1.0 / self._deviation)

    def errors(self, errors: Array, scores: Array) -> Array:
        """The variances [n] on this scale of normal scores [n] with standard errors [n]."""
        return np.asarray((errors / self._deviation) ** 2)

    def inverse(self, values: Array) -> Array:
        return self._scores.inverse(values * self._deviation + self._mean)


@dataclass(frozen=True)
class Extrapolation:
    """The regression of the end of a run on its value at a share of it, both as normal scores.

    Attributes:
        intercept, slope: of the line.
        variance: of the end round the line.
        r2: share of the variance of the end, among all runs that reached the share, which the line explains.
        runs: how many runs went on to the end.
    """

    intercept: float
    slope: float
    variance: float
    r2: float
    runs: int

    def __call__(self, early: float) -> float:
        return self.intercept + self.slope * early


LENGTH_RUNS = 3.0
"""The effect of the length of runs is shrunk as if so many runs had shown none."""


def length_slope(lengths: Array, scores: Array) -> float:
    """How normal scores [n] grow with the logs of the lengths [n] of their runs, by a shrunk regression line."""
    offsets = lengths - lengths.mean()
    spread = float(offsets @ offsets)
    return float(offsets @ (scores - scores.mean())) / (spread + LENGTH_RUNS * spread / len(lengths)) if spread else 0.0


PRIOR_RUNS, PRIOR_POWER = 3.0, 0.8
"""The regression starts as if so many runs had shown an R² of the share of the run to this power: 0.16 at a tenth, 0.38
at three tenths. Tuned on `benchmarks/curves` (its tuned-on tables) as part of the whole policy, not measured alone."""


def extrapolation(share: float, early: Array, end: Array, everyone: Array) -> Extrapolation:
    """Learn how a value at a share of the run predicts its end.

    A conjugate Bayesian line (Gelman et al., "Bayesian data analysis", chapter 14) with a prior of `PRIOR_RUNS` runs.
    Runs go on because of their early values. That does not bias a line, but it narrows the range of those values. So R²
    is computed with the variance of the early values of all runs that reached the share.

    Args:
        share: of the run, where the early values were taken.
        early, end: normal scores [n] of the runs that went on to the end, n at least 1.
        everyone: early normal scores [m] of all runs that reached the share.
    """
    spread = max(float(everyone.var()), 1e-3)
    offsets = early - early.mean()
    prior_r2 = share**PRIOR_POWER
    slope = float(offsets @ (end - end.mean()) + PRIOR_RUNS * math.sqrt(prior_r2) * spread)
    slope /= float(offsets @ offsets) + PRIOR_RUNS * spread
    intercept = float(end.mean() - slope * early.mean())
    rest = end - intercept - slope * early
    variance = (float(rest @ rest) + PRIOR_RUNS * (1.0 - prior_r2)) / (len(early) + PRIOR_RUNS)
    explained = max(slope, 0.0) ** 2 * spread
    return Extrapolation(intercept, slope, variance, explained / (explained + variance), len(early))
