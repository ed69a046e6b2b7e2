"""Memory of policies: a recurrent layer, and the sequences that it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from metta.rl.tokens import to_device

if TYPE_CHECKING:
    from metta.rl.ppo import Observations

LONGEST = 4.0
"""Minus the smallest initial bias of a gate: that unit forgets in about exp(4) = 55 steps."""


@dataclass(frozen=True)
class Sequences:
    """Observations of segments: consecutive steps of one agent each, one segment after the other.

    Attributes:
        observations: [segments * steps].
        begins: bool [segments, steps]; an episode begins at this step, so nothing before it is remembered.
        states: float32 [segments, width], what the agent remembers before the first step.
    """

    observations: Observations
    begins: Tensor
    states: Tensor

    def select(self, indices: Tensor, there: Tensor) -> Sequences:
        """Some segments, by the indices of all their samples; see `metta.rl.ppo.Observations`."""
        steps = self.begins.shape[1]
        chosen = there[::steps] // steps
        return Sequences(self.observations.select(indices, there), self.begins[chosen], self.states[chosen])

    def to(self, device: torch.device) -> Sequences:
        """Copy them to a device, without a wait for it."""
        return Sequences(self.observations.to(device), to_device(self.begins, device), to_device(self.states, device))


Memory = Tensor | Sequences | None
"""A policy's memory of the observations before a batch: the states [batch, width] of agents that make
one step, which are overwritten by the states after it; or the sequences that the batch consists of; or nothing."""


def begins_after(ended: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where episodes begin within a batch, [steps, ...], given where they end. Initial states cover step 0."""
    begins = np.zeros_like(ended)
    begins[1:] = ended[:-1]
    return begins


def unpacked(observations: Any) -> tuple[Any, Sequences | None]:
    """Observations, and the sequences that they come from, if any."""
    return (observations.observations, observations) if isinstance(observations, Sequences) else (observations, None)


class MinGRU(nn.Module):
    """A minimal gated recurrent unit (Feng et al., arXiv 2410.01201, section 3.1).

    Its state is ``h[t] = (1 - z[t]) h[t-1] + z[t] c[t]``. The gate ``z = sigmoid(W x + b)`` and the candidate
    ``c = tanh(V x + d)`` depend on the input x alone, so they are computed for all steps at once. The initial biases of
    the gates differ, so that units forget at different speeds (Tallec and Ollivier, arXiv 1804.11188).

    Args:
        inputs: numbers in an input.
        width: numbers in a state.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.candidate = nn.Linear(inputs, width)
        self.gate = nn.Linear(inputs, width)
        for layer in (self.candidate, self.gate):
            nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(self.candidate.bias)
        with torch.no_grad():
            self.gate.bias.copy_(-torch.linspace(0, LONGEST, width))

    def forward(self, inputs: Tensor, memory: Memory) -> Tensor:
        """The states [batch, width] after inputs [batch, inputs], each of which follows its state in `memory`."""
        if isinstance(memory, Sequences):
            by_step = inputs.view(*memory.begins.shape, inputs.shape[-1]).transpose(0, 1)
            return self.states(by_step, memory.states, memory.begins.T).transpose(0, 1).flatten(0, 1)
        before = inputs.new_zeros(len(inputs), self.width) if memory is None else memory
        after = self.states(inputs[None], before)[0]
        if memory is not None:
            memory.copy_(after)
        return after

    def states(self, inputs: Tensor, before: Tensor, begins: Tensor | None = None) -> Tensor:
        """The states [steps, batch, width] after each step.

        Args:
            inputs: [steps, batch, inputs].
            before: the states [batch, width] before the first step.
            begins: bool [steps, batch]; where the state before the step is forgotten, by default nowhere.
        """
        gate = torch.sigmoid(self.gate(inputs))
        kept, added = 1 - gate, gate * torch.tanh(self.candidate(inputs))
        if begins is not None:
            kept = kept.masked_fill(begins[..., None], 0.0)
        states, state = [], before
        for kept_now, added_now in zip(kept, added, strict=True):
            state = kept_now * state + added_now
            states.append(state)
        return torch.stack(states)
