"""The learning curve of a trial over all its attempts, as the optimiser receives it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

    If the last report was without a value, it is the last point, with NaN, because it says how far the trial came.
    """
    every = _all_points(points, definition.watched_metric, definition.cost_metric)
    signed = [(step, cost, definition.watched_sign * value) for step, cost, value in every]
    known = [point for point in signed if math.isfinite(point[2])]
    return [*known, signed[-1]] if known and known[-1] is not signed[-1] else known


def whole_curve(points: Sequence[CurvePoint], metric: str, cost_metric: str) -> list[Point]:
    """The values of a metric that a trial reported, in the order of steps.

    Points of a lost attempt are dropped if a later attempt repeated their steps. Costs accumulate over attempts.
    """
    return [point for point in _all_points(points, metric, cost_metric) if math.isfinite(point[2])]


def _all_points(points: Sequence[CurvePoint], metric: str, cost_metric: str) -> list[Point]:
    """Every report; the value is NaN where the metric was not reported."""
    curve: list[Point] = []
    attempt, before = 0, 0.0
    for point in points:
        cut_back(curve, point.step)
        if point.attempt != attempt:
            attempt, before = point.attempt, curve[-1][1] if curve else 0.0
        value = point.metrics.get(metric, math.nan)
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
