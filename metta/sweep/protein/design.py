"""The first trials, before there is a model of the score: cheap ones, that teach what drives the cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.space import Space
from metta.sweep.protein.surrogate import log_costs

Array = NDArray[np.float64]

CANDIDATES = 64
PRIOR_SLOPE = 0.7
"""Prior mean of d log cost / d log value for counts and sizes: somewhat less than proportional."""


def cheap_point(space: Space, index: int, points: Array, costs: Array, shift: Array) -> Array:
    """The `index`-th point of a design at the cheap end of the space, [columns].

    Of the next 64 points of a quasi-random sequence it is the one that a log-linear model of the cost believes
    cheapest. The model is Bayesian linear regression (Rasmussen & Williams, section 2.1.1) on the trials so far. Its
    prior expects cost to grow with counts and sizes (parameters of 1 and above: steps, layers, units), and
    nothing of rates and shares; after a few trials the data decide.

    Args:
        points, costs: trials with a known cost, [n, columns] and [n].
        shift: [dimension], where the sequence starts.
    """
    candidates = space.quasi_random(np.arange(index * CANDIDATES, (index + 1) * CANDIDATES), shift)
    slopes = PRIOR_SLOPE * np.array([space.parameters[group].log_ratio for group in space.group])
    if len(costs):
        x = points - 0.5
        covariance = x @ x.T + 100.0 + 0.25 * np.eye(len(x))
        slopes = slopes + x.T @ np.linalg.solve(covariance, log_costs(costs) - x @ slopes)
    return np.asarray(candidates[np.argmin((candidates - 0.5) @ slopes)])
