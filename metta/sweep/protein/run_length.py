"""Where the length of a run is searched: which hyperparameter it is, and where shorter and longer runs would lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.curves import Curve
from metta.sweep.protein.space import Numeric, Space

Array = NDArray[np.float64]

LEAST_SPREAD = 2.0
"""The longest run over the shortest one from which on a hyperparameter can be told to be their length. Chosen by
hand."""
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

    def shortened(self, point: Array, share: float) -> Array | None:
        """The point [columns] of a run of this share of the length; None where the range has no such length."""
        length = self.parameter.decode(point[self.column : self.column + 1])
        column = self.parameter.encode(share * length)[0] if share * length >= self.parameter.low else -1.0
        if column < 0.0:
            return None
        shorter = point.copy()
        shorter[self.column] = column
        return shorter

    def lengthened(self, points: Array, uniform: Array) -> Array:
        """Points [n, columns] of longer runs: shares [n] of the way to the longest one, on the parameter's scale."""
        longer = points.copy()
        now = np.clip(points[:, self.column], 0.0, 1.0)
        longer[:, self.column] = now + uniform * (1.0 - now)
        return longer


def run_length(space: Space, runs: Iterable[tuple[Array, Curve]]) -> RunLength | None:
    """The hyperparameter that runs show to be their length: all have steps in proportion to it.

    Args:
        runs: points [columns] and curves. Those that reported nothing, or lie outside the space, are left out.

    Returns:
        None where no hyperparameter is the length, or the runs differ too little to tell.
    """
    seen = [(point, curve.total) for point, curve in runs if len(curve.steps)]
    if not seen:
        return None
    points, totals = np.array([point for point, _ in seen]), np.array([total for _, total in seen])
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        if not isinstance(parameter, Numeric) or parameter.low <= 0:
            continue
        place = points[:, columns.start]
        inside = (place >= 0.0) & (place <= 1.0)
        lengths = np.array([parameter.decode(point[columns]) for point in points[inside]], dtype=float)
        if _in_proportion(totals[inside], lengths):
            return RunLength(parameter, columns.start)
    return None


def _in_proportion(totals: Array, lengths: Array) -> bool:
    if len(totals) < 2 or totals.max() < LEAST_SPREAD * totals.min():
        return False
    ratios = totals / lengths
    return bool(ratios.max() <= (1.0 + ROUNDING) * ratios.min())
