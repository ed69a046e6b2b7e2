"""The best settings of a sweep, run again on fresh seeds, to see whether they really differ or were lucky.

The runs form a sweep of their own, whose trials are all queued before it begins. Therefore it is recorded, resumed,
shared by several machines and shown like any other sweep.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError
from metta.sweep.ranking import Goal, is_scored, sign
from metta.sweep.store.protocol import Store
from metta.sweep.trial import Trial

if TYPE_CHECKING:
    from metta.sweep.state import SweepState

SUFFIX = ".confirm"
"""The suffix of the name of the sweep of confirmations."""

SOURCE = "confirmation"
"""The source in the suggestions of its trials."""

SURE = 0.95
"""The probability that all statements together are right."""

MANY_SEEDS = 1_000
"""The most seeds that are ever advised; nobody would run more."""


@dataclass(frozen=True)
class Setting:
    """One setting on fresh seeds.

    Attributes:
        trial: number of the sweep's trial that first had it.
        swept_score: the score of that trial.
        scores: one for each fresh seed on which it did not fail.
        failures: how many seeds failed.
        low, high: the interval of its mean score, with probability `SURE`; None for fewer than two scores.
    """

    trial: int
    swept_score: float | None
    scores: Sequence[float]
    failures: int
    low: float | None
    high: float | None

    @property
    def mean(self) -> float | None:
        return fmean(self.scores) if self.scores else None


@dataclass(frozen=True)
class Difference:
    """How much better one setting is than another, on average.

    Attributes:
        better, worse: numbers of their trials.
        mean: the difference of their mean scores, at least 0.
        low, high: its interval; all differences lie in their intervals with probability `SURE`.
        seeds_needed: how many seeds of each would show a difference of this size; None if it shows already or never
            would.
    """

    better: int
    worse: int
    mean: float
    low: float
    high: float
    seeds_needed: int | None

    @property
    def real(self) -> bool:
        return self.low > 0


@dataclass(frozen=True)
class ConfirmationResult:
    """The result of the fresh seeds: the settings, best first, and the difference of each pair."""

    settings: Sequence[Setting]
    differences: Sequence[Difference]


def choose(state: SweepState, top: int, numbers: Sequence[int] = ()) -> list[Trial]:
    """The trials to confirm: those of `numbers`, or the best and the next top scores with different settings.

    Raises:
        UserError: there are no such trials, or their seed is fixed.
    """
    if fixed := state.definition.fixed_seed:
        raise UserError(f"the sweep fixes {fixed}, so its trials cannot be run on other seeds")
    by_number = {trial.number: trial for trial in state.ranked}
    for number in numbers:
        if number not in by_number:
            raise UserError(f"trial {number} has no score, so it cannot be confirmed")
    if numbers:
        return [by_number[number] for number in dict.fromkeys(numbers)]
    settings: dict[str, Trial] = {}
    recommended = state.best_within(math.inf)  # not `best`, which results of fresh seeds may change
    for trial in [*([recommended] if recommended else []), *by_number.values()]:
        settings.setdefault(repr(sorted(trial.params.items())), trial)
    if not settings:
        raise UserError("no trial has a score yet")
    return list(settings.values())[:top]


def missing(confirmations: Sequence[Trial], chosen: Sequence[Trial], seeds: int) -> list[Trial]:
    """The chosen trials, each once for every seed that it still needs, in rotation."""
    had = Counter(trial.suggestion.get("trial") for trial in confirmations)
    return [trial for turn in range(seeds) for trial in chosen if had[trial.number] <= turn]


def entry_point(sweep: EntryPoint, name: str, num_trials: int) -> EntryPoint:
    """The entry point of the sweep of confirmations: the same sweep with another name and seed, and no budget."""
    overrides = {
        "sweep_name": name,
        "seed": "null",
        "sweep.num_trials": str(num_trials),
        "sweep.max_cost": "null",
        "sweep.max_hours": "null",
        "sweep.seeds_per_trial": "1",
        "sweep.early_stopping": "off",
    }
    return sweep.model_copy(update={"overrides": {**sweep.overrides, **overrides}})


def enqueue(store: Store, name: str, trials: Sequence[Trial]) -> None:
    """Queue trials of the sweep as confirmations."""
    for trial in trials:
        store.enqueue(name, trial.params, {"source": SOURCE, "trial": trial.number})


def confirmation_result(goal: Goal, chosen: Sequence[Trial], confirmations: Sequence[Trial]) -> ConfirmationResult:
    """Compare the chosen trials' settings by their scores on fresh seeds."""
    settings = [_setting(trial, confirmations) for trial in chosen]
    settings.sort(key=lambda each: -sign(goal) * each.mean if each.mean is not None else math.inf)
    pairs = [(a, b) for a, b in combinations(settings, 2) if len(a.scores) > 1 and len(b.scores) > 1]
    # Bonferroni: all intervals together hold with probability SURE.
    sure = 1 - (1 - SURE) / max(1, len(pairs))
    return ConfirmationResult(settings, [_difference(a, b, sign(goal), sure) for a, b in pairs])


def result_as_json(result: ConfirmationResult) -> dict[str, Any]:
    """The result as JSON data."""
    return {
        "settings": [{**vars(setting), "mean": setting.mean} for setting in result.settings],
        "differences": [{**vars(each), "real": each.real} for each in result.differences],
    }


def _setting(trial: Trial, confirmations: Sequence[Trial]) -> Setting:
    mine = [each for each in confirmations if each.suggestion.get("trial") == trial.number]
    scores = [each.score for each in mine if is_scored(each) and each.score is not None]
    failures = sum(each.counted for each in mine) - len(scores)
    if len(scores) < 2:
        return Setting(trial.number, trial.score, scores, failures, None, None)
    half = _quantile(SURE, len(scores) - 1) * math.sqrt(variance(scores) / len(scores))
    return Setting(trial.number, trial.score, scores, failures, fmean(scores) - half, fmean(scores) + half)


def _difference(better: Setting, worse: Setting, direction: float, sure: float) -> Difference:
    """Welch's interval for the difference of two means (Welch 1947, https://doi.org/10.1093/biomet/34.1-2.28)."""
    mean = direction * (fmean(better.scores) - fmean(worse.scores))
    errors = [variance(each.scores) / len(each.scores) for each in (better, worse)]
    error = sum(errors)
    if error == 0:
        return Difference(better.trial, worse.trial, mean, mean, mean, None)
    sizes = [len(each.scores) for each in (better, worse)]
    freedom = error**2 / sum(each**2 / (size - 1) for each, size in zip(errors, sizes, strict=True))
    half = _quantile(sure, freedom) * math.sqrt(error)
    needed = None
    if mean - half <= 0 < mean:
        total_variance = sum(variance(each.scores) for each in (better, worse))
        needed = math.ceil(total_variance * (_quantile(sure, math.inf) / mean) ** 2)
    seeds_needed = needed if needed is not None and needed <= MANY_SEEDS else None
    return Difference(better.trial, worse.trial, mean, mean - half, mean + half, seeds_needed)


def _quantile(sure: float, freedom: float) -> float:
    """The half width, in standard errors, of a two-sided interval of Student's t with probability `sure`."""
    from scipy.stats import norm, t

    tail = (1 + sure) / 2
    return float(norm.ppf(tail) if math.isinf(freedom) else t.ppf(tail, freedom))
