"""Selects the learning curves that pages and plots show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from metta.sweep.curve import whole_curve
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import CurvePoint, Store
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import TrialState

CURVES = 30
"""The most learning curves in one plot."""

COMMON_METRICS = ("reward", "loss")
"""Common names of metrics of training, shown if a run reports neither the sweep's metric nor one that stands for it."""

COUNTERS = ("step", "epoch", "seed")
"""Metrics that change during any trial but do not measure how well it does."""

NO_TRAITS = ToolTraits()


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
    metric: str,
    points: Sequence[CurvePoint],
    traits: ToolTraits = NO_TRAITS,
    at_least: int = 1,
    watched: str | None = None,
) -> str | None:
    """The metric that learning curves show.

    This is the sweep's metric, the one that stands for it while a trial runs, one of `COMMON_METRICS`, or the first
    that changes.

    Args:
        metric: of the sweep.
        points: of one curve or several.
        traits: of the sweep's Tool.
        at_least: how often it must have been measured.
        watched: the metric that stands for it, if that is not the one that the Tool declares.

    Returns:
        None if nothing was measured so often.
    """
    values: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.metrics.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    chosen = {name for name in values if name == metric or name not in {*COUNTERS, *traits.counters}}
    known = [name for name, each in values.items() if len(each) >= at_least and name in chosen]
    changing = [name for name in known if len(set(values[name])) > 1]
    preferred = (metric, watched, traits.progress, *COMMON_METRICS, *changing, *known)
    return next((name for name in preferred if name in known), None)


def curve_points(curve: Sequence[CurvePoint], metric: str) -> list[tuple[int, float]]:
    """A metric over steps. Points of a lost attempt are left out if a later attempt repeated their steps."""
    return [(int(step), value) for step, _, value in whole_curve(curve, metric, "seconds")]
