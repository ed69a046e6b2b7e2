"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347): advantages, loss, and the update from one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.policy import ActorCritic
from metta.rl.ranks import Ranks
from metta.rl.trainer_config import PPOConfig

ALONE = Ranks()


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is not finite, so training cannot continue."""


class Observations(Protocol):
    """A sequence of observations."""

    def select(self, indices: Tensor) -> Observations: ...

    def split(self, number: int) -> Sequence[Observations]:
        """Cut it into adjoining parts, as `torch.Tensor.tensor_split` does."""
        ...


class Optimizer(Protocol):
    """Changes a policy's parameters."""

    def step(self, gradient: Tensor) -> None:
        """Change them by their gradient: that of all parameters, flattened and concatenated."""
        ...


@dataclass(frozen=True)
class Batch:
    """Experience to learn from, in order of step and then agent.

    Attributes:
        observations: in the form that the policy reads.
        actions: int64 [batch], or [batch, ...] in the form that the policy returns.
        log_probs: float32 [batch], of the actions under the policy that chose them.
        values: float32 [batch], as estimated when the action was chosen.
        advantages: float32 [batch].
        returns: float32 [batch], the targets of the values.
    """

    observations: Observations
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def select(self, indices: Tensor) -> Batch:
        return Batch(
            self.observations.select(indices),
            self.actions[indices],
            self.log_probs[indices],
            self.values[indices],
            self.advantages[indices],
            self.returns[indices],
        )

    def split(self, number: int) -> list[Batch]:
        """Cut it into adjoining parts whose sizes differ by at most one."""
        tensors = (self.actions, self.log_probs, self.values, self.advantages, self.returns)
        parts = zip(*(tensor.tensor_split(number) for tensor in tensors), strict=True)
        return [Batch(seen, *part) for seen, part in zip(self.observations.split(number), parts, strict=True)]


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


def normalized_advantages(minibatches: Sequence[Tensor], ranks: Ranks) -> list[Tensor]:
    """Advantage normalisation over each minibatch with the parts of all ranks, in one collective."""
    moments = [torch.stack([part.mean(), part.square().mean()]) for part in (each.double() for each in minibatches)]
    means, squares = ranks.average(torch.stack(moments)).unbind(dim=1)
    deviations = (squares - means.square()).clamp(min=0).sqrt()
    return [
        ((advantages - mean) / (deviation + 1e-8)).float()
        for advantages, mean, deviation in zip(minibatches, means, deviations, strict=True)
    ]


@torch.no_grad()
def ppo_loss(
    log_probs: Tensor, entropies: Tensor, values: Tensor, batch: Batch, config: PPOConfig
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The loss of a minibatch whose advantages are normalised.

    Its derivatives are written out, because autograd would take as long for its many small operations on a CPU as for
    the network.

    Args:
        log_probs: [batch], of the actions in the batch under the current policy.
        entropies: [batch], of the current policy's distributions over actions.
        values: [batch], as currently estimated.
        batch: the experience.
        config: clips and weights.

    Returns:
        the derivatives of the loss with respect to `log_probs`, `entropies` and `values`, and measures to monitor.
    """
    size = len(batch)
    log_ratio = log_probs - batch.log_probs
    ratio = log_ratio.exp()

    # Clipped surrogate objective (equation 7), to be maximised. d ratio / d log_probs = ratio.
    surrogate = ratio * batch.advantages
    clipped_surrogate = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef) * batch.advantages
    policy_loss = -torch.min(surrogate, clipped_surrogate).mean()
    policy_slope = torch.where(surrogate <= clipped_surrogate, surrogate, 0.0) / -size

    # Clipped value loss: a value that moved further than the clip gains nothing by moving further.
    error = values - batch.returns
    clipped_values = batch.values + (values - batch.values).clamp(-config.clip_coef, config.clip_coef)
    square, clipped_square = error.square(), (clipped_values - batch.returns).square()
    value_loss = 0.5 * torch.max(square, clipped_square).mean()
    value_slope = torch.where(square >= clipped_square, error, 0.0) * (config.vf_coef / size)

    # Entropy bonus (equation 9).
    entropy = entropies.mean()
    entropy_slope = torch.full_like(entropies, -config.ent_coef / size)

    measures = {
        "loss": policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": ((ratio - 1) - log_ratio).mean(),
        "clip_fraction": ((ratio - 1).abs() > config.clip_coef).float().mean(),
    }
    return [policy_slope, entropy_slope, value_slope], measures


def update(
    policy: ActorCritic,
    optimizer: Optimizer,
    batch: Batch,
    config: PPOConfig,
    num_minibatches: int,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Learn from a batch: `config.update_epochs` passes in shuffled minibatches, whose sizes differ by at most one.

    Args:
        batch: this rank's part of the batch; all parts have equal weight, even if their sizes differ a little.
        generator: shuffles this rank's part.
        ranks: the ranks that learn together. Each contributes a part to every minibatch.

    Returns:
        the mean over all minibatches of what `ppo_loss` measures, of ``grad_norm`` (before clipping), and
        ``explained_variance`` of the returns by the values.

    Raises:
        TrainingDiverged: a loss or gradient is not finite. The policy stays as it was before that minibatch.
    """
    parameters = list(policy.parameters())
    totals: dict[str, float] = {}
    for _ in range(config.update_epochs):
        shuffled = batch.select(torch.randperm(len(batch), generator=generator).to(batch.actions.device))
        minibatches = shuffled.split(num_minibatches)
        advantages = normalized_advantages([minibatch.advantages for minibatch in minibatches], ranks)
        for minibatch, normalized in zip(minibatches, advantages, strict=True):
            evaluated = policy.evaluate(minibatch.observations, minibatch.actions)
            slopes, measures = ppo_loss(*evaluated, replace(minibatch, advantages=normalized), config)
            # The gradient of a sum, because given several derivatives autograd imports sympy, which takes seconds.
            products = [output @ slope for output, slope in zip(evaluated, slopes, strict=True)]
            gradients = torch.autograd.grad(torch.stack(products).sum(), parameters)
            averaged = ranks.average(torch.cat([part.flatten() for part in (*gradients, *measures.values())]))
            gradient, measured = averaged[: -len(measures)], averaged[-len(measures) :]
            grad_norm = gradient.norm()
            gradient *= (config.max_grad_norm / (grad_norm + 1e-6)).clamp(max=1)
            values = {**dict(zip(measures, measured.tolist(), strict=True)), "grad_norm": float(grad_norm)}
            _require_finite(values)
            optimizer.step(gradient)
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value
    means = {name: total / (config.update_epochs * num_minibatches) for name, total in totals.items()}
    return means | {"explained_variance": _explained_variance(batch, ranks)}


def _explained_variance(batch: Batch, ranks: Ranks) -> float:
    """The fraction of the variance of the returns that the values predict."""
    samples = torch.stack([batch.returns, batch.returns - batch.values]).double()
    means, squares = ranks.average(torch.stack([samples.mean(dim=1), samples.square().mean(dim=1)]))
    variance, unexplained = (squares - means.square()).tolist()
    return 1 - unexplained / variance if variance > 0 else 0.0


def _require_finite(measures: dict[str, float]) -> None:
    wrong = [f"{name} is {value}" for name, value in measures.items() if not np.isfinite(value)]
    if wrong:
        raise TrainingDiverged(f"training diverged: {', '.join(wrong)}; a lower learning rate may help")
