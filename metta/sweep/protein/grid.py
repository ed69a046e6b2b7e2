"""Grid search: every combination of the parameters' values once, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.space import Categorical, Numeric, Parameter, Space, SpaceError

Array = NDArray[np.float64]

MOST_VALUES = 100_000
"""Values of one parameter; more are no grid, but a range."""
MOST_POINTS = 2**62
_BLOCK = 1024
_SAME = 1e-9


class GridDone(LookupError):
    """Every point of the grid was suggested."""


class Grid:
    """The points of a space in the order of nested loops over its parameters: the last one changes fastest.

    Points that do not meet the constraints are not of the grid.

    Args:
        space: its parameters must have countably many values each.

    Raises:
        SpaceError: a parameter has a continuous range; the message says what to add.

    Example:
        >>> from metta.sweep.protein_config import ParameterConfig
        >>> space = Space({"seed": ParameterConfig(choices=[0, 1]), "lr": ParameterConfig(choices=[0.1, 0.01])})
        >>> [space.decode(point) for point in Grid(space).points()][:2]
        [{'seed': 0, 'lr': 0.1}, {'seed': 0, 'lr': 0.01}]
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._axes = [_axis(parameter) for parameter in space.parameters]
        self._sizes = [len(axis) for axis in self._axes]
        self._combinations = math.prod(self._sizes)
        if self._combinations > MOST_POINTS:
            raise SpaceError(f"a grid of {self._combinations:.1e} points is beyond counting; use method: random")

    @cached_property
    def size(self) -> int:
        """How many points there are."""
        if not self._space.constrained:
            return self._combinations
        return sum(len(points) for _, points in self._blocks())

    def points(self) -> Iterator[Array]:
        """All points [columns], in order."""
        for _, points in self._blocks():
            yield from points

    def first_new(self, known: Array) -> Array:
        """The first point, [columns], that is not one of the known ones [n, columns].

        Raises:
            GridDone: there is none.
        """
        taken = self._numbers(known)
        for numbers, points in self._blocks():
            new = np.flatnonzero(~np.isin(numbers, taken))
            if len(new):
                return np.asarray(points[new[0]])
        raise GridDone(f"all {self.size:,} points of the grid were suggested")

    def _blocks(self) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """The numbers [n] and points [n, columns] of the grid, some at a time."""
        for start in range(0, self._combinations, _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, self._combinations))
            places = np.unravel_index(numbers, self._sizes)
            points = np.hstack([axis[place] for axis, place in zip(self._axes, places, strict=True)])
            allowed = self._space.allows(points)
            yield numbers[allowed], points[allowed]

    def _numbers(self, points: Array) -> NDArray[np.int64]:
        """The numbers of those points [n, columns] that are of the grid, constraints aside."""
        if not len(points):
            return np.zeros(0, dtype=np.int64)
        fits = np.ones(len(points), dtype=bool)
        places = []
        for axis, columns in zip(self._axes, self._space.slices, strict=True):
            own = points[:, columns]
            place = _nearest(axis, own)
            fits &= np.abs(axis[place] - own).max(axis=1) < _SAME
            places.append(place)
        return np.ravel_multi_index([place[fits] for place in places], self._sizes)


def _axis(parameter: Parameter) -> Array:
    """The columns [values, columns of the parameter] of its values: choices in order, numbers from low to high."""
    values = list(parameter.choices) if isinstance(parameter, Categorical) else _values(parameter)
    return np.array([parameter.encode(value) for value in values])


def _values(parameter: Numeric) -> list[int | float]:
    if parameter.step == "none":
        raise SpaceError(
            f"{parameter.path}: a grid needs countable values, but {parameter.low:g} to {parameter.high:g} is"
            f" a continuous range; add a step (step: {_step(parameter):g}) or give choices"
        )
    count = parameter.size
    if count is not None and count > MOST_VALUES:
        raise SpaceError(
            f"{parameter.path}: {count:,} values are too many for a grid; give a larger step, as in "
            f"step: {_step(parameter):g}, or choices"
        )
    return parameter.values()


def _step(parameter: Numeric) -> float:
    """A round step that gives about ten values."""
    step: float = 10.0 ** math.floor(math.log10((parameter.high - parameter.low) / 10.0))
    return max(step, 1.0) if parameter.step == "integer" else step


def _nearest(axis: Array, columns: Array) -> NDArray[np.intp]:
    """The place on an axis [values, columns] that is nearest to each row of columns [n, columns]."""
    if axis.shape[1] > 1:
        return np.asarray(np.argmax(columns, axis=1), dtype=np.intp)
    if len(axis) == 1:
        return np.zeros(len(columns), dtype=np.intp)
    above = np.clip(np.searchsorted(axis[:, 0], columns[:, 0]), 1, len(axis) - 1)
    nearer_below = columns[:, 0] - axis[above - 1, 0] < axis[above, 0] - columns[:, 0]
    return np.asarray(np.where(nearer_below, above - 1, above), dtype=np.intp)
