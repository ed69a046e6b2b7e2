"""Pareto fronts of score and cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pareto_front(scores: Array, costs: Array) -> NDArray[np.intp]:
    """Indices of the observations that no other beats in score at no more cost, from cheap to expensive.

    Of equal observations the first counts.
    """
    order = np.lexsort((np.arange(len(scores)), -scores, costs))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(scores[order])[:-1]])
    return np.asarray(order[scores[order] > best_before])


def hypervolume(scores: Array, costs: Array, worst_score: float, worst_cost: float) -> float:
    """Area dominated by the observations, within a score above `worst_score` and a cost below `worst_cost`."""
    inside = (scores > worst_score) & (costs < worst_cost)
    scores, costs = scores[inside], costs[inside]
    front = pareto_front(scores, costs)
    steps = np.diff(np.concatenate([[worst_score], scores[front]]))
    return float(np.sum(steps * (worst_cost - costs[front])))
