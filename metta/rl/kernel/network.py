"""The default policy and the gradient of its loss, computed by the kernel on tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.kernel.functions import NetworkSizes, PackedNetwork, Tokens, address, aligned_zeros, kernel

if TYPE_CHECKING:
    from metta.rl.policy import Policy
    from metta.rl.ppo import Batch
    from metta.rl.tokens import TokenBatch
    from metta.rl.trainer_config import PPOConfig

SAMPLES_PER_THREAD = 256
"""Samples of a minibatch for each thread; with fewer, starting a thread and adding its gradient is not worth it."""

_NUM_PARAMETERS = 10
_NUM_MEASURES = 6

_Parameters = ctypes.c_void_p * _NUM_PARAMETERS


class _Batch(ctypes.Structure):
    _fields_ = [
        ("tokens", Tokens),
        *((name, ctypes.c_void_p) for name in ("actions", "log_probs", "values", "returns")),
    ]


class _Loss(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_float) for name in ("clip", "value_clip", "value_weight", "entropy_weight")),
        ("size", ctypes.c_double),
    ]


class KernelNetwork:
    """A default policy on the CPU, computed by the kernel.

    Args:
        policy: `act` and `values` use its weights at creation; `loss_gradient` uses the current ones.
        threads: the maximum number of threads that compute a gradient.
        packed: memory for the packed weights; see `PackedNetwork`. By default it is the network's own.
    """

    def __init__(self, policy: Policy, threads: int = 1, packed: npt.NDArray[np.float32] | None = None) -> None:
        self._functions = kernel()
        self._threads = threads
        self._parameters = list(policy.parameters())
        self._sizes = [parameter.numel() for parameter in self._parameters]
        sizes = sizes_of(policy)
        self._packed = PackedNetwork(sizes, aligned_zeros(sizes.packed_floats) if packed is None else packed)
        self._shape = self._packed.shape
        self._gradient_memory = aligned_zeros(0)
        self._gradient = torch.empty(sum(self._sizes) + _NUM_MEASURES)
        self.pack()

    def act(self, tokens: TokenBatch, uniforms: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions; see `metta.rl.policy.Actor.act`. States are empty, because the network has no memory."""
        actions = torch.empty(len(tokens), dtype=torch.int32)
        log_probs, values = torch.empty(len(tokens)), torch.empty(len(tokens))
        assert uniforms.is_contiguous()
        drawn = (tensor.data_ptr() for tensor in (uniforms, actions, log_probs, values))
        self._packed.act(_tokens(tokens), len(tokens), *drawn)
        return actions, log_probs, values

    def values(self, tokens: TokenBatch, states: Tensor | None = None) -> Tensor:
        """Values [batch] of observations."""
        values = torch.empty(len(tokens))
        self._packed.act(_tokens(tokens), len(tokens), None, None, None, values.data_ptr())
        return values

    def loss_gradient(
        self, batch: Batch, indices: Tensor, advantages: Tensor, size: float, config: PPOConfig
    ) -> Tensor:
        """The gradient of a minibatch's loss; see `metta.rl.ppo.Learner`. The next call writes into the same tensor."""
        self.pack()
        *parts, measures = torch.split(self._gradient, [*self._sizes, _NUM_MEASURES])
        experience = _Batch(
            _tokens(batch.observations),  # type: ignore[arg-type]
            *(tensor.data_ptr() for tensor in (batch.actions, batch.log_probs, batch.values, batch.returns)),
        )
        threads = ctypes.c_int64(max(1, min(self._threads, len(indices) // SAMPLES_PER_THREAD)))
        floats = self._functions.gradient_floats(ctypes.byref(self._shape), threads)
        if len(self._gradient_memory) < floats:
            self._gradient_memory = aligned_zeros(floats)
        self._functions.loss_gradient(
            ctypes.byref(self._shape),
            address(self._packed.packed),
            ctypes.byref(experience),
            _tensor(indices),
            _tensor(advantages),
            ctypes.c_int64(len(indices)),
            ctypes.byref(_Loss(config.clip_coef, config.value_clip, config.vf_coef, config.ent_coef, size)),
            threads,
            address(self._gradient_memory),
            _pointers(parts),
            _tensor(measures),
        )
        return self._gradient

    def pack(self) -> None:
        """Play with the policy's weights as they are now."""
        packed = address(self._packed.packed)
        self._functions.pack(ctypes.byref(self._shape), _pointers(self._parameters), packed)


def sizes_of(policy: Policy) -> NetworkSizes:
    """The sizes of a default policy."""
    places, channels, hidden = policy.place_embeddings.shape
    return NetworkSizes(
        hidden=hidden,
        actions=len(policy.actor.bias),
        placeless=len(policy.placeless_embeddings),
        places=places,
        channels=channels,
        directions=len(policy.direction_embeddings),
        direction_of=policy.lies_in.argmax(dim=1).numpy(),
    )


def _tokens(tokens: TokenBatch) -> Tokens:
    return Tokens(tokens.rows.data_ptr(), tokens.weights.data_ptr(), tokens.offsets.data_ptr())


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return _Parameters(*(tensor.data_ptr() for tensor in tensors))


def _tensor(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
