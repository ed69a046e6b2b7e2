"""Where to look for the next suggestion: candidates round good trials, and ascent from the best candidates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.space import Space

Array = NDArray[np.float64]
AcquisitionGradient = Callable[[Array], tuple[Array, Array]]
"""Points [n, columns] to values [n] and gradients [n, columns]."""

FIRST_STEP, LAST_CHANGE = 0.1, 1e-2
"""How far an ascent first moves a point, in length scales, and the change of log values below which it ends. Chosen by
hand; the ascents as a whole were measured on `benchmarks/optimizers`, see docs/benchmarks.md."""
MAX_GROWTH = 16.0
"""The factor by which a step may grow, where the secant would make it longer. Chosen by hand."""
_LEAST_WIDTH = 0.01
"""The shortest local steps, as a share of a parameter's width: two orders of magnitude refine a good trial."""
_MOVED = 1.0 / 3.0
"""The share of the parameters that a local candidate changes. Chosen by hand."""
_TINY = 1e-12


def local_candidates(space: Space, centres: Array, each: int, width: float, rng: np.random.Generator) -> Array:
    """Points round each centre, [len(centres) * each, columns].

    Every point moves about a third of the parameters, by normal steps whose width is drawn log-uniformly
    between a hundredth of the parameters' own width and all of it; a category that moves is drawn again.
    """
    n = len(centres) * each
    points = np.repeat(centres, each, axis=0)
    moves = rng.random((n, space.dimension)) < max(_MOVED, 1.0 / space.dimension)
    moves[np.arange(n), rng.integers(space.dimension, size=n)] = True
    steps = (
        10.0 ** rng.uniform(math.log10(_LEAST_WIDTH), 0.0, (n, 1))
        * rng.standard_normal((n, space.columns))
        * space.width
        * width
    )
    moved = np.where(space.numeric, points + steps, space.place(rng.random((n, space.dimension))))
    return space.snap(np.where(moves[:, space.group], _reflect(moved), points))


def _reflect(points: Array) -> Array:
    """Fold coordinates back into 0..1 at its ends, so that steps do not pile up on the bounds."""
    return np.abs((points + 1.0) % 2.0 - 1.0)


def ascend(space: Space, starts: Array, acquisition: AcquisitionGradient, lengths: Array, max_steps: int) -> Array:
    """Move points [n, columns] uphill within the cube, along the columns of numeric parameters.

    Projected gradient ascent, each point by steps of its own: those of Barzilai & Borwein 1988, "Two-point step size
    gradient methods", eq. 5. A step that gains nothing is taken back, and the next is shorter.

    Args:
        lengths: [columns], how far a point moves for the acquisition to change much: the unit of its steps.
    """
    metric = np.where(space.numeric, lengths**2, 0.0)
    points, (values, gradients) = starts, acquisition(starts)
    steps = FIRST_STEP / np.maximum(np.sqrt(gradients**2 @ metric), _TINY)
    for _ in range(max_steps):
        moved = np.clip(points + steps[:, None] * metric * gradients, 0.0, 1.0)
        moves = moved - points
        new_values, new_gradients = acquisition(moved)
        curvatures = np.einsum("ij,ij->i", moves, gradients - new_gradients)
        squares = (moves / lengths) ** 2
        secant = np.where(curvatures > _TINY, squares.sum(axis=1) / np.maximum(curvatures, _TINY), np.inf)
        gains = new_values > values
        steps = np.minimum(secant, np.where(gains, MAX_GROWTH * steps, 0.5 * steps))
        points = np.where(gains[:, None], moved, points)
        gradients = np.where(gains[:, None], new_gradients, gradients)
        converged = np.abs(new_values - values).max() < LAST_CHANGE
        values = np.where(gains, new_values, values)
        if converged:
            break
    return space.snap(points)
