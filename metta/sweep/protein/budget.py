"""What trials have cost so far."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spent(costs: Array, failed: NDArray[np.bool_]) -> float:
    """What finished trials cost in all; never infinite.

    A trial that did not fail and whose cost is unknown counts as the median of the known costs; before there is a
    known cost it counts as nothing.

    Args:
        costs: [n], NaN where unknown.
        failed: [n], whether the trial failed.
    """
    known = np.sort(costs[~np.isnan(costs)])
    unknown = int((np.isnan(costs) & ~failed).sum())
    with np.errstate(over="ignore"):
        total = float(np.nansum(costs))
    if unknown and len(known):
        total += unknown * float(known[(len(known) - 1) // 2] / 2 + known[len(known) // 2] / 2)
    return min(total, sys.float_info.max)
