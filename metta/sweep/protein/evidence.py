"""What all trials of a sweep together say about each configuration: whole runs, repeats of them, and stopped runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.curves import Curve, Extrapolation, NormalScores, Rung, extrapolation, length_slope
from metta.sweep.protein.gaussian_process import Groups
from metta.sweep.protein.noise import NO_SEED_NOISE, SeedNoise, seed_noise
from metta.sweep.protein.run_length import RunLength
from metta.sweep.protein.surrogate import Data, ScoreScale, spread

Array = NDArray[np.float64]

ONE_LENGTH = 0.01
"""Runs whose steps in all differ by no more than this share are equally long."""
SHORTER_SHARES, SHORTER_ERROR = (0.5, 0.2), 0.05
"""Where the length of a run is searched: the shares of each run that count as shorter runs, and the variance in normal
scores with which they tell of real ones, beside the noise of seeds. Chosen by hand; that they help was measured, see
docs/benchmarks.md, "Runs of other lengths"."""
MIN_WHOLE_RUNS = 3
"""Whole runs that must show how a curve's values compare with scores. Chosen by hand."""
MAX_SHORTER = 32
"""Shorter runs in a model at most. Set by the time of a suggestion."""
OWN_SCORE, OWN_VARIANCE = 1.5, 0.5
"""What is believed of the Tool's own values before they were run, as a normal score: somebody has chosen them because
they are good. Chosen among a few on `benchmarks/curves` (its tuned-on tables); see docs/benchmarks.md, "Sweeps that
begin with good values"."""
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
        noise: of one whole run round its configuration's mean, in normal scores.
        last_noise: variance of the last value of a run round the mean of its last values.
    """

    data: Data
    numbers: NDArray[np.intp]
    wholes: NDArray[np.intp]
    noise: SeedNoise
    last_noise: float


@dataclass(frozen=True)
class ShorterRuns:
    """What curves show of runs that would have been shorter, as if those had been made.

    Attributes:
        data: as in `Known`.
        measured: the same with scores in the units of the metric, to be maximised.
        numbers: [n], of the trials.
    """

    data: Data
    measured: Data
    numbers: NDArray[np.intp]


@dataclass(frozen=True)
class Readings:
    """What trials showed at a rung.

    Attributes:
        numbers: of the trials [n].
        scores: normal scores [n] of the values there, to be maximised, less what the length of the run explains.
        repeats: [n], whether each repeats another trial.
    """

    numbers: NDArray[np.intp]
    scores: Array
    repeats: NDArray[np.bool_]

    @cached_property
    def firsts(self) -> Array:
        """The scores of those that repeat no other."""
        return self.scores[~self.repeats]

    @cached_property
    def by_number(self) -> dict[int, float]:
        return dict(zip(self.numbers.tolist(), self.scores.tolist(), strict=True))


class Evidence:
    """All trials of a sweep.

    Args:
        runs: in the order of their numbers.
        shares: the shares of a run at which runs may be stopped; at least one.
        groups: [columns], the parameter of each column of a point.
        own: number of the trial with the Tool's own values, or None.
    """

    def __init__(self, runs: Sequence[Run], shares: Sequence[float], groups: Groups, own: int | None = None) -> None:
        self.runs, self._shares, self._groups, self._own = runs, shares, groups, own
        self._said: dict[Rung, Extrapolation | None] = {}
        self._readings: dict[Rung, Readings] = {}

    @cached_property
    def whole_runs(self) -> float:
        """What was spent, in whole runs."""
        return sum(run.share for run in self.runs if run.ended)

    @cached_property
    def repeat_runs(self) -> float:
        """What was spent on repeats, in whole runs."""
        return sum(run.share for run in self.runs if run.ended and run.repeat)

    @cached_property
    def one_length(self) -> bool:
        """Whether a whole run has the same steps in all trials."""
        totals = [run.curve.total for run in self.runs if len(run.curve.steps)]
        return not totals or max(totals) <= min(totals) * (1.0 + ONE_LENGTH)

    @property
    def _shows_one_length(self) -> bool:
        """Whether runs reported, and all are equally long. The Tool's own length need not be the best one."""
        return self.one_length and any(len(run.curve.steps) for run in self.runs)

    def rung(self, share: float, total: float) -> Rung:
        """Where a run is compared that has come to a share of its steps in all.

        At equal shares if all runs are equally long. Otherwise after equal steps, or at equal shares if values there
        tell more of the end.
        """
        by_share, by_steps = Rung(share), Rung.at_steps(share * total)
        if self.one_length:
            return by_share
        shares, steps = self.r2(by_share), self.r2(by_steps)
        return by_share if shares is not None and steps is not None and shares > steps else by_steps

    def readings(self, rung: Rung) -> Readings:
        """What all trials that reached a rung showed there."""
        if rung not in self._readings:
            self._readings[rung] = self._read(rung)
        return self._readings[rung]

    def _read(self, rung: Rung) -> Readings:
        reached = [(run, value) for run in self.runs if (value := run.curve.at(rung.of(run.curve.total))) is not None]
        scores = self._early(np.array([value for _, value in reached]))
        if rung.share is not None and not self.one_length and len(reached):
            lengths = np.log([run.curve.total for run, _ in reached])
            scores = scores - length_slope(lengths, scores) * (lengths - lengths.mean())
        numbers = np.array([run.number for run, _ in reached], dtype=np.intp)
        return Readings(numbers, scores, np.array([run.repeat for run, _ in reached], dtype=bool))

    def averages(self, rung: Rung) -> Array:
        """Mean values [n], up to a rung, of all trials that reached it, without repeats."""
        curves = [(run.curve, rung.of(run.curve.total)) for run in self.runs if not run.repeat]
        return np.array([curve.mean_until(share) for curve, share in curves if curve.reaches(share)])

    def r2(self, rung: Rung) -> float | None:
        """How well what trials showed at a rung predicts the end; None while nothing can be learnt."""
        found = self.extrapolation(rung)
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
        """Normal scores of all values at all rungs, of runs of one length; otherwise of all reported values."""
        curves = [run.curve for run in self.runs if not run.repeat]
        if not self.one_length:
            return NormalScores(np.concatenate([curve.values for curve in curves]))
        values = [value for share in self._shares for curve in curves if (value := curve.at(share)) is not None]
        return NormalScores(np.array(values))

    @cached_property
    def _length_effect(self) -> Callable[[float], float]:
        """What a run's steps in all add to the normal score of its end."""
        ends = [(run.curve.total, end) for run in self.runs if (end := self._end(run)) is not None]
        if self.one_length or self._ends is None:
            return lambda total: 0.0
        totals, scores = np.array(ends).T
        lengths = np.log(totals)
        slope, middle = length_slope(lengths, self._ends(scores)), float(lengths.mean())
        return lambda total: slope * (math.log(total) - middle)

    def extrapolation(self, rung: Rung) -> Extrapolation | None:
        """How readings at a rung predict the end, length of the run apart; None while fewer than two runs show it."""
        if rung not in self._said:
            self._said[rung] = self._extrapolate(rung)
        return self._said[rung]

    def _extrapolate(self, rung: Rung) -> Extrapolation | None:
        readings = self.readings(rung)
        early, both = readings.by_number, [number for number in self._beyond_length if number in readings.by_number]
        if len(both) < 2:
            return None
        share = float(np.mean([rung.of(self._by_number[number].curve.total) for number in both]))
        scores = np.array([(early[number], self._beyond_length[number]) for number in both])
        return extrapolation(min(share, 1.0), scores[:, 0], scores[:, 1], readings.firsts)

    @cached_property
    def _beyond_length(self) -> dict[int, float]:
        """The normal score of the end of each whole run, length of the run apart, by its number."""
        runs = [run for run in self.runs if self._end(run) is not None]
        if self._ends is None:
            return {}
        scores = self._ends(np.array([self._end(run) for run in runs], dtype=float)).tolist()
        lengths = [self._length_effect(run.curve.total) for run in runs]
        return {run.number: score - by for run, score, by in zip(runs, scores, lengths, strict=True)}

    @cached_property
    def _by_number(self) -> dict[int, Run]:
        return {run.number: run for run in self.runs}

    @cached_property
    def scale(self) -> NormalScores | None:
        """Between normal scores and scores as they are measured at the end of a run; None before the first whole run.

        The last values of a run are averaged to judge it, but what training again gives is one of these.
        """
        lasts = [run.last for run in self.runs if run.last is not None]
        return NormalScores(np.array(lasts)) if lasts else None

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
        noise = self._noise(ends)
        found: list[tuple[Run, tuple[float, float]]] = []
        for run in self.runs:
            row: tuple[float, float] | None = None
            if run.number in ends:
                scores = ends[run.number]
                row = float(np.mean(scores)), max(noise.variance, measured[run.number]) / len(scores)
                if run.number == self._own and self._shows_one_length:
                    row = _with_prior(*row)
            elif run.ended and not run.repeat:
                row = (np.nan, 0.0) if run.failed else self._promised(run)
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

    @cached_property
    def measured(self) -> Data | None:
        """The configurations of `known` with scores in the units of the metric, to be maximised.

        Scores of whole runs are as measured, and differences between seeds are not among their errors. None before the
        first whole run.
        """
        if self.known is None:
            return None
        data = self._measured(self.known.data)
        for row, number in enumerate(self.known.numbers.tolist()):
            if own := self._wholes.get(number):
                data.scores[row] = _mean([run.last for run in own])
                data.errors[row] = max(run.noise or 0.0 for run in own) / math.sqrt(len(own))
        return data

    def _measured(self, data: Data) -> Data:
        """The same observations with scores in the units of the metric."""
        assert self.scale is not None
        low, scores, high = (self.scale.inverse(data.scores + step * data.errors) for step in (-1.0, 0.0, 1.0))
        return replace(data, scores=scores, errors=np.nan_to_num(high / 2.0 - low / 2.0))

    def shorter(self, length: RunLength) -> ShorterRuns | None:
        """What curves show of shorter runs, where the length of a run is searched; None where they show nothing.

        A value on the way counts as the score of a run that ends there. That is exact where training does not know its
        end, and close where it does, as with a learning rate that falls to zero.
        """
        lasts = [float(run.curve.values[-1]) for run in self.runs if run.end is not None and len(run.curve.values)]
        if self.known is None or len(lasts) < MIN_WHOLE_RUNS:
            return None
        ends, found = NormalScores(np.array(lasts)), []
        for run in (run for run in self.runs if run.ended and not run.repeat and not run.failed):
            for share in SHORTER_SHARES:
                value, point = run.curve.at(share), length.shortened(run.point, share)
                if value is not None and point is not None:
                    cost = np.nan if run.cost is None else run.cost * share / max(run.share, 1e-3)
                    found.append((run.number, point, value, cost))
        if not found:
            return None
        numbers, points, values, costs = (list(column) for column in zip(*found, strict=True))
        error = math.sqrt(self.known.noise.variance + SHORTER_ERROR)
        data = Data(
            np.array(points),
            ends(np.array(values)),
            np.full(len(found), error),
            np.array(costs, dtype=float),
            np.zeros(len(found), dtype=bool),
        )
        keep = spread(np.arange(len(found)), MAX_SHORTER)
        data = data.only(keep)
        return ShorterRuns(data, self._measured(data), np.array(numbers, dtype=np.intp)[keep])

    @cached_property
    def _wholes(self) -> dict[int, list[Run]]:
        """The whole runs of each configuration that has any, by the number of its first trial."""
        found: dict[int, list[Run]] = {}
        for run in self.runs:
            if run.end is not None:
                found.setdefault(run.configuration, []).append(run)
        return found

    def _noise(self, ends: Mapping[int, Sequence[float]]) -> SeedNoise:
        """The noise of whole runs, whose normal scores are `ends`, by the number of their configuration."""
        if self.noiseless:
            return NO_SEED_NOISE
        points = {run.configuration: run.point for run in self.runs}
        measured = [np.array([self._end(run) for run in self._wholes[number]], dtype=float) for number in ends]
        scale = ScoreScale(np.concatenate(measured))
        return seed_noise(
            np.array([points[number] for number in ends]),
            [scale(each).tolist() for each in measured],
            self._groups,
            float(np.var([score for scores in ends.values() for score in scores])),
        )

    @property
    def _last_noise(self) -> float:
        """Variance of the last values of whole runs round their ends, in normal scores."""
        assert self._ends is not None
        pairs = [(self._end(run), run.last) for run in self.runs if run.last is not None]
        ends, lasts = (self._ends(column) for column in np.array(pairs, dtype=float).T)
        return float(np.mean((ends - lasts) ** 2))

    def _promised(self, run: Run) -> tuple[float, float] | None:
        """The end that the last rung of a stopped trial predicts: a normal score and the variance of its error."""
        for share in reversed(self._shares):
            if not run.curve.reaches(share):
                continue
            rung = self.rung(share, run.curve.total)
            found, early = self.extrapolation(rung), self.readings(rung).by_number.get(run.number)
            if found is not None and early is not None:
                return float(found(early)) + self._length_effect(run.curve.total), found.variance
        return None


def _with_prior(score: float, variance: float) -> tuple[float, float]:
    """Mean and variance of the score of the Tool's own values, by what is believed of them and what they measured."""
    measured = OWN_VARIANCE / (OWN_VARIANCE + variance)  # the weight of the measurement: 1 where it is exact
    return measured * score + (1.0 - measured) * OWN_SCORE, measured * variance


def _mean(values: Sequence[float | None]) -> float:
    """The mean of values that are all known; finite where they are."""
    return float(np.sum(np.array(values, dtype=float) / len(values)))
