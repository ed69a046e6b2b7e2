"""Observations and actions of an environment: spaces of Gymnasium as flat arrays, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from metta.common.errors import UserError

Array = npt.NDArray[Any]

SMALLEST_IMAGE = 8
"""Arrays of bytes with fewer rows or columns than this are numbers, not images."""


@dataclass(frozen=True)
class Leaf:
    """A part of an observation: columns of the flat array, in the order of the leaves.

    Attributes:
        path: its position in the observation, for messages.
        kind: "numbers" are scaled by their statistics, "flags" (one-hot) stay, an "image" has bytes for pixels.
        size: columns.
        image: channels, height and width of an image, else empty.
        order: permutation of the array's axes that makes it such an image.
        shape: of the original array.
    """

    path: str
    kind: Literal["numbers", "flags", "image"]
    size: int
    image: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Actions:
    """The actions of an agent.

    Attributes:
        kind: one or several "choices" among numbered options, or "reals".
        sizes: number of options of each choice; empty for reals.
        start: number of the first option of each choice.
        low, high: bounds of each real; infinite without a bound.
        shape: of the array that the environment takes; empty for a single choice.
        dtype: of that array.
    """

    kind: Literal["choices", "reals"]
    sizes: tuple[int, ...]
    start: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def width(self) -> int:
        """How many numbers an action has."""
        return len(self.sizes) or len(self.low)

    def to_environment(self, action: Array) -> Any:
        """Convert a policy's action [width] to the environment's. A real of -1..1 spans its bounds, and is clipped."""
        if self.kind == "choices":
            if not self.shape:
                return int(action[0]) + self.start[0]
            return (action + np.array(self.start)).astype(self.dtype).reshape(self.shape)
        low, high = np.array(self.low), np.array(self.high)
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            scaled = np.where(bounded, low + (action + 1) / 2 * (high - low), action)
        return np.clip(scaled, low, high).astype(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class GymnasiumSpec:
    """The facts about an environment that a policy needs.

    Attributes:
        num_agents: agents that act at each step.
        leaves: parts of an observation.
        actions: of each agent.
        dtype: of the flat array of an observation: bytes if all leaves are images, else 32-bit floats.
    """

    num_agents: int
    leaves: tuple[Leaf, ...]
    actions: Actions
    dtype: str

    @classmethod
    def of(cls, num_agents: int, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> GymnasiumSpec:
        """Describe the spaces of an agent.

        Raises:
            UserError: a policy here can't read or act in such a space.
        """
        leaves = tuple(_leaf(path, space) for path, space in _walk(observations))
        dtype = "uint8" if all(leaf.kind == "image" for leaf in leaves) else "float32"
        return cls(num_agents, leaves, _actions(actions), dtype)

    @property
    def size(self) -> int:
        """Columns of a flat observation."""
        return sum(leaf.size for leaf in self.leaves)


class Flattener:
    """Turns observations of a space into flat arrays [size]."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._space = space
        self._flat = isinstance(space, spaces.Box)
        self._leaves = list(_walk(space))

    def __call__(self, observation: Any) -> Array:
        if self._flat:
            return np.asarray(observation).reshape(-1)
        parts = []
        for (_, space), value in zip(self._leaves, _values(self._space, observation), strict=True):
            parts.append(np.asarray(spaces.flatten(space, value)).reshape(-1))
        return np.concatenate(parts)


def _walk(space: spaces.Space[Any], path: str = "") -> Iterator[tuple[str, spaces.Space[Any]]]:
    """The innermost spaces, with their paths."""
    if isinstance(space, spaces.Dict):
        for name, below in space.spaces.items():
            yield from _walk(below, f"{path}{name}.")
    elif isinstance(space, spaces.Tuple):
        for index, below in enumerate(space.spaces):
            yield from _walk(below, f"{path}{index}.")
    else:
        yield path.removesuffix("."), space


def _values(space: spaces.Space[Any], observation: Any) -> Iterator[Any]:
    """The values of the spaces that `_walk` yields, in its order."""
    if isinstance(space, spaces.Dict):
        for name, below in space.spaces.items():
            yield from _values(below, observation[name])
    elif isinstance(space, spaces.Tuple):
        for value, below in zip(observation, space.spaces, strict=True):
            yield from _values(below, value)
    else:
        yield observation


def _leaf(path: str, space: spaces.Space[Any]) -> Leaf:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return Leaf(path, "flags", int(spaces.flatdim(space)))
    if not isinstance(space, spaces.Box):
        where = f" {path!r}" if path else ""
        raise UserError(f"the observation{where} is a {type(space).__name__}, which policies here cannot read")
    size = math.prod(space.shape)
    order = _channels_first(space.shape) if space.dtype == np.uint8 else None
    if order is None:
        return Leaf(path, "numbers", size)
    axes = [space.shape[axis] for axis in order]
    return Leaf(path, "image", size, (math.prod(axes[:-2]), *axes[-2:]), order, space.shape)


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Axes in the order channels, rows, columns; None if it is not an image. Stacked frames already come first."""
    if len(shape) in (3, 4) and shape[-1] <= 4 < min(shape[-3:-1]):
        first = tuple(range(len(shape) - 3))
        order = (*first, len(shape) - 1, len(shape) - 3, len(shape) - 2)
    elif len(shape) in (2, 3):
        order = tuple(range(len(shape)))
    else:
        return None
    return order if min(shape[axis] for axis in order[-2:]) >= SMALLEST_IMAGE else None


def _actions(space: spaces.Space[Any]) -> Actions:
    if isinstance(space, spaces.Discrete):
        return Actions("choices", (int(space.n),), (int(space.start),), (), (), (), "int64")
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        shape = tuple(int(length) for length in space.shape)
        count = math.prod(shape)
        sizes, start = (2,) * count, (0,) * count
        if isinstance(space, spaces.MultiDiscrete):
            sizes, start = (tuple(int(n) for n in part.reshape(-1)) for part in (space.nvec, space.start))
        return Actions("choices", sizes, start, (), (), shape, str(space.dtype))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(bound) for bound in bounds.reshape(-1)) for bounds in (space.low, space.high))
        return Actions("reals", (), (), low, high, tuple(int(n) for n in space.shape), str(space.dtype))
    raise UserError(f"the actions are a {space}; supported: Discrete, MultiDiscrete, MultiBinary and Box of floats")
