"""The network that plays environments of Gymnasium: an encoder, followed by an actor and a critic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from metta.rl.gymnasium.spaces import GymnasiumSpec, Leaf
from metta.rl.memory import Memory, MinGRU, Sequences, unpacked
from metta.rl.policy import ActorCritic, linear
from metta.rl.tokens import to_device

CLIP = 10.0
"""Normalised observations and rewards are clipped to this many standard deviations."""
LARGE_IMAGE = 36
"""Images with at least this many rows and columns get the large convolutions."""


@dataclass(frozen=True)
class FlatObservations:
    """A batch of observations [batch, size]."""

    values: Tensor

    def select(self, indices: Tensor, there: Tensor) -> FlatObservations:
        return FlatObservations(self.values[there])

    def to(self, device: torch.device) -> FlatObservations:
        return FlatObservations(to_device(self.values, device))


class Moments(nn.Module):
    """Running mean and variance, saved with the weights. Merged as in Chan, Golub & LeVeque 1983, equations 1.5.

    Args:
        size: how many numbers have their own statistics.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def merge(self, mean: Tensor, square: Tensor, count: float) -> None:
        """Merge samples, given the means [size] of their values and squares."""
        total = self.count + count
        difference = mean - self.mean
        squares = self.variance * self.count + (square - mean.square()).clamp(min=0) * count
        squares = squares + difference.square() * self.count * count / total
        self.mean.copy_(self.mean + difference * count / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)


class GymnasiumPolicy(ActorCritic):
    """Actor and critic. Memory, if any, reads the same features, and both read its state.

    Numbers are normalised by their running statistics. Images go through convolutions, those of Mnih et al. 2015 if
    they are large. Two networks of two tanh layers read both: one for actions and one for the value. Layers start
    orthogonal, with gain 0.01 for the actor's head and 1 for the critic's (arXiv 2006.05990).

    Choices are categorical and independent of each other; reals are normal, with deviations that do not depend on the
    observation.

    Attributes:
        observed: statistics of observations; only those of numbers are used.
        returns: statistics of discounted returns, which scale rewards in training.
    """

    def __init__(self, spec: GymnasiumSpec, hidden_size: int, normalized: bool, memory: str = "none") -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.actions = spec.actions
        self._leaves = spec.leaves
        self._sizes = [leaf.size for leaf in spec.leaves]
        self.observed = Moments(spec.size)
        self.returns = Moments(1)
        scaled = torch.cat([torch.full((leaf.size,), leaf.kind == "numbers") for leaf in spec.leaves]) & normalized
        self.scaled: Tensor
        self.register_buffer("scaled", scaled)
        self.images = nn.ModuleDict(
            {str(i): _convolutions(leaf, hidden_size) for i, leaf in enumerate(spec.leaves) if leaf.kind == "image"}
        )
        inputs = sum(hidden_size if leaf.kind == "image" else leaf.size for leaf in spec.leaves)
        self.memory = None if memory == "none" else MinGRU(inputs, hidden_size)
        inputs += self.state_size
        outputs = sum(spec.actions.sizes) or spec.actions.width
        self.actor = _network(inputs, hidden_size, outputs, gain=0.01)
        self.critic = _network(inputs, hidden_size, 1, gain=1.0)
        self.log_deviations = nn.Parameter(torch.zeros(spec.actions.width)) if spec.actions.kind == "reals" else None

    def forward(self, observations: Tensor, memory: Memory = None) -> tuple[Tensor, Tensor]:
        """The actor's heads [batch, logits or means] and the values [batch] of observations [batch, size].

        `memory` is of the steps before; see `metta.rl.memory.Memory`.
        """
        features = self._features(observations)
        if self.memory is not None:
            features = torch.cat([features, self.memory(features, memory)], dim=-1)
        return self.actor(features), self.critic(features).squeeze(-1)

    def evaluate(self, observations: FlatObservations | Sequences, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat, sequences = unpacked(observations)
        heads, values = self(flat.values, sequences)
        return self.log_probs(heads, actions), self._entropies(heads), values

    def sample(self, heads: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw actions [batch, width]; without a generator, take the most likely ones."""
        if self.log_deviations is not None:
            if generator is None:
                return heads
            noise = torch.randn(heads.shape, generator=generator, device=heads.device)
            return heads + noise * self.log_deviations.exp()
        parts = []
        for logits in self._choices(heads):
            if generator is None:
                parts.append(logits.argmax(dim=-1, keepdim=True))
            else:
                parts.append(torch.multinomial(functional.softmax(logits, dim=-1), 1, generator=generator))
        return torch.cat(parts, dim=-1)

    def log_probs(self, heads: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities [batch] of actions [batch, width]; log-densities for reals."""
        if self.log_deviations is not None:
            z = (actions - heads) * (-self.log_deviations).exp()
            return -(0.5 * z.square() + self.log_deviations + 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        chosen = [
            functional.log_softmax(logits, dim=-1).gather(1, actions[:, i : i + 1])
            for i, logits in enumerate(self._choices(heads))
        ]
        return torch.cat(chosen, dim=-1).sum(dim=-1)

    def _entropies(self, heads: Tensor) -> Tensor:
        if self.log_deviations is not None:
            entropy = (self.log_deviations + 0.5 * math.log(2 * math.pi * math.e)).sum()
            return entropy.expand(len(heads))
        total = torch.zeros(len(heads), device=heads.device)
        for logits in self._choices(heads):
            log_probs = functional.log_softmax(logits, dim=-1)
            total = total - (log_probs.exp() * log_probs).sum(dim=-1)
        return total

    def _choices(self, heads: Tensor) -> Sequence[Tensor]:
        return torch.split(heads, list(self.actions.sizes), dim=-1)

    def _features(self, observations: Tensor) -> Tensor:
        if not self.images:
            return self._normalized(observations.float())
        normalized = self._normalized(observations.float())
        parts = []
        for index, (leaf, part) in enumerate(
            zip(self._leaves, torch.split(normalized, self._sizes, dim=-1), strict=True)
        ):
            if leaf.kind == "image":
                axes = [0, *(axis + 1 for axis in leaf.order)]
                pixels = part.view(-1, *leaf.shape).permute(axes).reshape(-1, *leaf.image)
                part = self.images[str(index)](pixels / 255)
            parts.append(part)
        return torch.cat(parts, dim=-1)

    def _normalized(self, observations: Tensor) -> Tensor:
        mean, deviation = self.observed.mean.float(), (self.observed.variance + 1e-8).sqrt().float()
        normalized = ((observations - mean) / deviation).clamp(-CLIP, CLIP)
        return torch.where(self.scaled, normalized, observations)


def _network(inputs: int, hidden_size: int, outputs: int, gain: float) -> nn.Sequential:
    return nn.Sequential(
        linear(inputs, hidden_size, gain=math.sqrt(2)),
        nn.Tanh(),
        linear(hidden_size, hidden_size, gain=math.sqrt(2)),
        nn.Tanh(),
        linear(hidden_size, outputs, gain=gain),
    )


def _convolutions(leaf: Leaf, features: int) -> nn.Sequential:
    channels, *size = leaf.image
    large = min(size) >= LARGE_IMAGE
    shapes = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if large else [(16, 3, 2), (32, 3, 2)]
    layers: list[nn.Module] = []
    for outputs, kernel, stride in shapes:
        layer = nn.Conv2d(channels, outputs, kernel, stride)
        nn.init.orthogonal_(layer.weight, math.sqrt(2))
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        layers += [layer, nn.ReLU()]
        channels, size = outputs, [(length - kernel) // stride + 1 for length in size]
    flat = channels * math.prod(size)
    return nn.Sequential(*layers, nn.Flatten(), linear(flat, features, gain=math.sqrt(2)), nn.ReLU())
