"""The kernel's functions on tensors and arrays, which are in this process's memory and contiguous."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.kernel.build import Unavailable, library

if TYPE_CHECKING:
    from metta.rl.policy import Policy
    from metta.rl.ppo import Batch
    from metta.rl.tokens import TokenBatch
    from metta.rl.trainer_config import PPOConfig

SAMPLES_PER_THREAD = 256
"""Samples of a minibatch for each thread; with fewer, starting a thread and adding its gradient is not worth it."""

_ALIGNMENT = 64
_NUM_PARAMETERS = 10
_NUM_MEASURES = 6

_Parameters = ctypes.c_void_p * _NUM_PARAMETERS


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("hidden", "actions", "placeless", "places", "channels", "directions")),
        ("direction_of", ctypes.c_void_p),
    ]


class _Tokens(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("rows", "weights", "offsets")]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("tokens", _Tokens),
        *((name, ctypes.c_void_p) for name in ("actions", "log_probs", "values", "returns")),
    ]


class _Loss(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_float) for name in ("clip", "value_clip", "value_weight", "entropy_weight")),
        ("size", ctypes.c_double),
    ]


@functools.cache
def kernel() -> Kernel:
    """The kernel of this machine.

    Raises:
        Unavailable: see `metta.rl.kernel.build.library`.
    """
    return Kernel(library())


def kernel_is_available() -> bool:
    try:
        kernel()
    except Unavailable:
        return False
    return True


class Kernel:
    """The functions of the compiled library."""

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self.functions = compiled
        for name in ("packed_floats", "act_floats", "gradient_floats"):
            getattr(compiled, name).restype = ctypes.c_int64
        for name in ("encode", "select_tokens", "pack", "act", "loss_gradient"):
            getattr(compiled, name).restype = None

    def encode(
        self,
        observations: npt.NDArray[np.uint8],
        weights_of: npt.NDArray[np.float32],
        channels_of: npt.NDArray[np.int32],
        has_place: npt.NDArray[np.int32],
        first_rows: npt.NDArray[np.int32],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The rows, weights and offsets of observations [batch, tokens, 3]; see `Vocabulary.encode`."""
        batch, tokens, _ = observations.shape
        rows = torch.empty(batch * tokens, dtype=torch.int32)
        weights = torch.empty(batch * tokens)
        offsets = torch.empty(batch + 1, dtype=torch.int32)
        self.functions.encode(
            _array(observations),
            ctypes.c_int64(batch),
            ctypes.c_int64(tokens),
            *(_array(table) for table in (weights_of, channels_of, has_place, first_rows)),
            *(_tensor(tensor) for tensor in (rows, weights, offsets)),
        )
        count = int(offsets[-1])
        return rows[:count].clone(), weights[:count].clone(), offsets

    def select(self, tokens: TokenBatch, indices: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and weights of the observations at `indices`, which begin at `offsets`; see `TokenBatch.select`."""
        count = int(offsets[-1])
        rows, weights = torch.empty(count, dtype=torch.int32), torch.empty(count)
        self.functions.select_tokens(
            ctypes.byref(_tokens(tokens)),
            _tensor(indices),
            ctypes.c_int64(len(indices)),
            *(_tensor(tensor) for tensor in (offsets, rows, weights)),
        )
        return rows, weights


class KernelNetwork:
    """A default policy on the CPU, computed by the kernel.

    Args:
        policy: `act` and `values` use its weights at creation; `loss_gradient` uses the current ones.
        threads: the maximum number of threads that compute a gradient.
    """

    def __init__(self, policy: Policy, threads: int = 1) -> None:
        self._functions = kernel().functions
        self._threads = threads
        self._parameters = list(policy.parameters())
        self._sizes = [parameter.numel() for parameter in self._parameters]
        places, channels, hidden = policy.place_embeddings.shape
        self._directions = policy.lies_in.argmax(dim=1)
        self._shape = _Shape(
            hidden=hidden,
            actions=len(policy.actor.bias),
            placeless=len(policy.placeless_embeddings),
            places=places,
            channels=channels,
            directions=len(policy.direction_embeddings),
            direction_of=self._directions.data_ptr(),
        )
        self._packed = _memory(self._functions.packed_floats(ctypes.byref(self._shape)))
        self._act_memory = _memory(self._functions.act_floats(ctypes.byref(self._shape)))
        self._gradient_memory = _memory(0)
        self._gradient = torch.empty(sum(self._sizes) + _NUM_MEASURES)
        self._pack()

    def act(self, tokens: TokenBatch, uniforms: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions; see `metta.rl.policy.Actor.act`. States are empty, because the network has no memory."""
        actions = torch.empty(len(tokens), dtype=torch.int32)
        log_probs, values = torch.empty(len(tokens)), torch.empty(len(tokens))
        self._act(tokens, *(_tensor(tensor) for tensor in (uniforms, actions, log_probs, values)))
        return actions, log_probs, values

    def values(self, tokens: TokenBatch, states: Tensor | None = None) -> Tensor:
        """Values [batch] of observations."""
        values = torch.empty(len(tokens))
        self._act(tokens, None, None, None, _tensor(values))
        return values

    def loss_gradient(
        self, batch: Batch, indices: Tensor, advantages: Tensor, size: float, config: PPOConfig
    ) -> Tensor:
        """The gradient of a minibatch's loss; see `metta.rl.ppo.Learner`. The next call writes into the same tensor."""
        self._pack()
        *parts, measures = torch.split(self._gradient, [*self._sizes, _NUM_MEASURES])
        experience = _Batch(
            _tokens(batch.observations),  # type: ignore[arg-type]
            *(tensor.data_ptr() for tensor in (batch.actions, batch.log_probs, batch.values, batch.returns)),
        )
        threads = ctypes.c_int64(max(1, min(self._threads, len(indices) // SAMPLES_PER_THREAD)))
        floats = self._functions.gradient_floats(ctypes.byref(self._shape), threads)
        if len(self._gradient_memory) < floats:
            self._gradient_memory = _memory(floats)
        self._functions.loss_gradient(
            ctypes.byref(self._shape),
            _array(self._packed),
            ctypes.byref(experience),
            _tensor(indices),
            _tensor(advantages),
            ctypes.c_int64(len(indices)),
            ctypes.byref(_Loss(config.clip_coef, config.value_clip, config.vf_coef, config.ent_coef, size)),
            threads,
            _array(self._gradient_memory),
            _pointers(parts),
            _tensor(measures),
        )
        return self._gradient

    def _pack(self) -> None:
        self._functions.pack(ctypes.byref(self._shape), _pointers(self._parameters), _array(self._packed))

    def _act(self, tokens: TokenBatch, *arrays: ctypes.c_void_p | None) -> None:
        self._functions.act(
            ctypes.byref(self._shape),
            _array(self._packed),
            ctypes.byref(_tokens(tokens)),
            ctypes.c_int64(len(tokens)),
            *arrays,
            _array(self._act_memory),
        )


def _memory(floats: int) -> npt.NDArray[np.float32]:
    """Zeroed memory that begins at a multiple of the length of a vector register, which is faster to read."""
    memory = np.zeros(floats + _ALIGNMENT, dtype=np.float32)
    first = -memory.ctypes.data % _ALIGNMENT // memory.itemsize
    return memory[first : first + floats]


def _tokens(tokens: TokenBatch) -> _Tokens:
    return _Tokens(tokens.rows.data_ptr(), tokens.weights.data_ptr(), tokens.offsets.data_ptr())


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return _Parameters(*(tensor.data_ptr() for tensor in tensors))


def _tensor(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def _array(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
