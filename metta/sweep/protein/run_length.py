"""Where the length of a run is searched: which hyperparameter it is, and where shorter and longer runs would lie."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.curves import LARGEST, Curve
from metta.sweep.protein.space import Numeric, Space

Array = NDArray[np.float64]

LEAST_SPREAD = 2.0
"""The longest run over the shortest one from which on a hyperparameter can be told to be their length. Chosen by
hand."""
SAME = 1e-6
"""Columns that differ by less are equal."""
ROUNDING = 0.2
"""Runs may be longer than the hyperparameter says by up to this share, because they end with a whole batch."""


@dataclass(frozen=True)
class RunLength:
    """A hyperparameter in proportion to the steps of a whole run, as `total_timesteps` or a number of epochs.

    Attributes:
        parameter: it.
        column: its column.
    """

    parameter: Numeric
    column: int

    def of(self, point: Array) -> float:
        """The length of the runs at a point [columns]."""
        return float(self.parameter.decode(point[self.column : self.column + 1]))

    def with_length(self, point: Array, length: float) -> Array:
        """The point [columns] with this length of runs, which the range must have."""
        other = point.copy()
        other[self.column] = self.parameter.encode(length)[0]
        return other

    def longest_of(self, point: Array, points: Array) -> float:
        """The longest runs at those of the points [n, columns] that differ from a point in their length alone, or 0."""
        differs = np.abs(points - point) > SAME
        differs[:, self.column] = False
        same = points[~differs.any(axis=1)]
        return self.of(same[same[:, self.column].argmax()]) if len(same) else 0.0

    def shortened(self, point: Array, share: float) -> Array | None:
        """The point [columns] of a run of this share of the length; None where the range has no such length."""
        length = share * self.of(point)
        shorter = self.with_length(point, length) if length >= self.parameter.low else None
        return shorter if shorter is not None and shorter[self.column] >= 0.0 else None

    def lengthened(self, points: Array, uniform: Array) -> Array:
        """Points [n, columns] of longer runs: shares [n] of the way to the longest one, on the parameter's scale."""
        longer = points.copy()
        now = np.clip(points[:, self.column], 0.0, 1.0)
        longer[:, self.column] = now + uniform * (1.0 - now)
        return longer

    def of_all_lengths(self, points: Array, count: int) -> Array:
        """Each of the points [n, columns] with so many lengths, evenly over their range: [n * count, columns]."""
        others = np.repeat(points, count, axis=0)
        others[:, self.column] = np.tile(np.linspace(0.0, 1.0, count), len(points))
        return others


def run_length(space: Space, runs: Iterable[tuple[Array, Curve]]) -> RunLength | None:
    """The hyperparameter that runs show to be their length: all have steps in proportion to it, and to no other more.

    Args:
        runs: points [columns] and curves. Those that reported nothing, or lie outside the space, are left out.

    Returns:
        None where no hyperparameter is the length, or the runs differ too little to tell.
    """
    found: list[tuple[float, RunLength]] = []
    seen = [(point, math.log(curve.total)) for point, curve in runs if len(curve.steps)]
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        if not isinstance(parameter, Numeric) or not 0 < parameter.low < parameter.high < LARGEST:
            continue
        inside = [(point[columns], total) for point, total in seen if 0.0 <= point[columns.start] <= 1.0]
        totals = np.array([total for _, total in inside])
        if len(totals) < 2 or np.ptp(totals) < math.log(LEAST_SPREAD):
            continue
        lengths = np.array([math.log(parameter.decode(column)) for column, _ in inside])
        found.append((float(np.ptp(totals - lengths)), RunLength(parameter, columns.start)))
    spread, closest = min(found, key=lambda pair: pair[0], default=(math.inf, None))
    return closest if spread <= math.log(1.0 + ROUNDING) else None
