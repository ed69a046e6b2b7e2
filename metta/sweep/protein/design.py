"""The first trials within a budget: cheap ones, which teach what drives the cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.space import Space
from metta.sweep.protein.surrogate import log_costs

Array = NDArray[np.float64]

CANDIDATES = 64
"""Points of which the cheapest is taken. Measured on `benchmarks/optimizers` (the cheapest of 12 was worse), see
docs/benchmarks.md."""
PRIOR_SLOPE = 0.7
"""Prior mean of d log cost / d log value for counts and sizes: somewhat less than proportional, because every trial has
costs that do not grow. Chosen by hand."""
_PRIOR_LEVEL, _PRIOR_NOISE = 100.0, 0.25
"""Prior variance of the mean log cost (nothing is known of it), and variance of log costs round the line, against a
prior variance of 1 of the slopes. Chosen by hand."""


def cheap_point(space: Space, index: int, points: Array, costs: Array, shift: Array) -> Array:
    """The `index`-th point of a design at the cheap end of the space, [columns].

    Of the next 64 points of a quasi-random sequence it is the one with the lowest cost in a log-linear model. That is
    Bayesian linear regression (Rasmussen & Williams, section 2.1.1) on the trials so far. Its
    prior expects the cost to grow with counts and sizes (parameters of 1 and above: steps, layers, units), and to be
    independent of rates and shares; after a few trials the data decide.

    Args:
        points, costs: trials with a known cost, [n, columns] and [n].
        shift: [dimension], where the sequence starts.
    """
    candidates = space.quasi_random(np.arange(index * CANDIDATES, (index + 1) * CANDIDATES), shift)
    slopes = PRIOR_SLOPE * np.array([space.parameters[group].log_ratio for group in space.group])
    if len(costs):
        x = points - 0.5
        covariance = x @ x.T + _PRIOR_LEVEL + _PRIOR_NOISE * np.eye(len(x))
        slopes = slopes + x.T @ np.linalg.solve(covariance, log_costs(costs) - x @ slopes)
    return np.asarray(candidates[np.argmin((candidates - 0.5) @ slopes)])
