"""Where to look for the next suggestion: candidates from the whole space and round good trials, then ascent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from metta.sweep.protein.space import Space

Array = NDArray[np.float64]
Acquisition = Callable[[Array], Array]
"""Points [n, columns] to values [n], higher is better."""
AcquisitionGradient = Callable[[Array], tuple[Array, Array]]
"""Points [n, columns] to values [n] and gradients [n, columns]."""


def local_candidates(space: Space, centres: Array, each: int, width: float, rng: np.random.Generator) -> Array:
    """Points round each centre, [len(centres) * each, columns].

    Every point moves about a third of the parameters, by normal steps whose width is drawn log-uniformly
    between a hundredth of the parameters' own width and all of it; a category that moves is drawn anew.
    """
    n = len(centres) * each
    points = np.repeat(centres, each, axis=0)
    moves = rng.random((n, space.dimension)) < max(1.0 / 3.0, 1.0 / space.dimension)
    moves[np.arange(n), rng.integers(space.dimension, size=n)] = True
    steps = 10.0 ** rng.uniform(-2.0, 0.0, (n, 1)) * rng.standard_normal((n, space.columns)) * space.width * width
    moved = np.where(space.numeric, points + steps, space.place(rng.random((n, space.dimension))))
    return space.snap(np.where(moves[:, space.group], _reflect(moved), points))


def _reflect(points: Array) -> Array:
    """Fold coordinates back into 0..1 at its ends, so that steps do not pile up on the bounds."""
    return np.abs((points + 1.0) % 2.0 - 1.0)


def ascend(space: Space, starts: Array, acquisition: AcquisitionGradient, max_steps: int) -> Array:
    """Move points [n, columns] uphill together within the cube, along the columns of numeric parameters."""
    free = space.numeric

    def objective(flat: Array) -> tuple[float, Array]:
        points = starts.copy()
        points[:, free] = flat.reshape(len(starts), -1)
        value, gradient = acquisition(points)
        return -float(value.sum()), -gradient[:, free].ravel()

    if not free.any():
        return starts
    first = starts[:, free].ravel()
    result = minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * first.size,
        options={"maxiter": max_steps, "ftol": 1e-5},
    )
    points = starts.copy()
    points[:, free] = result.x.reshape(len(starts), -1)
    return space.snap(points)
