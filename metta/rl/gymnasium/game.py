"""An environment of Gymnasium or PettingZoo as a game to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.common.errors import UserError
from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.gymnasium.environments import EnvironmentArrays, GymnasiumEnvironments, spec_of, worthwhile_workers
from metta.rl.gymnasium.policy import CLIP, FlatObservations, GymnasiumPolicy, Moments
from metta.rl.memory import Sequences, begins_after
from metta.rl.policy import policy_class
from metta.rl.ppo import Batch, generalized_advantages
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import Stopwatch
from metta.rl.trainer_config import PolicyConfig, PPOConfig

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class GymnasiumGame:
    """See `metta.rl.game.Game`."""

    def __init__(self, config: GymnasiumConfig) -> None:
        self._config = config
        self.spec = spec_of(config)

    def uses_all_cores(self, policy: PolicyConfig) -> bool:
        return False

    def worthwhile_workers(self, num_environments: int, cores: int) -> int:
        return worthwhile_workers(self._config, num_environments, cores) if cores > 1 else 0

    def make_policy(self, config: PolicyConfig) -> GymnasiumPolicy:
        if config.memory != "none" and self._config.is_parallel:
            raise UserError(
                f"trainer.policy.memory={config.memory}: {self._config.env_id} is PettingZoo's, whose agents may "
                "leave an episode early; policies with memory can play environments of Gymnasium and mettagrid"
            )
        made = policy_class(config, GymnasiumPolicy)
        return made(self.spec, config.hidden_size, self._config.normalize_observations, config.memory)

    @contextmanager
    def collector(
        self,
        policy: GymnasiumPolicy,
        num_environments: int,
        horizon: int,
        num_workers: int,
        seed: Sequence[int],
        ranks: Ranks,
        stopwatch: Stopwatch,
        first_batch: int = 0,
    ) -> Iterator[GymnasiumCollector]:
        seed = [*seed, first_batch]  # a resumed run plays other episodes
        with GymnasiumEnvironments(self._config, ranks.part(num_environments), seed, num_workers) as environments:
            yield GymnasiumCollector(environments, horizon, self._config.normalize_rewards, seed, ranks, stopwatch)


class GymnasiumCollector:
    """Plays `horizon` steps in every environment per batch. Each batch continues where the last one stopped. Steps of
    agents that did not act are not in the batch.

    The statistics that normalise observations change between batches only, so that within a batch the policy that
    learns is the one that played.

    Attributes:
        reward_per_step: see `metta.rl.game.Collector`.
        at_reset: never, because environments of Gymnasium have their own random numbers, which checkpoints lack.
    """

    at_reset = False

    def __init__(
        self,
        environments: GymnasiumEnvironments,
        horizon: int,
        normalize_rewards: bool,
        seed: Sequence[int],
        ranks: Ranks,
        stopwatch: Stopwatch,
    ) -> None:
        self._environments = environments
        self._horizon = horizon
        self._normalize_rewards = normalize_rewards
        self._ranks = ranks
        self._stopwatch = stopwatch
        self._action_seed = int(np.random.SeedSequence([*seed, ranks.rank]).generate_state(1)[0])
        self._generator: torch.Generator | None = None
        self._discounted_returns = np.zeros(environments.shape)
        self._last_observations: Tensor | None = None
        self._states: Tensor | None = None
        self.reward_per_step = 0.0

    @torch.no_grad()
    def collect(self, policy: GymnasiumPolicy, config: PPOConfig) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and estimate the advantage of every action; see `metta.rl.game.Collector`."""
        if self._generator is None:
            self._generator = torch.Generator(policy.device).manual_seed(self._action_seed)
        if self._last_observations is not None:
            _merge(policy.observed, self._last_observations, self._ranks)
        if self._states is None:
            self._states = torch.zeros(self._discounted_returns.size, policy.state_size, device=policy.device)
        states_before = self._states.clone()
        trajectory = _Trajectory.allocate(self._horizon, self._environments.shape)
        episodes = self._play(trajectory, policy, self._generator, self._states)

        rewards, ended, acted = trajectory.rewards, trajectory.terminals | trajectory.truncations, trajectory.acted
        self.reward_per_step = float(rewards[acted].mean())
        if self._normalize_rewards:
            rewards = self._scaled(rewards, ended, acted, policy.returns, config.gamma)
        advantages = generalized_advantages(
            rewards,
            trajectory.values[:-1],
            trajectory.next_values(),
            ended,
            config.gamma,
            config.gae_lambda,
        )
        self._last_observations = _rows(trajectory.observations, acted)
        batch = trajectory.batch(self._last_observations, advantages, acted)
        if policy.state_size:
            batch = _in_sequences(batch, ended, states_before)
        return batch, episodes

    def _play(
        self, trajectory: _Trajectory, policy: GymnasiumPolicy, generator: torch.Generator, states: Tensor
    ) -> list[dict[str, float]]:
        """Play, and return the stats of the episodes that ended.

        Args:
            trajectory: to record.
            policy: which plays.
            generator: draws the actions.
            states: the policy's memory of each agent, [environments * agents, state size]; it is updated.
        """
        environments, arrays, agents = self._environments, self._environments.arrays, self._environments.shape
        episodes: list[dict[str, float]] = []
        for step in range(self._horizon + 1):
            observations = _tensor(arrays.observations, policy.device)
            last = step == self._horizon  # only the value of its state is needed
            heads, values = policy(observations, states.clone() if last else states)
            trajectory.values[step] = values.view(agents).cpu().numpy()
            if last:
                break
            actions = policy.sample(heads, generator)
            trajectory.observations.append(observations)
            trajectory.actions.append(actions)
            trajectory.log_probs.append(policy.log_probs(heads, actions))
            with self._stopwatch.measure("stepping"):
                ended = environments.step(actions.view(*agents, -1).cpu().numpy())
            trajectory.record(step, arrays)
            for index, stats in ended.items():
                episodes.append(stats)
                remembered = states[index * agents[1] : (index + 1) * agents[1]]
                if arrays.truncations[index].any():
                    final = _tensor(arrays.final_observations[index], policy.device)
                    trajectory.final_values[step, index] = policy(final, remembered)[1].cpu().numpy()
                remembered.zero_()
        return episodes

    def _scaled(self, rewards: Floats, ended: Bools, acted: Bools, returns: Moments, gamma: float) -> Floats:
        """Reward scaling (Engstrom et al. 2020, arXiv 2005.12729, section 3): by the deviation of discounted sums."""
        sums = np.zeros(rewards.shape)
        for step, reward in enumerate(rewards):
            self._discounted_returns = self._discounted_returns * gamma + reward
            sums[step] = self._discounted_returns
            self._discounted_returns[ended[step]] = 0.0
        _merge(returns, torch.from_numpy(sums[acted])[:, None].to(returns.mean.device), self._ranks)
        deviation = float((returns.variance + 1e-8).sqrt())
        return np.asarray(np.clip(rewards / deviation, -CLIP, CLIP), dtype=np.float32)


@dataclass(frozen=True)
class _Trajectory:
    """The experience of one batch, [steps, environments, agents] unless stated otherwise.

    Attributes:
        values: V of the state at each step, and of the one after the last: [steps + 1, ...].
        rewards, terminals, truncations, acted: the outcomes of the actions.
        final_values: V [agents] of the last state of a truncated episode, by step and environment.
        observations, actions, log_probs: [environments * agents, ...] at each step.
    """

    values: Floats
    rewards: Floats
    terminals: Bools
    truncations: Bools
    acted: Bools
    final_values: dict[tuple[int, int], Floats] = field(default_factory=dict)
    observations: list[Tensor] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)

    @classmethod
    def allocate(cls, horizon: int, agents: tuple[int, int]) -> _Trajectory:
        shape = (horizon, *agents)
        return cls(
            values=np.zeros((horizon + 1, *agents), dtype=np.float32),
            rewards=np.zeros(shape, dtype=np.float32),
            terminals=np.zeros(shape, dtype=np.bool_),
            truncations=np.zeros(shape, dtype=np.bool_),
            acted=np.zeros(shape, dtype=np.bool_),
        )

    def record(self, step: int, arrays: EnvironmentArrays) -> None:
        """Record the outcome of the actions of a step."""
        self.rewards[step] = arrays.rewards
        self.terminals[step] = arrays.terminals
        self.truncations[step] = arrays.truncations
        self.acted[step] = arrays.acted

    def next_values(self) -> Floats:
        """V of the state that each action led to, before the next episode begins; 0 where the game was over."""
        next_values = self.values[1:].copy()
        for index, final_values in self.final_values.items():
            next_values[index] = final_values
        return np.where(self.terminals, np.float32(0), next_values)

    def batch(self, observations: Tensor, advantages: Floats, acted: Bools) -> Batch:
        """The batch to learn from, on the policy's device: the steps of agents that acted, with these observations."""
        device = self.actions[0].device
        return Batch(
            observations=FlatObservations(observations),
            actions=_rows(self.actions, acted),
            log_probs=_rows(self.log_probs, acted),
            values=torch.from_numpy(self.values[:-1][acted]).to(device),
            advantages=torch.from_numpy(advantages[acted]).to(device),
            returns=torch.from_numpy((advantages + self.values[:-1])[acted]).to(device),
        )


def _in_sequences(batch: Batch, ended: Bools, states: Tensor) -> Batch:
    """A batch of all steps, by step, as one of sequences: by agent, then step."""
    steps = len(ended)
    order = torch.arange(ended.size).view(steps, -1).T.flatten()
    begins = torch.from_numpy(begins_after(ended)).view(steps, -1).T.to(states.device)
    ordered = batch.select(order)
    return replace(ordered, observations=Sequences(ordered.observations, begins, states), segment=steps)


def _rows(steps: list[Tensor], acted: Bools) -> Tensor:
    """The rows of agents that acted, out of [environments * agents, ...] at each step."""
    return torch.cat(steps)[torch.from_numpy(np.flatnonzero(acted)).to(steps[0].device)]


def _tensor(observations: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy [environments * agents, size], because the environments overwrite their array."""
    return torch.from_numpy(observations.reshape(-1, observations.shape[-1]).copy()).to(device)


def _merge(moments: Moments, samples: Tensor, ranks: Ranks) -> None:
    """Merge the samples [n, size] of all ranks into running statistics."""
    samples = samples.double()
    count = torch.full((1,), float(len(samples)), dtype=torch.float64, device=samples.device)
    sums = ranks.average(torch.cat([samples.sum(dim=0), samples.square().sum(dim=0), count]))
    total, squares, count = torch.split(sums, [samples.shape[1], samples.shape[1], 1])
    moments.merge(total / count, squares / count, float(count) * ranks.size)
