"""Ascent of the acquisition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.search import ascend
from metta.sweep.protein.space import Space
from metta.sweep.protein_config import ParameterConfig

Array = NDArray[np.float64]

SPACE = Space(
    {f"x{i}": ParameterConfig(min=0, max=1, distribution="uniform") for i in range(3)}
    | {"c": ParameterConfig(choices=["a", "b"], distribution="categorical")}
)
LENGTHS = np.array([1.0, 0.1, 0.02, 1.0, 1.0])
PEAK = np.array([0.3, 0.6, 1.2, 0.0, 1.0])


def hill(points: Array) -> tuple[Array, Array]:
    """Steep in one direction, flat in another; its peak lies outside the cube, and at another category."""
    offsets = (points - PEAK) / LENGTHS
    return -0.5 * (offsets**2).sum(axis=1), -offsets / LENGTHS


def test_an_ascent_ends_at_the_best_point_of_the_cube_with_the_category_it_began_with() -> None:
    starts = SPACE.place(np.random.default_rng(0).random((5, 4)))
    reached = ascend(SPACE, starts, hill, LENGTHS, max_steps=10)
    np.testing.assert_allclose(reached[:, :3], np.tile([0.3, 0.6, 1.0], (5, 1)), atol=1e-3)
    np.testing.assert_array_equal(reached[:, 3:], starts[:, 3:])


def test_an_ascent_never_ends_below_its_start() -> None:
    """Not on a rough hill either, where steps that promised much lose."""

    def rough(points: Array) -> tuple[Array, Array]:
        value, gradient = hill(points)
        return value + 3.0 * np.sin(40.0 * points).sum(axis=1), gradient + 120.0 * np.cos(40.0 * points)

    starts = SPACE.place(np.random.default_rng(1).random((20, 4)))
    reached = ascend(SPACE, starts, rough, LENGTHS, max_steps=10)
    assert (rough(reached)[0] >= rough(starts)[0]).all()
