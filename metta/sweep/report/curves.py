"""The learning curves that pages and plots show."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from metta.sweep.curve import whole_curve
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import CurvePoint, Store
from metta.sweep.trial import TrialState

CURVES = 30
"""The most learning curves in one plot."""

CURVE_METRICS = ("reward", "loss")
"""The metrics that a learning curve shows where a run does not report the sweep's metric while it trains."""

COUNTERS = ("seconds", "step", "epoch")
"""Metrics that change during any trial, but do not show how well it does."""


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


def curve_metric(
    metric: str, points: Sequence[CurvePoint], counters: Collection[str] = (), at_least: int = 1
) -> str | None:
    """The metric that learning curves show: the sweep's, one of `CURVE_METRICS`, or the first that changes.

    Args:
        metric: of the sweep.
        points: of one curve or several.
        counters: metrics of this kind of trial that do not show how well it does, besides `COUNTERS`.
        at_least: how often it has to be measured.

    Returns:
        None where nothing was measured so often.
    """
    values: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.metrics.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    chosen = {name for name in values if name == metric or name not in {*COUNTERS, *counters}}
    known = [name for name, each in values.items() if len(each) >= at_least and name in chosen]
    changing = [name for name in known if len(set(values[name])) > 1]
    return next((name for name in (metric, *CURVE_METRICS, *changing, *known) if name in known), None)


def curve_points(curve: Sequence[CurvePoint], metric: str) -> list[tuple[int, float]]:
    """A metric over steps. Points of a lost attempt are left out where a later attempt repeated its steps."""
    return [(int(step), value) for step, _, value in whole_curve(curve, metric, "seconds")]
