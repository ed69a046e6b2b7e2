"""The learning curves that pages and plots show."""

from __future__ import annotations

from dataclasses import replace

from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Store
from metta.sweep.trial import TrialState

CURVES = 30
"""The most learning curves in one plot."""


def with_curves(store: Store, sweep: SweepState) -> SweepState:
    """The sweep with the learning curves of the trials that `curve_numbers` names, read from its store."""
    return replace(sweep, curves={number: store.curve(sweep.name, number) for number in curve_numbers(sweep)})


def curve_numbers(sweep: SweepState) -> list[int]:
    """The trials whose learning curves are shown: running ones, the best, the top, the Pareto front, and the latest."""
    order = [trial.number for trial in sweep.ranked]
    best = [sweep.conclusions.best.number] if sweep.conclusions.best else []
    running = [trial.number for trial in sweep.with_state(TrialState.RUNNING)]
    latest = [trial.number for trial in reversed(sweep.trials) if trial.counted]
    front = [trial.number for trial in sweep.front]
    wanted = [*running, *best, *order[: CURVES // 3], *front, *latest]
    return sorted(list(dict.fromkeys(wanted))[:CURVES])
