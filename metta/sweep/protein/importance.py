"""How much each hyperparameter matters: total Sobol indices of the models over the whole space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.gaussian_process import GaussianProcess
from metta.sweep.protein.space import Space
from metta.sweep.protein.surrogate import Surrogate
from metta.sweep.protein.types import Importance

Array = NDArray[np.float64]

SAMPLES = 512
"""Random points of the space: the standard error of a share is then a few hundredths, as fine as reports show it."""


def importances(surrogate: Surrogate, space: Space, seed: int) -> dict[str, Importance]:
    """Shares of the variation of score and log cost that each parameter takes part in, by dotted path."""
    base, other = (
        space.place(uniform) for uniform in np.random.default_rng(seed).random((2, SAMPLES, space.dimension))
    )

    def effects(model: GaussianProcess | None) -> list[float]:
        if model is None:
            return [0.0] * space.dimension
        shares: list[float] = total_effects(model.mean(base), model.swapped_means(base, other, space.slices)).tolist()
        return shares

    pairs = zip(effects(surrogate.score), effects(surrogate.cost), strict=True)
    return {
        parameter.path: Importance(score, cost)
        for parameter, (score, cost) in zip(space.parameters, pairs, strict=True)
    }


def total_effects(function_values: Array, swapped_values: Array) -> Array:
    """Share of a function's variance that each parameter takes part in (Jansen 1999; Saltelli et al. 2010, table 2).

    Args:
        function_values: [n], at random points.
        swapped_values: [dimension, n], at the same points with one parameter drawn again.
    """
    # The variance of both samples: that of one alone may be the smaller, and make shares of more than 1.
    both = np.stack([np.broadcast_to(function_values, swapped_values.shape), swapped_values], axis=1)
    variance = both.var(axis=(1, 2))
    constant = variance <= 1e-18 * (1.0 + np.abs(both.mean(axis=(1, 2)))) ** 2
    effects = ((swapped_values - function_values) ** 2).mean(axis=1) / (2.0 * np.where(constant, 1.0, variance))
    return np.where(constant, 0.0, np.minimum(effects, 1.0))
