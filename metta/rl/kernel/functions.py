"""The kernel's functions on arrays, which are contiguous and in this process's memory. Does not import torch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metta.rl.kernel.build import Unavailable, library

_ALIGNMENT = 64
_RETURNS_COUNT = ("packed_floats", "act_floats", "gradient_floats")
_RETURNS_NOTHING = ("encode", "select_tokens", "pack", "act", "choose", "loss_gradient", "learn")


class Shape(ctypes.Structure):
    """The kernel's `Shape`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("hidden", "actions", "placeless", "places", "channels", "directions")),
        ("direction_of", ctypes.c_void_p),
    ]


class Tokens(ctypes.Structure):
    """The kernel's `Tokens`: addresses of rows, weights and offsets."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("rows", "weights", "offsets")]


@dataclass(frozen=True)
class TokenTables:
    """The lookups of `metta.rl.tokens.Vocabulary`.

    Attributes:
        weights, channels, has_place: by a token's feature and value, ``feature << 8 | value``.
        first_rows: by a token's location.
    """

    weights: npt.NDArray[np.float32]
    channels: npt.NDArray[np.int32]
    has_place: npt.NDArray[np.int32]
    first_rows: npt.NDArray[np.int32]

    @staticmethod
    def fields() -> dict[str, tuple[tuple[int], npt.DTypeLike]]:
        """The shapes and types of the arrays."""
        tokens = (256 * 256,)
        return {
            "weights": (tokens, np.float32),
            "channels": (tokens, np.int32),
            "has_place": (tokens, np.int32),
            "first_rows": ((256,), np.int32),
        }

    @property
    def addresses(self) -> list[ctypes.c_void_p]:
        return [address(table) for table in (self.weights, self.channels, self.has_place, self.first_rows)]


@functools.cache
def kernel() -> ctypes.CDLL:
    """The kernel of this machine.

    Raises:
        Unavailable: see `metta.rl.kernel.build.library`.
    """
    functions = library()
    for name in _RETURNS_COUNT:
        getattr(functions, name).restype = ctypes.c_int64
    for name in _RETURNS_NOTHING:
        getattr(functions, name).restype = None
    return functions


def kernel_is_available() -> bool:
    try:
        kernel()
    except Unavailable:
        return False
    return True


class Encoder:
    """Looks up the tokens of observations. Its memory is used again by each call.

    Args:
        tables: of the vocabulary.
        batch: the most observations of a call.
        tokens: of each observation.
    """

    def __init__(self, tables: TokenTables, batch: int, tokens: int) -> None:
        self._tables = tables
        self._addresses = tables.addresses
        self._num_tokens = ctypes.c_int64(tokens)
        self.rows = np.empty(batch * tokens, dtype=np.int32)
        self.weights = np.empty(batch * tokens, dtype=np.float32)
        self.offsets = np.zeros(batch + 1, dtype=np.int32)
        self.tokens = Tokens(*(array.ctypes.data for array in (self.rows, self.weights, self.offsets)))
        self._encode = kernel().encode

    def encode(self, observations: npt.NDArray[np.uint8]) -> Tokens:
        """The tokens of observations [batch, tokens, 3], which `rows`, `weights` and `offsets` then hold."""
        self._encode(
            address(observations),
            ctypes.c_int64(len(observations)),
            self._num_tokens,
            *self._addresses,
            *(ctypes.c_void_p(part) for part in (self.tokens.rows, self.tokens.weights, self.tokens.offsets)),
        )
        return self.tokens


@dataclass(frozen=True)
class NetworkSizes:
    """The sizes of a default policy; see `metta.rl.policy.Policy`.

    Attributes:
        hidden, actions: width, and number of actions.
        placeless, places, channels, directions: sizes of the embedding tables.
        direction_of: int64 [places], the direction of each place.
    """

    hidden: int
    actions: int
    placeless: int
    places: int
    channels: int
    directions: int
    direction_of: npt.NDArray[np.int64]

    @property
    def shape(self) -> Shape:
        """For the kernel; it refers to `direction_of`."""
        sizes = (self.hidden, self.actions, self.placeless, self.places, self.channels, self.directions)
        return Shape(*sizes, self.direction_of.ctypes.data)

    @property
    def packed_floats(self) -> int:
        """Size of the memory for the packed weights."""
        return int(kernel().packed_floats(ctypes.byref(self.shape))) + _ALIGNMENT


class PackedNetwork:
    """A default policy that plays with weights that were packed for the kernel.

    Args:
        sizes: of the policy.
        memory: float32, `NetworkSizes.packed_floats` of them, zeroed before they are first packed. Processes may share
            it, so that one packs and all play.
    """

    def __init__(self, sizes: NetworkSizes, memory: npt.NDArray[np.float32]) -> None:
        self._sizes = sizes
        self.shape = sizes.shape
        self.packed = aligned(memory)
        self.scratch = aligned_zeros(kernel().act_floats(ctypes.byref(self.shape)))
        self._packed, self._at_scratch = address(self.packed), address(self.scratch)
        self._act = kernel().act

    def act(
        self, tokens: Tokens, number: int, uniforms: int | None, actions: int | None, log_probs: int | None, values: int
    ) -> None:
        """Write the values of observations, and actions drawn by `uniforms` with their log-probabilities.

        Args:
            tokens: of the observations.
            number: of observations.
            uniforms, log_probs, values: addresses of float32 [number].
            actions: address of int32 [number]. Where these three are None, only values are written.
        """
        self._act(
            ctypes.byref(self.shape),
            self._packed,
            ctypes.byref(tokens),
            ctypes.c_int64(number),
            *(ctypes.c_void_p(each) for each in (uniforms, actions, log_probs, values)),
            self._at_scratch,
        )


class _Seat(ctypes.Structure):
    """The kernel's `Seat`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("shape", "packed")),
        *((name, ctypes.c_void_p) for name in ("weight_of", "channel_of", "has_place", "first_row_of")),
        *((name, ctypes.c_int64) for name in ("agents", "tokens")),
        *((name, ctypes.c_void_p) for name in ("observed", "chosen", "rewarded", "terminated", "truncated")),
        *((name, ctypes.c_void_p) for name in ("rows", "weights", "offsets", "uniforms")),
        *((name, ctypes.c_void_p) for name in ("actions", "log_probs", "values", "rewards")),
        *((name, ctypes.c_void_p) for name in ("terminals", "truncations", "memory")),
    ]


class Seat:
    """A place at which a packed network plays one environment, and records the experience of a batch.

    Args:
        network: plays.
        tables: of the vocabulary.
        arrays: what the environment reads and writes (``observed`` [agents, tokens, 3], ``chosen``, ``rewarded``,
            ``terminated``, ``truncated`` [agents]) and what is recorded; see `metta.rl.batch_player.Experience`.
    """

    def __init__(self, network: PackedNetwork, tables: TokenTables, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._network, self._arrays = network, (tables, arrays)
        agents, tokens, _ = arrays["observed"].shape
        self._seat = _Seat(
            ctypes.addressof(network.shape),
            network.packed.ctypes.data,
            *tables.addresses,
            agents,
            tokens,
            memory=network.scratch.ctypes.data,
            **{name: address(array) for name, array in arrays.items()},
        )
        self._at = ctypes.byref(self._seat)
        self._choose, self._record = kernel().choose, kernel().record

    def choose(self, step: int) -> None:
        """Choose the actions of a step, from ``observed``, and record what they were chosen from."""
        self._choose(self._at, ctypes.c_int64(step))

    def record(self, step: int) -> bool:
        """Record what followed the actions of a step. Returns whether an episode was truncated."""
        return bool(self._record(self._at, ctypes.c_int64(step)))


def address(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def aligned_zeros(floats: int) -> npt.NDArray[np.float32]:
    """Zeroed memory that begins at a multiple of the length of a vector register, which is faster to read."""
    return aligned(np.zeros(floats + _ALIGNMENT, dtype=np.float32))[:floats]


def aligned(memory: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The part of the memory that begins at such a multiple."""
    return memory[-memory.ctypes.data % _ALIGNMENT // memory.itemsize :]
