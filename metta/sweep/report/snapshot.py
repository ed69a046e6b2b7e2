"""A sweep as of one moment: what its plots, its report and its dashboard are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from metta.common.config import flatten
from metta.sweep.confirmation import SUFFIX
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.analysis import Analysis, analyse
from metta.sweep.report.standing import Goal, pareto_front, ranked
from metta.sweep.report.summary import short_names
from metta.sweep.store.loaded import LoadedSweep
from metta.sweep.store.protocol import CurvePoint, Store, SweepNotFoundError, SweepRecord
from metta.sweep.trial import Trial, TrialState

CURVES = 30
"""How many learning curves are laid over each other."""


@dataclass(frozen=True)
class Snapshot:
    """A sweep as of one moment.

    Attributes:
        record: its name, configuration and entry point.
        store_url: where it is, without any password.
        definition: what it searches.
        trials: every trial, by number.
        analysis: what the optimiser's model says, or None where no trial has a score (or nobody asked yet). It may
            know fewer trials than there are.
        curves: learning curves, by trial number; of the trials that `curve_numbers` names.
        confirmations: trials of the sweep that ran the best settings again on fresh seeds.
        taken_at: UTC.
    """

    record: SweepRecord
    store_url: str
    definition: SweepDefinition
    trials: Sequence[Trial]
    analysis: Analysis | None
    curves: Mapping[int, Sequence[CurvePoint]] = field(default_factory=dict)
    confirmations: Sequence[Trial] = ()
    taken_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def goal(self) -> Goal:
        return self.definition.protein.goal

    @property
    def metric(self) -> str:
        return self.definition.protein.metric

    @property
    def ended(self) -> list[Trial]:
        """Trials that ended, in the order in which they did."""
        ended = [trial for trial in self.trials if trial.state.ended]
        return sorted(ended, key=lambda trial: (trial.ended_at.timestamp() if trial.ended_at else 0.0, trial.number))

    @property
    def searched(self) -> dict[str, ParameterConfig]:
        """What is searched, by dotted path."""
        leaves = flatten(self.definition.protein.parameters)
        return {path: leaf for path, leaf in leaves.items() if isinstance(leaf, ParameterConfig)}

    @property
    def parameter_names(self) -> dict[str, str]:
        """The shortest clear name of each searched parameter, by dotted path."""
        return short_names(list(self.searched))

    def with_state(self, state: TrialState) -> list[Trial]:
        return [trial for trial in self.trials if trial.state is state]


def take_snapshot(sweep: LoadedSweep) -> Snapshot:
    """Read a sweep and ask the optimiser's model about it."""
    record = sweep.store.sweep(sweep.record.name)
    definition = SweepDefinition.model_validate(record.config)
    trials = sweep.trials()
    numbers = curve_numbers(trials, definition.protein.goal)
    return Snapshot(
        record=record,
        store_url=sweep.store.url,
        definition=definition,
        trials=trials,
        analysis=analyse(definition, trials),
        curves={number: sweep.curve(number) for number in numbers},
        confirmations=confirmations(sweep.store, record.name),
    )


def confirmations(store: Store, name: str) -> list[Trial]:
    """What has been run to confirm the sweep of that name."""
    try:
        return store.trials(f"{name}{SUFFIX}")
    except SweepNotFoundError:
        return []


def curve_numbers(trials: Sequence[Trial], goal: Goal) -> list[int]:
    """The trials whose learning curves are shown: what runs, the best, the Pareto front, and then the latest."""
    order = [trial.number for trial in ranked(trials, goal)]
    front = pareto_front(trials, goal)
    running = [trial.number for trial in trials if trial.state is TrialState.RUNNING]
    latest = [trial.number for trial in reversed(trials) if trial.state.ended]
    wanted = [*running, *order[: CURVES // 3], *(number for number in order if number in front), *latest]
    return sorted(list(dict.fromkeys(wanted))[:CURVES])


def by_cost(snapshot: Snapshot) -> list[Trial]:
    """Completed trials with a score and a finite cost, from cheap to dear; of equal cost the better one first."""
    sign = -1.0 if snapshot.goal == "maximize" else 1.0
    costed = [
        trial
        for trial in ranked(snapshot.trials, snapshot.goal)
        if trial.cost is not None and math.isfinite(trial.cost)
    ]
    return sorted(costed, key=lambda trial: (trial.cost, sign * (trial.score or 0.0)))
