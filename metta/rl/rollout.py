"""Playing mettagrid with the current policy to collect a batch of experience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.kernel.network import KernelNetwork
from metta.rl.memory import Sequences, begins_after
from metta.rl.policy import Actor, Policy, actor_of
from metta.rl.ppo import Batch, generalized_advantages
from metta.rl.stopwatch import Stopwatch
from metta.rl.tokens import TokenBatch, Vocabulary, to_device
from metta.rl.trainer_config import PPOConfig
from metta.rl.vector_environment import VectorEnvironment


class MettagridCollector:
    """Plays `horizon` steps in every environment per batch. Each batch continues where the last one stopped.

    Actions are drawn from a stream of random numbers for each environment and batch, so that they do not depend on the
    ranks and workers that the environments are divided among, nor on where a run was resumed.

    Args:
        environments: of this rank.
        vocabulary: of the environments.
        horizon: steps of each environment per batch.
        seeds: fixes the actions in each environment.
        stopwatch: measures how long the environments step.
        first_batch: batches that were collected before, by the run that this one continues.
    """

    def __init__(
        self,
        environments: VectorEnvironment,
        vocabulary: Vocabulary,
        horizon: int,
        seeds: Sequence[Sequence[int]],
        stopwatch: Stopwatch,
        first_batch: int = 0,
    ) -> None:
        self._environments = environments
        self._vocabulary = vocabulary
        self._horizon = horizon
        self._stopwatch = stopwatch
        self._seeds = seeds
        self._batch = first_batch
        self._states: Tensor | None = None
        self.reward_per_step = 0.0
        self.at_reset = False

    @torch.no_grad()
    def collect(self, policy: Policy, config: PPOConfig) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and estimate the advantage of every action; see `metta.rl.game.Collector`."""
        actor = actor_of(policy)
        environments, arrays = self._environments, self._environments.arrays
        shape = (self._horizon, environments.num_environments, environments.spec.num_agents)
        trajectory = _Trajectory.allocate(shape, policy.device)
        states = self._remembered(policy)
        states_before = states.clone()
        uniforms = to_device(self._uniforms(), policy.device)
        episodes: list[dict[str, float]] = []

        for step in range(self._horizon + 1):
            for group in environments.groups:
                with self._stopwatch.measure("stepping"):
                    episodes += environments.receive(group)
                observed = self._encode(arrays.observations[group], policy.device)
                if step > 0:
                    self._record_outcome(trajectory, step - 1, group, actor, states)
                remembered = states[group].flatten(0, 1)
                if step == self._horizon:  # only the value of the state after the last action is needed
                    trajectory.values[step, group] = actor.values(observed, remembered).view(-1, shape[2])
                    continue
                actions, log_probs, values = actor.act(observed, uniforms[step, group].flatten(), remembered)
                arrays.actions[group] = actions.cpu().numpy().reshape(-1, shape[2])
                with self._stopwatch.measure("stepping"):
                    environments.send(group)  # the remaining work is done while workers step
                trajectory.tokens.append(observed)
                trajectory.actions[step, group] = actions.view(-1, shape[2])
                trajectory.log_probs[step, group] = log_probs.view(-1, shape[2])
                trajectory.values[step, group] = values.view(-1, shape[2])

        self._batch += 1
        self.reward_per_step = float(trajectory.rewards.mean())
        self.at_reset = bool(trajectory.ended[-1].all())
        return trajectory.batch(config, states_before), episodes

    def _remembered(self, policy: Policy) -> Tensor:
        """The policy's memory of each agent, [environments, agents, state size]; empty when a run begins."""
        if self._states is None:
            shape = (self._environments.num_environments, self._environments.spec.num_agents, policy.state_size)
            self._states = torch.zeros(shape, device=policy.device)
        return self._states

    def _uniforms(self) -> Tensor:
        """Random numbers in [0, 1) for the next batch: [steps, environments, agents]."""
        shape = (self._horizon, self._environments.spec.num_agents)
        generators = [np.random.default_rng([*seed, self._batch]) for seed in self._seeds]
        drawn = [generator.random(shape, dtype=np.float32) for generator in generators]
        return torch.from_numpy(np.stack(drawn, axis=1))

    def _record_outcome(
        self, trajectory: _Trajectory, step: int, group: slice, actor: Actor | KernelNetwork, states: Tensor
    ) -> None:
        """Record the outcome of the actions of a step, with the value of the last state if an episode was truncated.

        Where an episode ended, the policy forgets it.
        """
        arrays = self._environments.arrays
        trajectory.rewards[step, group] = arrays.rewards[group]
        trajectory.terminals[step, group] = arrays.terminals[group]
        trajectory.truncations[step, group] = arrays.truncations[group]
        for truncated in group.start + np.flatnonzero(arrays.truncations[group].any(axis=1)):
            final = self._encode(arrays.final_observations[truncated], trajectory.values.device)
            trajectory.final_values[step, truncated] = actor.values(final, states[truncated])
        ended = trajectory.ended[step, group]
        if ended.any():
            states[group][torch.from_numpy(ended)] = 0.0

    def _encode(self, observations: npt.NDArray[np.uint8], device: torch.device) -> TokenBatch:
        return self._vocabulary.encode(observations.reshape(-1, *observations.shape[-2:])).to(device)


@dataclass(frozen=True)
class _Trajectory:
    """The experience of one batch, [steps, environments, agents] each.

    Attributes:
        actions, log_probs: of the policy.
        values: V of the state at each step, and of the one after the last: [steps + 1, ...].
        final_values: V of the last state of an episode that was truncated at this step, else 0.
        rewards, terminals, truncations: the outcome of the actions.
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

    @property
    def ended(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.terminals | self.truncations)

    def batch(self, config: PPOConfig, states: Tensor) -> Batch:
        """The batch to learn from, on the policy's device, with advantages by GAE.

        Args:
            config: of the advantages.
            states: the policy's memory before the first step, [environments, agents, state size].
        """
        device = self.values.device
        values = self.values.cpu().numpy()
        next_values = np.where(self.truncations, self.final_values.cpu().numpy(), values[1:])
        advantages = generalized_advantages(
            self.rewards,
            values[:-1],
            np.where(self.terminals, np.float32(0), next_values),
            self.ended,
            config.gamma,
            config.gae_lambda,
        )
        remembers = states.shape[-1] > 0

        def ordered(values: Tensor) -> Tensor:
            """Flatten [steps, environments, agents] into the order of a batch."""
            return values.permute((1, 2, 0) if remembers else (1, 0, 2)).flatten()

        indices = torch.arange(advantages.size).view(advantages.shape)
        tokens = TokenBatch.concatenate(self.tokens).select(ordered(indices))
        return Batch(
            observations=self._sequences(tokens, states) if remembers else tokens,
            actions=ordered(self.actions),
            log_probs=ordered(self.log_probs),
            values=ordered(self.values[:-1]),
            advantages=to_device(ordered(torch.from_numpy(advantages)), device),
            returns=to_device(ordered(torch.from_numpy(advantages + values[:-1])), device),
            segment=len(self.rewards) if remembers else 1,
        )

    def _sequences(self, tokens: TokenBatch, states: Tensor) -> Sequences:
        begins = torch.from_numpy(begins_after(self.ended))
        return Sequences(tokens, to_device(begins.permute(1, 2, 0).flatten(0, 1), states.device), states.flatten(0, 1))
