"""The learning curve of a trial over all its attempts, as the optimiser receives it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from metta.sweep.store.protocol import CurvePoint

if TYPE_CHECKING:
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.protein.curves import Curve

_LEAST_SHARE = 1e-6

Point = tuple[float, float, float]
"""Step, cost of the trial up to it, and value of the watched metric."""


def watched_curve(points: Sequence[CurvePoint], definition: SweepDefinition) -> list[Point]:
    """The values that stand for a trial's score, in the direction of the sweep's goal; see `whole_curve`.

    If the last report was without a value, it is the last point, with NaN, because it says how far the trial came. If
    steps began again within an attempt, there are no points, because they do not say how far it came.
    """
    metric, sign = definition.watched_metric, definition.watched_sign
    reports = [point for point in points if math.isfinite(point.metrics.get(metric, math.nan))]
    if any(one.attempt == next_.attempt and next_.step < one.step for one, next_ in pairwise(reports)):
        return []
    known = [(step, cost, sign * value) for step, cost, value in whole_curve(points, metric, definition.cost_metric)]
    if known and points[-1].step > known[-1][0]:
        known.append((float(points[-1].step), known[-1][1], math.nan))
    return known


def whole_curve(points: Sequence[CurvePoint], metric: str, cost_metric: str) -> list[Point]:
    """The values of a metric that a trial reported, in the order of steps.

    Points of a lost attempt are dropped if a later attempt repeated their steps. Costs accumulate over attempts.
    """
    curve: list[Point] = []
    attempt, before = 0, 0.0
    for point in points:
        value = point.metrics.get(metric, math.nan)
        if math.isfinite(value) or point.attempt != attempt:
            cut_back(curve, point.step)
        if point.attempt != attempt:
            attempt, before = point.attempt, curve[-1][1] if curve else 0.0
        if math.isfinite(value):
            curve.append((float(point.step), before + cost_so_far(point.seconds, point.metrics, cost_metric), value))
    return curve


def cut_back(curve: list[Point], step: int) -> None:
    """Remove the points from this step on. They belong to a lost attempt, and a later one repeats their steps."""
    while curve and curve[-1][0] >= step:
        curve.pop()


def cost_so_far(seconds: float, metrics: Mapping[str, float], cost_metric: str) -> float:
    """The cost of an attempt so far: the cost metric if it reports it, otherwise its seconds."""
    return seconds if cost_metric == "seconds" else metrics.get(cost_metric, seconds)


def learning_curve(points: Sequence[Point], share: float | None, sign: float) -> Curve | None:
    """The curve as Protein takes it, or None if the trial reported nothing usable.

    Args:
        points: as `watched_curve` returns them.
        share: how much of a whole run the trial did; None for a whole run.
        sign: -1 if the metric is to be minimised, else 1.
    """
    from metta.sweep.protein.curves import Curve

    usable = [point for point in points if math.isfinite(point[1])]
    if not usable or usable[-1][0] <= 0:
        return None
    return Curve.of(usable, usable[-1][0] / max(share or 1.0, _LEAST_SHARE), sign)
