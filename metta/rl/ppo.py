"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347): advantages, loss, and the update from one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from metta.rl.policy import ActorCritic
from metta.rl.ranks import Ranks
from metta.rl.tokens import to_device
from metta.rl.trainer_config import PPOConfig

ALONE = Ranks()

MEASURES = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
"""The measures of a minibatch."""


_SAMPLES = ("actions", "log_probs", "values", "advantages", "returns")
"""The tensors of a `Batch`, beside its observations."""


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is not finite, so training cannot continue."""


class Observations(Protocol):
    """A sequence of observations."""

    def select(self, indices: Tensor, there: Tensor) -> Observations:
        """Those at `indices` (int64 [selected], in the memory of this process); `there` is their copy on the device."""
        ...

    def to(self, device: torch.device) -> Observations:
        """Copy them to a device, without a wait for it."""
        ...


class Optimizer(Protocol):
    """Changes a policy's parameters."""

    def step(self, gradient: Tensor, skip: Tensor) -> None:
        """Change them by the gradient of all parameters, flattened and concatenated, unless `skip` is 1."""
        ...


@dataclass(frozen=True)
class Batch:
    """Experience to learn from, in order of environment, then step, then agent; of environment, then agent, then step
    for a policy with memory.

    Attributes:
        observations: in the form that the policy reads.
        actions: int64 [batch], or [batch, ...] in the form that the policy returns.
        log_probs: float32 [batch], of the actions under the policy that chose them.
        values: float32 [batch], as estimated when the action was chosen.
        advantages: float32 [batch].
        returns: float32 [batch], the targets of the values.
        segment: how many adjoining samples belong together, so that no minibatch divides them: the steps of an agent
            for a policy with memory, else 1.
    """

    observations: Observations
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    segment: int = 1

    def __len__(self) -> int:
        return len(self.actions)

    def to(self, device: torch.device) -> Batch:
        """Copy it to a device, without a wait for it."""
        there: dict[str, Any] = {name: to_device(getattr(self, name), device) for name in _SAMPLES}
        return replace(self, observations=self.observations.to(device), **there)

    def select(self, indices: Tensor) -> Batch:
        """The samples at `indices` (int64 [selected], in the memory of this process)."""
        there = to_device(indices, self.actions.device)
        selected = {name: getattr(self, name)[there] for name in _SAMPLES}
        return Batch(self.observations.select(indices, there), **selected)


def generalized_advantages(
    rewards: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    next_values: npt.NDArray[np.float32],
    ended: npt.NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> npt.NDArray[np.float32]:
    """Generalised advantage estimation (arXiv 1506.02438, equations 11, 12 and 16).

    All arrays are [steps, agents].

    Args:
        rewards: for the action at each step.
        values: V of the state in which the action was chosen.
        next_values: V of the state that it led to: 0 where the game was over, V of the last state where the game was
            truncated, because it would have continued.
        ended: whether the episode ended with this step, either way; advantages do not flow back across it.
    """
    deltas = rewards + gamma * next_values - values
    advantages = np.zeros_like(deltas)
    following = np.zeros_like(deltas[0])
    for step in reversed(range(len(deltas))):
        following = deltas[step] + gamma * gae_lambda * np.where(ended[step], 0, following)
        advantages[step] = following
    return advantages


def normalized_advantages(parts: Sequence[Tensor], sizes: Sequence[float], ranks: Ranks) -> list[Tensor]:
    """Advantage normalisation over each minibatch, in one collective.

    Args:
        parts: the advantages of this rank's part of each minibatch.
        sizes: of each minibatch, as the mean over ranks.
    """
    padded = pad_sequence(list(parts), batch_first=True).double()  # [minibatches, longest]
    moments = torch.stack([padded.sum(dim=1), padded.square().sum(dim=1)]) / padded.new_tensor(sizes)
    mean, square = ranks.average(moments)[:, :, None]
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    normalized = ((padded - mean) / (deviation + 1e-8)).float()
    return [row[: len(part)] for row, part in zip(normalized, parts, strict=True)]


@torch.no_grad()
def ppo_loss(
    log_probs: Tensor, entropies: Tensor, values: Tensor, batch: Batch, size: float, config: PPOConfig
) -> tuple[list[Tensor], Tensor]:
    """The loss of a minibatch whose advantages are normalised.

    Its derivatives are written out, because autograd would take as long for its many small operations on a CPU as for
    the network.

    Args:
        log_probs: [batch], of the actions in the batch under the current policy.
        entropies: [batch], of the current policy's distributions over actions.
        values: [batch], as currently estimated.
        batch: the experience.
        size: the divisor of sums over the batch: its length, if it is a whole minibatch.
        config: clips and weights.

    Returns:
        the derivatives of the loss with respect to `log_probs`, `entropies` and `values`, and the values of `MEASURES`.
    """
    log_ratio = log_probs - batch.log_probs
    ratio = log_ratio.exp()

    # Clipped surrogate objective (equation 7), to be maximised. d ratio / d log_probs = ratio.
    surrogate = ratio * batch.advantages
    clipped_surrogate = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef) * batch.advantages
    policy_loss = -torch.min(surrogate, clipped_surrogate).sum() / size
    policy_slope = torch.where(surrogate <= clipped_surrogate, surrogate, 0.0) / -size

    # Clipped value loss: a value that moved further than the clip gains nothing by moving further. Clamping the value
    # and not its change keeps a value within the clip bitwise unchanged, so that its slope is not lost in a tie.
    error = values - batch.returns
    clipped_values = values.clamp(batch.values - config.value_clip, batch.values + config.value_clip)
    square, clipped_square = error.square(), (clipped_values - batch.returns).square()
    value_loss = 0.5 * torch.max(square, clipped_square).sum() / size
    value_slope = torch.where(square >= clipped_square, error, 0.0) * (config.vf_coef / size)

    # Entropy bonus (equation 9).
    entropy = entropies.sum() / size
    entropy_slope = torch.full_like(entropies, -config.ent_coef / size)

    measures = {
        "loss": policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": ((ratio - 1) - log_ratio).sum() / size,
        "clip_fraction": ((ratio - 1).abs() > config.clip_coef).sum() / size,
    }
    return [policy_slope, entropy_slope, value_slope], torch.stack([measures[name] for name in MEASURES])


@dataclass(frozen=True)
class Minibatch:
    """Which samples of a batch are learnt from together.

    Attributes:
        indices: int64 [minibatch], in the batch.
        advantages: [minibatch], normalised.
        size: the divisor of sums over the minibatch.
    """

    indices: Tensor
    advantages: Tensor
    size: float


class Learner(ABC):
    """Changes a policy so that the loss decreases."""

    @abstractmethod
    def loss_gradient(
        self, batch: Batch, indices: Tensor, advantages: Tensor, size: float, config: PPOConfig
    ) -> Tensor:
        """The gradient of the loss of a minibatch.

        Args:
            batch: the experience.
            indices, advantages, size: see `Minibatch`.

        Returns:
            the gradients of all parameters, flattened and concatenated, followed by the measures that `MEASURES` names.
        """

    def learn(
        self,
        optimizer: Optimizer,
        batch: Batch,
        minibatches: Sequence[Minibatch],
        config: PPOConfig,
        ranks: Ranks,
        diverged: Tensor,
    ) -> Tensor:
        """One pass: a step by the clipped gradient of each minibatch in turn.

        Args:
            ranks: each has its part of every minibatch.
            diverged: becomes 1 where something is not finite; from then on the policy does not change.

        Returns:
            [minibatches, measures], those that `MEASURES` names and the norm of the gradient before it is clipped.
        """
        measured = []
        for part in minibatches:
            averaged = ranks.average(self.loss_gradient(batch, part.indices, part.advantages, part.size, config))
            gradient, measures = averaged[: -len(MEASURES)], averaged[-len(MEASURES) :]
            grad_norm = gradient.norm()
            gradient *= (config.max_grad_norm / (grad_norm + 1e-6)).clamp(max=1)
            measured.append(torch.cat([measures, grad_norm[None]]))
            diverged.copy_(torch.maximum(diverged, (~measured[-1].isfinite().all()).float()))
            optimizer.step(gradient, skip=diverged)
        return torch.stack(measured)


class AutogradLearner(Learner):
    """Computes gradients of any policy by PyTorch."""

    def __init__(self, policy: ActorCritic) -> None:
        self._policy = policy
        self._parameters = list(policy.parameters())

    def loss_gradient(
        self, batch: Batch, indices: Tensor, advantages: Tensor, size: float, config: PPOConfig
    ) -> Tensor:
        """See `Learner`."""
        minibatch = replace(batch.select(indices), advantages=advantages)
        evaluated = self._policy.evaluate(minibatch.observations, minibatch.actions)
        slopes, measures = ppo_loss(*evaluated, minibatch, size, config)
        # The gradient of a sum, because given several derivatives autograd imports sympy, which takes seconds.
        products = [output @ slope for output, slope in zip(evaluated, slopes, strict=True)]
        gradients = torch.autograd.grad(torch.stack(products).sum(), self._parameters)
        return torch.cat([*(part.flatten() for part in gradients), measures])


def update(
    learner: Learner,
    optimizer: Optimizer,
    batch: Batch,
    config: PPOConfig,
    num_minibatches: int,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Learn from a batch: `config.update_epochs` passes in shuffled minibatches, whose sizes differ by at most one.

    With `config.target_kl` the passes end early, after one in which the policy moved too far from the one that played.

    Args:
        learner: of the policy that the optimizer changes.
        batch: this rank's part of the batch, which is the parts of all ranks, one after the other.
        generator: shuffles the batch, on all ranks alike, so that a minibatch does not depend on their number.
        ranks: the ranks that learn together. Each computes its part of every minibatch.

    Returns:
        the mean over all minibatches of `MEASURES`, of ``grad_norm`` (before clipping), ``explained_variance`` of the
        returns by the values, and ``epochs``: passes that were made.

    Raises:
        TrainingDiverged: a loss or gradient is not finite. The policy stays as it was before that minibatch.
    """
    first, total = ranks.position(len(batch))
    passes: list[Tensor] = []
    diverged = torch.zeros((), device=batch.returns.device)
    while len(passes) < config.update_epochs and not _moved_too_far(passes, config):
        shuffled = _shuffled(total, batch.segment, generator, num_minibatches)
        sizes = [len(indices) / ranks.size for indices in shuffled]
        parts = [_within(indices, first, len(batch)) for indices in shuffled] if ranks.size > 1 else shuffled
        advantages = normalized_advantages(_at(batch.advantages, parts), sizes, ranks)
        minibatches = [Minibatch(*each) for each in zip(parts, advantages, sizes, strict=True)]
        passes.append(learner.learn(optimizer, batch, minibatches, config, ranks, diverged))
    values = torch.cat(passes).cpu()  # the first time that this waits for a GPU
    _require_finite(values)
    means = dict(zip((*MEASURES, "grad_norm"), values.mean(dim=0).tolist(), strict=True))
    explained_variance = _explained_variance(batch, total / ranks.size, ranks)
    return means | {"explained_variance": explained_variance, "epochs": len(passes)}


def _moved_too_far(passes: Sequence[Tensor], config: PPOConfig) -> bool:
    """Whether the mean KL divergence of the last pass exceeds the target."""
    if config.target_kl is None or not passes:
        return False
    return bool(passes[-1][:, MEASURES.index("approx_kl")].mean() > config.target_kl)


def _shuffled(total: int, segment: int, generator: torch.Generator, parts: int) -> list[Tensor]:
    """The indices of a batch in minibatches of whole segments."""
    steps = torch.arange(segment)
    shuffled = torch.randperm(total // segment, generator=generator)
    return [(part[:, None] * segment + steps).flatten() for part in shuffled.tensor_split(parts)]


def _within(indices: Tensor, first: int, number: int) -> Tensor:
    """The indices of the whole batch that are in this rank's part, as indices of the part."""
    return indices[(indices >= first) & (indices < first + number)] - first


def _at(values: Tensor, parts: Sequence[Tensor]) -> Sequence[Tensor]:
    """The values at the indices of each part."""
    chosen = values[to_device(torch.cat(list(parts)), values.device)]
    return torch.split(chosen, [len(part) for part in parts])


def _explained_variance(batch: Batch, size: float, ranks: Ranks) -> float:
    """The fraction of the variance of the returns that the values predict."""
    samples = torch.stack([batch.returns, batch.returns - batch.values]).double()
    sums = torch.stack([samples.sum(dim=1), samples.square().sum(dim=1)])
    means, squares = ranks.average(sums / size)
    variance, unexplained = (squares - means.square()).tolist()
    return 1 - unexplained / variance if variance > 0 else 0.0


def _require_finite(measured: Tensor) -> None:
    """Check the measures of each minibatch: [minibatches, measures]."""
    diverged = ~measured.isfinite().all(dim=1)
    if diverged.any():
        first = dict(zip((*MEASURES, "grad_norm"), measured[int(diverged.int().argmax())].tolist(), strict=True))
        wrong = [f"{name} is {value}" for name, value in first.items() if not np.isfinite(value)]
        raise TrainingDiverged(f"training diverged: {', '.join(wrong)}; a lower learning rate may help")
