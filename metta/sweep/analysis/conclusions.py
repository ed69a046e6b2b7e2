"""Conclusions from a sweep: the best trial and why, how sure that is, which parameters matter, and what to run next.

Everything that the terminal, pages, plots and JSON say about a sweep is decided here, once. They only present it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from metta.sweep.analysis.confirmation import ConfirmationResult
from metta.sweep.analysis.failures import FailureReason, failure_reasons
from metta.sweep.analysis.ranges import WiderRange, wider_ranges
from metta.sweep.protein.start import OWN_VALUES, SEARCH_CENTRE
from metta.sweep.protein_config import same
from metta.sweep.trial import Trial, TrialState

if TYPE_CHECKING:
    from metta.sweep.analysis.model import Analysis
    from metta.sweep.protein.types import Belief, Prediction
    from metta.sweep.state import SweepState

FEW_TRIALS, MANY_TRIALS = 5, 20
"""With fewer scored trials than `FEW_TRIALS` almost nothing is known; with fewer than `MANY_TRIALS`, the choice of the
best trial is a guess."""

GOOD, FAIR = 0.7, 0.4
"""Rank correlations of forecasts and measurements from which a model is called good, or fair, as shares of what the
noise of a measurement allows."""

HIDDEN = 0.3
"""Where even a perfect model could not have a higher correlation, noise hides how good a model is."""

HARDLY = 0.05
"""A parameter with a smaller share of the score's variation hardly matters."""

LUCKY = 1.5
"""A score this many standard deviations of one run better than expected was probably luck."""

NEARLY_ALL = 0.9
"""A parameter hardly matters near the best setting if more than this share of its range is as good."""

CHEAPER = 0.8
"""A contender is cheaper if it costs less than this share of the best trial's cost."""

ONE_WAY = 0.8
"""A cost rises or falls over a range if its ends differ by at least this share of its whole variation there."""

NOTICEABLE_MISSES = 1.05
"""Forecasts whose error is less than this many times the predicted deviation count as right."""

CONFIRMED_SEEDS, MOST_CONFIRMED = 5, 8
"""Seeds for each setting that is confirmed, and the most settings that one confirmation compares."""


class BestReason(Enum):
    """Why the best trial is the best one."""

    ONLY = "no other trial has a score"
    CONFIRMED = "it did best on fresh seeds"
    MEASURED = "its measured score is the top one, and there is no analysis yet"
    TOP = "its measured score is the top one, and the model agrees"
    MODEL = "the model expects more of it than of the top trial"


class Evidence(Enum):
    """How much evidence the scored trials give."""

    ALMOST_NONE = "fewer than `FEW_TRIALS`"
    LITTLE = "fewer than `MANY_TRIALS`"
    ENOUGH = "at least `MANY_TRIALS`"


class Certainty(Enum):
    """How sure the choice of the best trial is."""

    CONFIRMED = "fresh seeds compared it with others"
    TOO_FEW = "fewer than `FEW_TRIALS` trials have scores"
    NOT_ASKED = "there is no analysis yet"
    EXPECTED = "the model gives an interval of its true score"


class Quality(Enum):
    """How well a model ordered trials before they ran."""

    UNKNOWN = "unknown"
    HIDDEN = "hidden by noise"
    POOR = "poor"
    FAIR = "fair"
    GOOD = "good"


class NextStep(Enum):
    """What to do next."""

    START = "start the sweep"
    FIX = "fix the cause of the failures, because every trial failed"
    CONTINUE_UNTIL_SCORED = "continue until trials have scores"
    CONTINUE = "continue until `num_trials` have ended"
    WIDEN = "widen ranges"
    WIDEN_THEN_CONFIRM = "widen ranges, then confirm the best trials"
    CONFIRM = "confirm the best trials on fresh seeds"
    EXTEND = "use the best trial, or extend the sweep"


@dataclass(frozen=True)
class ModelQuality:
    """How good the model's forecasts were.

    Attributes:
        quality: in a word.
        forecasts: how many trials it predicted before they ran.
        rank_correlation: of its predictions and the measurements; None for too few.
        attainable: the correlation of a perfect model with noisy measurements; None for too few.
        missed_by: its error in predicted deviations, if it was clearly overconfident; else None.
        cost_error: median relative error of predicted costs; None where unknown.
    """

    quality: Quality
    forecasts: int
    rank_correlation: float | None
    attainable: float | None
    missed_by: float | None
    cost_error: float | None


@dataclass(frozen=True)
class GoodValues:
    """The values of a parameter that are as good as the recommended one, with all other parameters fixed.

    Attributes:
        choices: the good ones, of a categorical parameter; empty for a range.
        low, high: the ends of the good part of a range; None for choices.
    """

    choices: Sequence[Any] = ()
    low: Any = None
    high: Any = None


@dataclass(frozen=True)
class Importances:
    """Which parameters matter, by dotted path, the most important first.

    Attributes:
        everywhere: over the whole search space.
        nearby: only near the best setting.
        hardly: neither.
        good_values: by parameter; a parameter is missing if nearly all its values are as good.
        is_first_guess: whether too few trials have ended to be sure.
        learnt_from: how many trials have ended.
    """

    everywhere: Sequence[str]
    nearby: Sequence[str]
    hardly: Sequence[str]
    good_values: dict[str, GoodValues]
    is_first_guess: bool
    learnt_from: int

    @property
    def in_order(self) -> list[str]:
        """The parameters that matter."""
        return [*self.everywhere, *self.nearby]


@dataclass(frozen=True)
class CostDriver:
    """The parameter on which the cost depends most.

    Attributes:
        path: its dotted path.
        least, most: the lowest and the highest cost over its range.
        direction: 1 where the cost rises with the parameter, -1 where it falls, 0 for neither; None for choices.
    """

    path: str
    least: float
    most: float
    direction: int | None


@dataclass(frozen=True)
class Conclusions:
    """Conclusions from a sweep, kept by `SweepState.conclusions`; each one is computed when it is first needed.

    Attributes:
        state: the sweep.
    """

    state: SweepState

    # ---- the best trial

    @property
    def best(self) -> Trial | None:
        """The recommended trial: training it again should give the best score."""
        return self.state.best

    @property
    def top(self) -> Trial | None:
        """The trial whose measured score ranks first."""
        return self.state.top

    @property
    def scored(self) -> int:
        """How many trials have a score that ranks."""
        return len(self.state.ranked)

    @property
    def evidence(self) -> Evidence:
        """How much evidence these give."""
        if self.scored < FEW_TRIALS:
            return Evidence.ALMOST_NONE
        return Evidence.LITTLE if self.scored < MANY_TRIALS else Evidence.ENOUGH

    @property
    def confirmation(self) -> ConfirmationResult | None:
        """The scores on fresh seeds; None if no setting was run on them."""
        return self.state.confirmation

    @cached_property
    def reason(self) -> BestReason | None:
        """Why the best trial is the best one; None if there is none."""
        best, top = self.best, self.top
        if best is None or top is None:
            return None
        if self.scored == 1:
            return BestReason.ONLY
        if self.confirmation is not None and self.confirmation.settings[0].trial == best.number:
            return BestReason.CONFIRMED
        if best.number != top.number:
            return BestReason.MODEL
        return BestReason.MEASURED if self.state.asking and self.state.analysis is None else BestReason.TOP

    def expected(self, trial: Trial | None) -> Prediction | None:
        """The score that the model expects of another run of a trial; None without an analysis."""
        if trial is None or self.state.analysis is None:
            return None
        return self.state.analysis.expected.get(trial.number)

    def worth(self, trial: Trial | None) -> float | None:
        """The expected score of another run of a setting: its mean on fresh seeds, or else the model's prediction."""
        if trial is None:
            return None
        for setting in self.confirmation.settings if self.confirmation is not None else ():
            if setting.trial == trial.number and setting.mean is not None:
                return setting.mean
        expected = self.expected(trial)
        return None if expected is None else expected.score

    @cached_property
    def luck(self) -> float:
        """How much better the best trial measured than expected, in standard deviations of one run."""
        best, expected = self.best, self.expected(self.best)
        if best is None or best.score is None or expected is None or expected.noise_std <= 0:
            return 0.0
        return self.state.sign * (best.score - expected.score) / expected.noise_std

    @property
    def was_lucky(self) -> bool:
        """Whether the best trial's measured score was probably luck."""
        return self.luck >= LUCKY

    @cached_property
    def baseline(self) -> Trial | None:
        """The scored trial that the search began with; None if there is none."""
        sources = (OWN_VALUES, SEARCH_CENTRE)
        return next((each for each in self.state.ranked if each.suggestion.get("source") in sources), None)

    @property
    def contenders(self) -> list[Trial]:
        """Other trials that may be as good as the best one, the most promising first."""
        return self.state.contenders

    @cached_property
    def cheaper_contender(self) -> Trial | None:
        """The cheapest contender, if it costs clearly less than the best trial."""
        if self.best is None or self.best.cost is None:
            return None
        cheap = [each for each in self.contenders if each.cost is not None and each.cost < CHEAPER * self.best.cost]
        return min(cheap, key=lambda trial: trial.cost or 0.0, default=None)

    # ---- certainty

    @cached_property
    def certainty(self) -> Certainty:
        """How sure the choice of the best trial is."""
        if self.confirmation is not None:
            return Certainty.CONFIRMED
        if self.evidence is Evidence.ALMOST_NONE:
            return Certainty.TOO_FEW
        return Certainty.NOT_ASKED if self.expected(self.best) is None else Certainty.EXPECTED

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the best trial's average score over more runs; None if unknown."""
        return self.interval_of(self.best)

    def interval_of(self, trial: Trial | None) -> tuple[float, float] | None:
        """The 95% interval of a trial's average score over more runs; None if unknown."""
        expected = self.expected(trial)
        if expected is None or self.state.analysis is None:
            return None
        return self.state.analysis.interval(expected)

    def belief(self, trial: Trial | None) -> Belief | None:
        """The model's belief about a trial's configuration; None without an analysis or with too few trials."""
        analysis = self.state.analysis
        if trial is None or analysis is None or self.evidence is Evidence.ALMOST_NONE:
            return None
        first = self.state.repeats.get(trial.number, trial.number)
        same = [first, *(analysis.twins if trial.number == analysis.recommended else [])]
        return next((analysis.beliefs[number] for number in same if number in analysis.beliefs), None)

    @cached_property
    def repeats(self) -> list[Trial]:
        """The scored trials with exactly the best setting, each with its own score."""
        return [self.state.by_number[number] for number in self.state.analysis.twins] if self.state.analysis else []

    @cached_property
    def neighbours(self) -> list[Trial]:
        """The scored trials with the settings nearest to the best one, nearest first."""
        return self._numbered(self.state.analysis.neighbours if self.state.analysis else [])

    @cached_property
    def model_quality(self) -> ModelQuality | None:
        """How good the model's forecasts were; None without an analysis."""
        if self.state.analysis is None:
            return None
        forecasts = self.state.analysis.forecasts
        correlation, misses = forecasts.rank_correlation, forecasts.misses
        attainable = forecasts.attainable_correlation
        if correlation is None or misses is None or attainable is None:
            return ModelQuality(Quality.UNKNOWN, len(forecasts.numbers), None, None, None, None)
        missed_by = misses if misses >= NOTICEABLE_MISSES else None
        quality = _quality(correlation, attainable)
        return ModelQuality(quality, len(forecasts.numbers), correlation, attainable, missed_by, forecasts.cost_error)

    # ---- importance

    @cached_property
    def importances(self) -> Importances | None:
        """Which parameters matter; None with too few trials or without an analysis."""
        analysis = self.state.analysis
        if analysis is None or self.evidence is Evidence.ALMOST_NONE:
            return None
        paths = sorted(analysis.importance, key=lambda path: -analysis.importance[path].score)
        good = {path: values for path in paths if (values := self._good_values(analysis, path)) is not None}
        everywhere = [path for path in paths if analysis.importance[path].score >= HARDLY]
        nearby = [path for path in paths if path not in everywhere and path in good]
        hardly = [path for path in paths if path not in everywhere and path not in nearby]
        is_first_guess = analysis.known < 3 * len(paths)
        return Importances(everywhere, nearby, hardly, good, is_first_guess, analysis.known)

    @cached_property
    def cost_driver(self) -> CostDriver | None:
        """The parameter on which the cost depends most; None if it hardly depends on any."""
        analysis = self.state.analysis
        if analysis is None or not analysis.importance:
            return None
        path = max(analysis.importance, key=lambda each: analysis.importance[each].cost)
        costs = [each.cost for each in analysis.slices[path].predictions if each.cost is not None]
        if analysis.importance[path].cost < HARDLY or len(costs) < 2:
            return None
        least, most, rise = min(costs), max(costs), costs[-1] - costs[0]
        if self.state.searched[path].choices is not None:
            return CostDriver(path, least, most, None)
        direction = 0 if abs(rise) < ONE_WAY * (most - least) else 1 if rise >= 0 else -1
        return CostDriver(path, least, most, direction)

    @cached_property
    def wider_ranges(self) -> dict[str, WiderRange]:
        """The ranges that should be wider, by dotted path."""
        return wider_ranges(self.state)

    # ---- next step

    @cached_property
    def failures(self) -> list[FailureReason]:
        """Why trials failed, the most frequent reason first."""
        return failure_reasons(self.state)

    @cached_property
    def to_confirm(self) -> list[Trial]:
        """The trials to run again on fresh seeds: a few, and in total not more runs than the sweep had.

        Empty after that has been done, and if it is impossible: the sweep cannot be rebuilt, or its seed is fixed.
        """
        impossible = self.state.record.entry_point is None or self.state.definition.fixed_seed
        if self.best is None or self.confirmation is not None or impossible:
            return []
        affordable = min(MOST_CONFIRMED, max(2, len(self.state.ended) // CONFIRMED_SEEDS))
        return [self.best, *self.contenders][:affordable]

    @cached_property
    def next_step(self) -> NextStep:
        """What to do next."""
        ended = self.state.counted
        if ended and len(self.state.with_state(TrialState.FAILED)) == ended:
            return NextStep.FIX
        if not self.state.trials:
            return NextStep.START
        if self.best is None:
            return NextStep.CONTINUE_UNTIL_SCORED
        if not self.state.complete:
            return NextStep.CONTINUE
        if self.wider_ranges:
            return NextStep.WIDEN_THEN_CONFIRM if self.to_confirm else NextStep.WIDEN
        return NextStep.CONFIRM if self.to_confirm else NextStep.EXTEND

    def price(self, runs: int, similar: Sequence[Trial]) -> float | None:
        """The expected cost of a number of runs like the given trials; None if no cost is known."""
        costs = [trial.cost for trial in similar if trial.cost is not None and math.isfinite(trial.cost)]
        return runs * fmean(costs) if costs else None

    # ---- parts of these

    def _numbered(self, numbers: Sequence[int]) -> list[Trial]:
        by_number = {trial.number: trial for trial in self.state.ranked}
        return [by_number[number] for number in numbers if number in by_number]

    def _good_values(self, analysis: Analysis, path: str) -> GoodValues | None:
        """The values around the recommended one that the model expects to be as good; None if nearly all are."""
        predictions, values = analysis.slices[path].predictions, analysis.slices[path].values
        recommended = self.state.by_number[analysis.recommended].params.get(path)
        if recommended is None:
            return None
        categorical = self.state.searched[path].choices is not None
        # Choices are compared as JSON is: NaN is a choice like any other, and 1 is not true.
        at_choice = (index for index, value in enumerate(values) if same(value, recommended))
        here = next(at_choice, None) if categorical else _nearest(values, recommended)
        if here is None:
            return None
        expected = predictions[here]
        good = [self.state.sign * (each.score - expected.score) >= -expected.noise_std for each in predictions]
        if sum(good) > NEARLY_ALL * len(good):
            return None
        if categorical:
            choices = [value for value, is_good in zip(values, good, strict=True) if is_good]
            return GoodValues(choices=choices) if choices else None
        first = last = here
        while first > 0 and good[first - 1]:
            first -= 1
        while last < len(good) - 1 and good[last + 1]:
            last += 1
        return GoodValues(low=values[first], high=values[last])


def _nearest(values: Sequence[float], value: float) -> int:
    return min(range(len(values)), key=lambda i: abs(values[i] - value))


def _quality(correlation: float, attainable: float) -> Quality:
    """How good an order of trials is, beside the best one that noise allows."""
    if attainable < HIDDEN:
        return Quality.HIDDEN
    share = correlation / attainable
    return Quality.GOOD if share >= GOOD else Quality.FAIR if share >= FAIR else Quality.POOR
