"""The default policy, computed by the kernel on tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.kernel.functions import NetworkSizes, PackedNetwork, Tokens, address, aligned_zeros, kernel

if TYPE_CHECKING:
    from metta.rl.policy import Policy
    from metta.rl.tokens import TokenBatch

_Pointers = ctypes.c_void_p * 10


class KernelNetwork:
    """A default policy on the CPU, computed by the kernel.

    Args:
        policy: `act` and `values` use its weights as they were at creation, or at the last `pack`.
        packed: memory for the packed weights; see `PackedNetwork`. By default it is the network's own.
    """

    def __init__(self, policy: Policy, packed: npt.NDArray[np.float32] | None = None) -> None:
        self._parameters = list(policy.parameters())
        sizes = sizes_of(policy)
        self._packed = PackedNetwork(sizes, aligned_zeros(sizes.packed_floats) if packed is None else packed)
        self.pack()

    def act(self, tokens: TokenBatch, uniforms: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions; see `metta.rl.policy.Actor.act`. States are empty, because the network has no memory."""
        actions = torch.empty(len(tokens), dtype=torch.int32)
        log_probs, values = torch.empty(len(tokens)), torch.empty(len(tokens))
        assert uniforms.is_contiguous()
        drawn = (tensor.data_ptr() for tensor in (uniforms, actions, log_probs, values))
        self._packed.act(addresses_of(tokens), len(tokens), *drawn)
        return actions, log_probs, values

    def values(self, tokens: TokenBatch, states: Tensor | None = None) -> Tensor:
        """Values [batch] of observations."""
        values = torch.empty(len(tokens))
        self._packed.act(addresses_of(tokens), len(tokens), None, None, None, values.data_ptr())
        return values

    def pack(self) -> None:
        """Play with the policy's weights as they are now."""
        packed = address(self._packed.packed)
        kernel().pack(ctypes.byref(self._packed.shape), pointers(self._parameters), packed)


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


def addresses_of(tokens: TokenBatch) -> Tokens:
    return Tokens(tokens.rows.data_ptr(), tokens.weights.data_ptr(), tokens.offsets.data_ptr())


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """The kernel's `Parameters`: those of a default policy, in their order."""
    return _Pointers(*(tensor.data_ptr() for tensor in tensors))
