"""A sweep as one value: its record, definition and trials, and everything computed from them, once."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Self

from metta.common.config import flatten, short_names
from metta.common.errors import UserError
from metta.sweep.analysis.confirmation import SUFFIX, ConfirmationResult, confirmation_result
from metta.sweep.curve import watched_curve
from metta.sweep.definition import SweepDefinition, read_definition
from metta.sweep.observations import Learner, ObservationReader, numbers_text, problems_text
from metta.sweep.protein.types import OtherLength
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.ranking import Goal, KeepPolicies, is_scored, judged, pareto_front, ranked, sign
from metta.sweep.store.protocol import CurvePoint, Store, SweepNotFoundError, SweepRecord
from metta.sweep.trial import Trial, TrialState

if TYPE_CHECKING:
    from metta.sweep.analysis.conclusions import Conclusions
    from metta.sweep.analysis.model import Analysis


RECENT = 20
"""The number of latest trials from which the cost and duration of the next ones are estimated."""


@dataclass(frozen=True, eq=False)
class SweepState:
    """A sweep at one moment. Make one with `SweepState.of` or `read_state`.

    Attributes:
        record: its name, configuration and entry point.
        definition: its current definition.
        trials: every trial, by number, with its score and cost under that definition.
        reader: the reader of its trials.
        store_url: URL of the store, without a password.
        confirmations: trials of the sweep that ran the best hyperparameters again on fresh seeds.
        analysis: the analysis by the optimiser's model, if there is one. It may cover fewer trials than `trials`.
        asking: whether another thread computes the analysis; until it is ready, the best trial is the top one.
        curves: the learning curves that were read, by trial number.
        all_curves: every learning curve, by trial number, if the optimiser learns from curves.
        details: complete trials, by number, if `trials` are brief.
        taken_at: time of this state, UTC.
    """

    record: SweepRecord
    definition: SweepDefinition
    trials: Sequence[Trial]
    reader: ObservationReader = field(repr=False, compare=False)
    store_url: str = ""
    confirmations: Sequence[Trial] = ()
    analysis: Analysis | None = None
    asking: bool = False
    curves: Mapping[int, Sequence[CurvePoint]] = field(default_factory=dict)
    all_curves: Mapping[int, Sequence[CurvePoint]] = field(default_factory=dict, repr=False)
    details: Mapping[int, Trial] = field(default_factory=dict)
    taken_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(
        cls,
        record: SweepRecord,
        definition: SweepDefinition,
        stored: Sequence[Trial],
        reader: ObservationReader | None = None,
        store_url: str = "",
        confirmations: Sequence[Trial] = (),
    ) -> Self:
        """The state of a sweep with its stored trials.

        Args:
            reader: a reader with the same definition, which may have read some of the trials already.
        """
        reader = reader or ObservationReader(definition)
        trials = [reader.read(trial).trial for trial in stored]
        return cls(record, definition, trials, reader, store_url, confirmations)

    def analysed(self) -> Self:
        """The same state with an analysis by the optimiser's model."""
        from metta.sweep.analysis.model import analyse

        return replace(self, analysis=analyse(self))

    # ---- the search

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def metric(self) -> str:
        return self.definition.protein.metric

    @property
    def goal(self) -> Goal:
        return self.definition.protein.goal

    @property
    def sign(self) -> float:
        """The factor that makes larger scores better: 1 or -1."""
        return sign(self.goal)

    @cached_property
    def searched(self) -> dict[str, ParameterConfig]:
        """The searched parameters, by dotted path."""
        leaves = flatten(self.definition.protein.parameters)
        return {path: leaf for path, leaf in leaves.items() if isinstance(leaf, ParameterConfig)}

    @cached_property
    def parameter_names(self) -> dict[str, str]:
        """The shortest unambiguous name of each searched parameter, by dotted path."""
        return short_names(list(self.searched))

    # ---- progress

    @cached_property
    def by_number(self) -> dict[int, Trial]:
        return {trial.number: trial for trial in self.trials}

    def detailed(self, trial: Trial) -> Trial:
        """The complete trial if it was read, else the brief one."""
        return self.details.get(trial.number, trial)

    def trial(self, number: int) -> Trial:
        """The trial with that number.

        Raises:
            UserError: it does not exist.
        """
        if number not in self.by_number:
            numbers = numbers_text(list(self.by_number))
            several = len(self.by_number) != 1
            has = f"{'trials' if several else 'trial'} {numbers}" if numbers else "no trials yet"
            raise UserError(f"sweep {self.name!r} has {has}, and no trial {number}")
        return self.by_number[number]

    @cached_property
    def counts(self) -> Mapping[TrialState, int]:
        """The number of trials in each state, without dropped trials."""
        counts = Counter(trial.state for trial in self.trials if trial.dropped is None)
        return {state: counts[state] for state in TrialState}

    @cached_property
    def dropped(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.dropped is not None]

    @cached_property
    def counted(self) -> int:
        """The number of trials that count towards `num_trials`: ended, not by a mishap, and not dropped."""
        return sum(trial.counted for trial in self.trials)

    @cached_property
    def mishaps(self) -> dict[int, str]:
        """Why trials failed for reasons that do not depend on their hyperparameters, by number."""
        mishaps = (trial for trial in self.trials if trial.mishap and trial.dropped is None)
        return {trial.number: ((trial.error or "").strip().splitlines() or [""])[-1] for trial in mishaps}

    @property
    def complete(self) -> bool:
        """Whether `num_trials` trials have ended."""
        return self.counted >= self.definition.num_trials

    @cached_property
    def ended(self) -> list[Trial]:
        """Trials that ended and were not dropped, in the order in which they ended."""
        ended = [trial for trial in self.trials if trial.counted]
        return sorted(ended, key=lambda trial: (trial.ended_at.timestamp() if trial.ended_at else 0.0, trial.number))

    def with_state(self, state: TrialState) -> list[Trial]:
        """Trials in a state, without dropped trials."""
        return [trial for trial in self.trials if trial.state is state and trial.dropped is None]

    @cached_property
    def stopped(self) -> list[Trial]:
        """The trials that were stopped early."""
        return [trial for trial in self.with_state(TrialState.PRUNED) if trial.share is not None]

    # ---- cost

    @cached_property
    def unpriced(self) -> list[int]:
        """Numbers of the completed trials without a known cost."""
        return [trial.number for trial in self.trials if trial.state is TrialState.COMPLETED and trial.cost is None]

    @cached_property
    def charges(self) -> dict[int, float]:
        """Each trial's charge to the budget, by number: its cost, or the median cost if its own is unknown."""
        known = {trial.number: trial.cost for trial in self.trials if trial.cost is not None}
        typical = median(known.values()) if known else 0.0
        return known | dict.fromkeys(self.unpriced, typical)

    @cached_property
    def spent(self) -> float:
        """The total charge of all trials to the budget, including dropped trials."""
        try:
            return math.fsum(self.charges.values())
        except OverflowError:
            return math.inf

    @cached_property
    def recent_cost(self) -> float | None:
        """Mean cost of the latest trials, or None before any has a cost."""
        costs = [trial.cost for trial in self.ended[-RECENT:] if trial.cost is not None]
        return fmean(costs) if costs else None

    @cached_property
    def recent_seconds(self) -> float | None:
        """Mean duration of the latest trials, or None before any has ended."""
        recent = [trial for trial in self.ended if trial.started_at and trial.ended_at][-RECENT:]
        times = [
            (trial.ended_at - trial.started_at).total_seconds()
            for trial in recent
            if trial.ended_at and trial.started_at
        ]
        return fmean(times) if times else None

    @cached_property
    def whole_runs(self) -> float:
        """How many whole runs the trials took: a trial that was stopped early counts for its share."""
        return self.counted - sum(1.0 - trial.share for trial in self.stopped if trial.share is not None)

    @property
    def budget_is_spent(self) -> bool:
        """Whether the budget of cost or of whole runs is exhausted."""
        return bool(self.spent_budgets)

    @property
    def spent_budgets(self) -> dict[str, float]:
        """The exhausted limits, by the name of the setting."""
        limits = {"max_cost": (self.definition.max_cost, self.spent)}
        limits["max_runs"] = (self.definition.max_runs, self.whole_runs + 1e-9)
        return {name: limit for name, (limit, spent) in limits.items() if limit is not None and spent >= limit}

    # ---- problems

    @cached_property
    def problems(self) -> dict[int, str]:
        """Why trials are not learnt from, by number."""
        readings = (self.reader.read(trial) for trial in self.trials)
        return {reading.trial.number: reading.problem for reading in readings if reading.problem is not None}

    @cached_property
    def remarks(self) -> list[str]:
        """A line for the trials that are not learnt from, one for unknown costs, and one for mishaps."""
        costs = {}
        for number in self.unpriced:
            remark = self.reader.read(self.by_number[number]).remark
            if remark is not None:
                costs[number] = remark
        counted = " and counted at the median cost" if self.definition.max_cost is not None else ""
        lines = [
            problems_text(self.problems),
            problems_text(costs, f"kept without a cost{counted}"),
            problems_text(self.mishaps, "neither learnt from nor counted; the resumed sweep runs them again"),
        ]
        return [line for line in lines if line]

    # ---- ranking

    @cached_property
    def repeats(self) -> dict[int, int]:
        """For each trial that repeats a configuration, by number: the number of that configuration's first trial."""
        said = {trial.number: trial.suggestion.get("repeat_of") for trial in self.trials}
        return {number: first for number, first in said.items() if first is not None and first in self.by_number}

    @cached_property
    def ranked(self) -> list[Trial]:
        """Trials with a score that can be learnt from, best measured score first.

        If the optimiser repeated configurations, the ranking is one of configurations: each is represented by the first
        of its whole runs, with the mean of their scores and costs.
        """
        usable = [trial for trial in self.trials if trial.number not in self.problems]
        if self.repeats:
            usable = self._configurations(usable)
        return ranked(usable, self.goal)

    def _configurations(self, trials: Sequence[Trial]) -> list[Trial]:
        """One trial for each configuration: the mean of its whole runs."""
        groups: dict[int, list[Trial]] = {}
        for trial in trials:
            if is_scored(trial):
                groups.setdefault(self.repeats.get(trial.number, trial.number), []).append(trial)
        return [_mean_trial(group) if len(group) > 1 else group[0] for group in groups.values()]

    def params_of(self, trial: Trial) -> dict[str, Any]:
        """A trial's hyperparameters, flat, with defaults for those that it was recorded without."""
        return {**trial.params, **self.reader.read(trial).params}

    @cached_property
    def front(self) -> list[Trial]:
        """The Pareto front of score and cost, best score first."""
        return pareto_front(self.ranked)

    @cached_property
    def on_front(self) -> frozenset[int]:
        """Numbers of the trials on the front."""
        return frozenset(trial.number for trial in self.front)

    @property
    def top(self) -> Trial | None:
        """The trial whose measured score ranks first, which may be luck."""
        return self.ranked[0] if self.ranked else None

    @cached_property
    def learner(self) -> Learner:
        """The optimiser, which has learnt from all trials."""
        learner = Learner(self.definition, self.reader)
        for trial in self.trials:
            points = self.all_curves.get(trial.number)
            learner.tell(trial, None if points is None else watched_curve(points, self.definition))
        return learner

    @cached_property
    def confirmation(self) -> ConfirmationResult | None:
        """The result of running the best hyperparameters on fresh seeds; None if that was not done."""
        confirmed = [trial.suggestion.get("trial") for trial in self.confirmations]
        chosen = [trial for trial in self.trials if trial.number in confirmed]
        result = confirmation_result(self.goal, chosen, self.confirmations)
        return result if any(setting.scores for setting in result.settings) else None

    @cached_property
    def best(self) -> Trial | None:
        """The recommended trial: the one with the best expected score of another run.

        This is the trial that did best on fresh seeds, or else the choice of the optimiser's model.
        """
        if self.confirmation is not None:
            confirmed = {setting.trial for setting in self.confirmation.settings[:1] if setting.mean is not None}
            if found := [trial for trial in self.ranked if trial.number in confirmed]:
                return found[0]
        return self.best_within(math.inf)

    def best_within(self, max_cost: float) -> Trial | None:
        """The model's choice among the trials that cost at most `max_cost`."""
        affordable = [trial for trial in self.ranked if max_cost == math.inf or _costs_at_most(trial, max_cost)]
        if not affordable:
            return None
        if self.analysis is not None and max_cost == math.inf:
            chosen: int | None = self.analysis.recommended
        else:
            chosen = None if self.asking else self.learner.best(None if max_cost == math.inf else max_cost)
        params = self.by_number[chosen].params if chosen in self.by_number else affordable[0].params
        # The first of equal ones in the ranking.
        return next((trial for trial in affordable if trial.params == params), affordable[0])

    def other_length_within(self, max_cost: float) -> OtherLength | None:
        """A configuration with an untried length, where that is probably better than `best_within`."""
        return None if self.asking else self.learner.other_length(max_cost)

    @cached_property
    def contenders(self) -> list[Trial]:
        """Trials of other configurations that may be as good as the best one, the most promising first.

        The model expects them within the noise of one measurement of the best, or better. There is one trial for each
        configuration. Empty until there is an analysis.
        """
        if self.best is None or self.analysis is None or self.best.number not in self.analysis.expected:
            return []
        expected, best = self.analysis.expected, self.best
        level = self.sign * expected[best.number].score - expected[best.number].noise_std
        close: dict[str, Trial] = {}
        for trial in self.ranked:
            near = trial.number in expected and self.sign * expected[trial.number].score >= level
            if near and trial.params != best.params:
                close.setdefault(repr(sorted(trial.params.items())), trial)
        return sorted(close.values(), key=lambda trial: -self.sign * expected[trial.number].score)

    @cached_property
    def conclusions(self) -> Conclusions:
        """The conclusions from the sweep, for everything that shows it."""
        from metta.sweep.analysis.conclusions import Conclusions

        return Conclusions(self)

    def policies_kept(self, keep: KeepPolicies) -> set[int]:
        """Numbers of the trials that keep their policies when the sweep has ended.

        Trials with a problem always keep theirs, because they cannot be ranked under the current definition.
        """
        if keep == "all":
            return set(self.by_number)
        chosen = set(self.on_front) if keep == "pareto" else set()
        return chosen | ({self.best.number} if self.best else set()) | set(self.problems)

    @property
    def policies_wanted(self) -> set[int]:
        """Numbers of the trials that keep their policies while the sweep runs: the top, the best, the front."""
        leading = {trial.number for trial in (self.top, self.best) if trial is not None}
        return leading | self.on_front | set(self.problems)


def read_state(store: Store, name: str, brief: bool = False) -> SweepState:
    """Read a sweep from its store.

    Args:
        brief: whether to omit the parts of each trial that a summary does not show: its suggestion, artefacts, error,
            and all metrics except score and cost. `with_details` adds them for some trials.

    Raises:
        SweepNotFoundError: there is no sweep of that name.
        DefinitionError: its stored definition cannot be read.
    """
    record = store.sweep(name)
    definition = read_definition(record)
    again = confirmations(store, name, definition)
    trials = _brief_trials(store, record, definition) if brief else store.trials(name)
    state = SweepState.of(record, definition, trials, store_url=store.url, confirmations=again)
    return with_all_curves(store, state)


def with_all_curves(store: Store, state: SweepState) -> SweepState:
    """The same state with every learning curve, if the optimiser needs them to choose the best trial."""
    return replace(state, all_curves=store.curves(state.name)) if state.definition.learns_from_curves else state


def with_details(store: Store, state: SweepState, shown: Sequence[Trial] = ()) -> SweepState:
    """The same state with complete trials: the best, the top, and those that are `shown`."""
    chosen = [*shown, *(trial for trial in (state.best, state.top) if trial is not None)]
    stored = store.trials(state.name, numbers={trial.number for trial in chosen})
    detailed = copy.copy(state)  # keeps the cached results
    object.__setattr__(detailed, "details", {trial.number: state.reader.read(trial).trial for trial in stored})
    return detailed


def _brief_trials(store: Store, record: SweepRecord, definition: SweepDefinition) -> list[Trial]:
    """Brief trials, except the latest ones, which the optimiser needs completely."""
    metric = definition.protein.metric
    trials = store.trials(record.name, brief=(metric, f"{metric}.std", f"{metric}.stderr", definition.cost_metric))
    latest = [trial.number for trial in trials[-_LATEST:]]
    return trials[: -len(latest) or None] + store.trials(record.name, numbers=latest)


_LATEST = 8


def confirmations(store: Store, name: str, definition: SweepDefinition) -> list[Trial]:
    """The trials that confirm the sweep of that name, with scores under its definition."""
    try:
        trials = store.trials(f"{name}{SUFFIX}")
    except SweepNotFoundError:
        return []
    return [judged(trial, definition.protein.metric, definition.cost_metric) for trial in trials]


def _mean_trial(group: Sequence[Trial]) -> Trial:
    costs = [trial.cost for trial in group if trial.cost is not None]
    score = fmean(trial.score for trial in group if trial.score is not None)
    return replace(group[0], score=score, cost=fmean(costs) if costs else None)


def _costs_at_most(trial: Trial, limit: float) -> bool:
    return trial.cost is not None and trial.cost <= limit
