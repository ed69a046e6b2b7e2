"""Playing mettagrid with the current policy to collect a batch of experience."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from metta.rl.policy import Policy, sample
from metta.rl.ppo import Batch, generalized_advantages
from metta.rl.tokens import TokenBatch, Vocabulary
from metta.rl.trainer_config import PPOConfig
from metta.rl.vector_environment import VectorEnvironment


class MettagridCollector:
    """Plays `horizon` steps in every environment per batch. Each batch continues where the last one stopped."""

    def __init__(self, environments: VectorEnvironment, vocabulary: Vocabulary, horizon: int) -> None:
        self._environments = environments
        self._vocabulary = vocabulary
        self._horizon = horizon
        self.reward_per_step = 0.0

    @torch.no_grad()
    def collect(
        self, policy: Policy, config: PPOConfig, generator: torch.Generator
    ) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and estimate the advantage of every action; see `metta.rl.game.Collector`."""
        embeddings = policy.embeddings()
        environments, arrays = self._environments, self._environments.arrays
        shape = (self._horizon, environments.num_environments, environments.spec.num_agents)
        trajectory = _Trajectory.allocate(shape, policy.device)
        episodes: list[dict[str, float]] = []

        for step in range(self._horizon + 1):
            for group in environments.groups:
                episodes += environments.receive(group)
                if step > 0:
                    self._record_outcome(trajectory, step - 1, group, policy, embeddings)
                observed = self._encode(arrays.observations[group], policy.device)
                logits, values = policy(observed, embeddings)
                trajectory.values[step, group] = values.view(trajectory.values[step, group].shape)
                if step == self._horizon:  # only the value of the state after the last action is needed
                    continue
                actions = sample(logits, generator)
                group_shape = trajectory.actions[step, group].shape
                arrays.actions[group] = actions.view(group_shape).cpu().numpy()
                environments.send(group)  # the rest is computed while workers step
                trajectory.tokens.append(observed)
                trajectory.actions[step, group] = actions.view(group_shape)
                log_probs = functional.log_softmax(logits, dim=-1).gather(1, actions[:, None])
                trajectory.log_probs[step, group] = log_probs.view(group_shape)

        self.reward_per_step = float(trajectory.rewards.mean())
        return trajectory.batch(config), episodes

    def _record_outcome(
        self, trajectory: _Trajectory, step: int, group: slice, policy: Policy, embeddings: Tensor
    ) -> None:
        """Record what followed the actions of a step, with the value of the last state where an episode was cut off."""
        arrays = self._environments.arrays
        trajectory.rewards[step, group] = arrays.rewards[group]
        trajectory.terminals[step, group] = arrays.terminals[group]
        trajectory.truncations[step, group] = arrays.truncations[group]
        for truncated in group.start + np.flatnonzero(arrays.truncations[group].any(axis=1)):
            final = self._encode(arrays.final_observations[truncated], policy.device)
            _, trajectory.final_values[step, truncated] = policy(final, embeddings)

    def _encode(self, observations: npt.NDArray[np.uint8], device: torch.device) -> TokenBatch:
        return self._vocabulary.encode(observations.reshape(-1, *observations.shape[-2:])).to(device)


@dataclass(frozen=True)
class _Trajectory:
    """What happened in one batch, [steps, environments, agents] each.

    Attributes:
        actions, log_probs: of the policy.
        values: V of the state at each step, and of the one after the last: [steps + 1, ...].
        final_values: V of the last state of an episode that was truncated at this step, else 0.
        rewards, terminals, truncations: what followed the actions.
        tokens: the observations that the actions were chosen from, by step and then group.
    """

    actions: Tensor
    log_probs: Tensor
    values: Tensor
    final_values: Tensor
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    tokens: list[TokenBatch] = field(default_factory=list)

    @classmethod
    def allocate(cls, shape: tuple[int, int, int], device: torch.device) -> _Trajectory:
        steps, *agents = shape
        return cls(
            actions=torch.zeros(shape, dtype=torch.int64, device=device),
            log_probs=torch.zeros(shape, device=device),
            values=torch.zeros((steps + 1, *agents), device=device),
            final_values=torch.zeros(shape, device=device),
            rewards=np.zeros(shape, dtype=np.float32),
            terminals=np.zeros(shape, dtype=np.bool_),
            truncations=np.zeros(shape, dtype=np.bool_),
        )

    def batch(self, config: PPOConfig) -> Batch:
        """The batch to learn from, on the policy's device, with advantages by GAE."""
        device = self.values.device
        values = self.values.cpu().numpy()
        next_values = np.where(self.truncations, self.final_values.cpu().numpy(), values[1:])
        advantages = generalized_advantages(
            self.rewards,
            values[:-1],
            np.where(self.terminals, np.float32(0), next_values),
            self.terminals | self.truncations,
            config.gamma,
            config.gae_lambda,
        )
        return Batch(
            observations=TokenBatch.concatenate(self.tokens),
            actions=self.actions.flatten(),
            log_probs=self.log_probs.flatten(),
            values=self.values[:-1].flatten(),
            advantages=torch.from_numpy(advantages).to(device).flatten(),
            returns=torch.from_numpy(advantages + values[:-1]).to(device).flatten(),
        )
