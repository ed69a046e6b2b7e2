"""What all trials of a sweep together say about each configuration: whole runs, repeats of them, and stopped runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from metta.sweep.protein.curves import Curve, Extrapolation, NormalScores, extrapolation
from metta.sweep.protein.surrogate import Data

Array = NDArray[np.float64]

PRIOR_NOISE, PRIOR_REPEATS = 0.3, 2.0
"""The variance between runs with other seeds, as a share of the variance of all whole runs, starts at the first number,
as if as many repeats as the second had shown it. Measured on `benchmarks/curves`, see docs/benchmarks.md."""
NO_NOISE = 1e-9
"""Repeats whose scores differ by no more than this share have no noise: they differ by rounding errors."""


@dataclass(frozen=True)
class Run:
    """A trial as evidence.

    Attributes:
        number: of the trial.
        configuration: number of the first trial with the same hyperparameters.
        point: [columns], the hyperparameters.
        curve: what it reported.
        end: score of a whole run, to be maximised, averaged over the last values; None if it is not a whole run.
        last: its score as measured, to be maximised.
        noise: measured standard error of that score, or None.
        cost: what it has cost; None if unknown.
        failed: it failed; its configuration teaches that.
        ended: it no longer runs.
    """

    number: int
    configuration: int
    point: Array
    curve: Curve
    end: float | None
    last: float | None
    noise: float | None
    cost: float | None
    failed: bool
    ended: bool

    @property
    def repeat(self) -> bool:
        return self.configuration != self.number

    @property
    def share(self) -> float:
        return 1.0 if self.end is not None or self.failed else min(self.curve.share, 1.0)


@dataclass(frozen=True)
class Known:
    """Configurations as the model of the score sees them, all [n].

    Attributes:
        data: scores are normal scores of the end of a whole run, and errors their standard errors.
        numbers: the first trial of each.
        wholes: how many whole runs each has.
        noise: variance of one whole run round its configuration's mean, in normal scores.
        last_noise: variance of the last value of a run round the mean of its last values.
    """

    data: Data
    numbers: NDArray[np.intp]
    wholes: NDArray[np.intp]
    noise: float
    last_noise: float


class Evidence:
    """All trials of a sweep.

    Args:
        runs: in the order of their numbers.
        shares: the shares of a run at which runs may be stopped; at least one.
    """

    def __init__(self, runs: Sequence[Run], shares: Sequence[float]) -> None:
        self.runs, self._shares = runs, shares
        self._extrapolations: dict[float, Extrapolation | None] = {}
        self._early_at: dict[float, tuple[Array, Array]] = {}

    @cached_property
    def whole_runs(self) -> float:
        """What was spent, in whole runs."""
        return sum(run.share for run in self.runs if run.ended)

    @cached_property
    def repeat_runs(self) -> float:
        """What was spent on repeats, in whole runs."""
        return sum(run.share for run in self.runs if run.ended and run.repeat)

    def at(self, share: float) -> tuple[Array, Array]:
        """Numbers and values [n] of all trials that reached a share, without repeats."""
        if share not in self._early_at:
            values = {run.number: run.curve.at(share) for run in self.runs if not run.repeat}
            reached = {number: value for number, value in values.items() if value is not None}
            self._early_at[share] = np.array(list(reached), dtype=float), np.array(list(reached.values()))
        return self._early_at[share]

    def averages(self, share: float) -> Array:
        """Mean values [n], up to a share, of all trials that reached it, without repeats."""
        curves = [run.curve for run in self.runs if not run.repeat and run.curve.reaches(share)]
        return np.array([curve.values[: _until(curve, share)].mean() for curve in curves])

    def r2(self, share: float) -> float | None:
        found = self.extrapolation(share)
        return None if found is None else found.r2

    @cached_property
    def noiseless(self) -> bool:
        """Whether runs were repeated and gave the same scores. Then scores count as measured, and are not averaged.

        A score that several configurations share, as on a plateau at zero, shows nothing when it comes again.
        """
        scores: dict[int, list[float]] = {}
        for run in self.runs:
            if run.last is not None:
                scores.setdefault(run.configuration, []).append(run.last)
        shared = Counter(score for each in scores.values() for score in set(each))
        repeated = [each for each in scores.values() if len(each) > 1 and shared[each[0]] == 1]
        return bool(repeated) and all(np.ptp(each) <= NO_NOISE * (1.0 + abs(each[0])) for each in repeated)

    def _end(self, run: Run) -> float | None:
        return run.last if self.noiseless else run.end

    @cached_property
    def _ends(self) -> NormalScores | None:
        ends = [end for run in self.runs if (end := self._end(run)) is not None]
        return NormalScores(np.array(ends)) if ends else None

    @cached_property
    def _early(self) -> NormalScores:
        return NormalScores(np.concatenate([self.at(share)[1] for share in self._shares]))

    def extrapolation(self, share: float) -> Extrapolation | None:
        """How values at a share predict the end; None while fewer than two runs show it."""
        if share not in self._extrapolations:
            pairs = [
                (value, end)
                for run in self.runs
                if (end := self._end(run)) is not None
                if (value := run.curve.at(share)) is not None
            ]
            found = None
            if len(pairs) >= 2 and self._ends is not None:
                early, ends = np.array(pairs).T
                found = extrapolation(share, self._early(early), self._ends(ends), self._early(self.at(share)[1]))
            self._extrapolations[share] = found
        return self._extrapolations[share]

    @property
    def scale(self) -> NormalScores | None:
        """From scores to normal scores; None before the first whole run."""
        return self._ends

    @cached_property
    def known(self) -> Known | None:
        """What is known of each configuration; None before the first whole run."""
        if self._ends is None:
            return None
        ends: dict[int, list[float]] = {}
        measured: dict[int, float] = {}  # the largest measured variance of a configuration's runs
        for run in self.runs:
            end = self._end(run)
            if end is not None:
                low, score, high = self._ends(end + (run.noise or 0.0) * np.array([-1.0, 0.0, 1.0])).tolist()
                ends.setdefault(run.configuration, []).append(score)
                measured[run.configuration] = max(measured.get(run.configuration, 0.0), (high - low) ** 2 / 4.0)
        noise = NO_NOISE if self.noiseless else _noise(list(ends.values()))
        stopped = self._stopped
        found: list[tuple[Run, tuple[float, float]]] = []
        for run in self.runs:
            row: tuple[float, float] | None = None
            if run.number in ends:
                scores = ends[run.number]
                row = float(np.mean(scores)), max(noise, measured[run.number]) / len(scores)
            elif run.ended and not run.repeat:
                row = (np.nan, 0.0) if run.failed else stopped.get(run.number)
            if row is not None:
                found.append((run, row))
        data = Data(
            np.array([run.point for run, _ in found]),
            np.array([score for _, (score, _) in found]),
            np.sqrt(np.array([variance for _, (_, variance) in found])),
            np.array([np.nan if run.cost is None else run.cost / max(run.share, 1e-3) for run, _ in found]),
            np.array([run.failed for run, _ in found], dtype=bool),
        )
        numbers = np.array([run.number for run, _ in found], dtype=np.intp)
        wholes = np.array([len(ends.get(run.number, [])) for run, _ in found], dtype=np.intp)
        return Known(data, numbers, wholes, noise, self._last_noise)

    @property
    def _last_noise(self) -> float:
        """Variance of the last values of whole runs round their ends, in normal scores."""
        assert self._ends is not None
        pairs = [(self._end(run), run.last) for run in self.runs if run.last is not None]
        ends, lasts = (self._ends(column) for column in np.array(pairs, dtype=float).T)
        return float(np.mean((ends - lasts) ** 2))

    @property
    def _stopped(self) -> dict[int, tuple[float, float]]:
        """The end that the last rung of each trial predicts: a normal score and the variance of its error."""
        said: dict[int, tuple[float, float]] = {}
        for share in self._shares:
            found = self.extrapolation(share)
            if found is not None:
                numbers, values = self.at(share)
                ends = found(self._early(values))
                said |= {int(n): (end, found.variance) for n, end in zip(numbers, ends.tolist(), strict=True)}
        return said


def half_width(known: Known) -> float:
    """Deviations from the middle to the ends of an interval with 95 % of all runs.

    They are those of Student's distribution, because the noise is known from a few repeats only.
    """
    repeats = int(np.maximum(known.wholes - 1, 0).sum())
    return float(stdtrit(repeats + PRIOR_REPEATS, 0.975))


def _noise(ends: Sequence[Sequence[float]]) -> float:
    """Variance of whole runs round their configuration's mean, pooled."""
    scores = np.concatenate([np.asarray(each) for each in ends])
    within = sum(float(np.var(each)) * len(each) for each in ends)
    repeats = len(scores) - len(ends)
    prior = PRIOR_REPEATS * PRIOR_NOISE * max(float(scores.var()), 1e-3)
    return (within + prior) / (repeats + PRIOR_REPEATS)


def _until(curve: Curve, share: float) -> int:
    return max(1, int(np.searchsorted(curve.steps, share * curve.total * (1.0 + 1e-9), side="right")))
