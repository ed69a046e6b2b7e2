"""An environment of Gymnasium or PettingZoo as a game to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.gymnasium.environments import GymnasiumEnvironments, VectorStep, make_environment
from metta.rl.gymnasium.policy import CLIP, FlatObservations, GymnasiumPolicy, Moments
from metta.rl.gymnasium.spaces import GymnasiumSpec
from metta.rl.ppo import Batch, generalized_advantages
from metta.rl.ranks import Ranks
from metta.rl.trainer_config import PPOConfig


class GymnasiumGame:
    """See `metta.rl.game.Game`. Environments step in the process of their rank."""

    def __init__(self, config: GymnasiumConfig) -> None:
        self._config = config
        self.spec = spec_of(config)

    def make_policy(self, hidden_size: int) -> GymnasiumPolicy:
        return GymnasiumPolicy(self.spec, hidden_size, self._config.normalize_observations)

    @contextmanager
    def player(
        self, num_environments: int, horizon: int, num_workers: int, seed: Sequence[int], ranks: Ranks
    ) -> Iterator[GymnasiumCollector]:
        environments = GymnasiumEnvironments(self._config, ranks.part(num_environments), seed)
        try:
            yield GymnasiumCollector(environments, horizon, self._config.normalize_rewards, ranks)
        finally:
            environments.close()


def spec_of(config: GymnasiumConfig) -> GymnasiumSpec:
    """What a policy needs to know of an environment.

    Raises:
        UserError: there is no such environment, or no policy here can play it.
    """
    environment = make_environment(config)
    environment.close()
    return environment.spec


class GymnasiumCollector:
    """Plays `horizon` steps in every environment at a time, going on where the last batch stopped. Only the steps of
    agents that acted make the batch.

    The statistics by which observations are normalised change between batches only, so that within one the policy that
    learns is the one that played.
    """

    def __init__(
        self, environments: GymnasiumEnvironments, horizon: int, normalize_rewards: bool, ranks: Ranks
    ) -> None:
        self._environments = environments
        self._horizon = horizon
        self._normalize_rewards = normalize_rewards
        self._ranks = ranks
        shape = environments.observations.shape[:2]
        self._discounted = np.zeros(shape)
        self._seen: Tensor | None = None
        self.reward_per_step = 0.0

    @torch.no_grad()
    def collect(
        self, policy: GymnasiumPolicy, config: PPOConfig, generator: torch.Generator
    ) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and judge what was done by generalised advantage estimation; see `metta.rl.game.Player`."""
        if self._seen is not None:
            _merge(policy.observed, self._seen, self._ranks)
        device, environments = policy.device, self._environments
        agents = environments.observations.shape[:2]
        observed: list[Tensor] = []
        actions: list[Tensor] = []
        log_probs: list[Tensor] = []
        values = np.zeros((self._horizon + 1, *agents), dtype=np.float32)
        final_values: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
        steps: list[VectorStep] = []

        for step in range(self._horizon + 1):
            observations = self._tensor(environments.observations, device)
            heads, value = policy(observations)
            values[step] = value.view(agents).cpu().numpy()
            if step == self._horizon:
                break
            action = policy.sample(heads, generator)
            observed.append(observations)
            actions.append(action)
            log_probs.append(policy.log_probs(heads, action))
            after = environments.step(action.view(*agents, -1).cpu().numpy())
            for index, final in after.final_observations.items():
                if after.truncations[index].any():
                    final_values[step, index] = policy(self._tensor(final[None], device))[1].cpu().numpy()
            steps.append(after)

        rewards = np.stack([each.rewards for each in steps])
        terminals = np.stack([each.terminals for each in steps])
        ended = terminals | np.stack([each.truncations for each in steps])
        acted = np.stack([each.acted for each in steps])
        rows = torch.from_numpy(np.flatnonzero(acted)).to(device)
        self._seen = torch.cat(observed)[rows]
        self.reward_per_step = float(rewards[acted].mean())
        if self._normalize_rewards:
            rewards = self._scaled(rewards, ended, acted, policy.returns, config.gamma)
        next_values = values[1:].copy()
        for place, final_value in final_values.items():
            next_values[place] = final_value
        advantages = generalized_advantages(
            rewards,
            values[:-1],
            np.where(terminals, np.float32(0), next_values),
            ended,
            config.gamma,
            config.gae_lambda,
        )
        batch = Batch(
            observations=FlatObservations(self._seen),
            actions=torch.cat(actions)[rows],
            log_probs=torch.cat(log_probs)[rows],
            values=torch.from_numpy(values[:-1][acted]).to(device),
            advantages=torch.from_numpy(advantages[acted]).to(device),
            returns=torch.from_numpy((advantages + values[:-1])[acted]).to(device),
        )
        return batch, [stats for each in steps for stats in each.episodes]

    def _scaled(
        self,
        rewards: npt.NDArray[np.float32],
        ended: npt.NDArray[np.bool_],
        acted: npt.NDArray[np.bool_],
        returns: Moments,
        gamma: float,
    ) -> npt.NDArray[np.float32]:
        """Reward scaling (Engstrom et al. 2020, arXiv 2005.12729, section 3): by the deviation of discounted sums."""
        sums = np.zeros(rewards.shape)
        for step, reward in enumerate(rewards):
            self._discounted = self._discounted * gamma + reward
            sums[step] = self._discounted
            self._discounted[ended[step]] = 0.0
        _merge(returns, torch.from_numpy(sums[acted])[:, None].to(returns.mean.device), self._ranks)
        deviation = float((returns.variance + 1e-8).sqrt())
        return np.asarray(np.clip(rewards / deviation, -CLIP, CLIP), dtype=np.float32)

    @staticmethod
    def _tensor(observations: npt.NDArray[np.generic], device: torch.device) -> Tensor:
        """A copy [environments * agents, size], for the environments will write over the array."""
        return torch.from_numpy(observations.reshape(-1, observations.shape[-1]).copy()).to(device)


def _merge(moments: Moments, samples: Tensor, ranks: Ranks) -> None:
    """Take in the samples [n, size] of all ranks."""
    samples = samples.double()
    count = torch.full((1,), float(len(samples)), dtype=torch.float64, device=samples.device)
    sums = ranks.average(torch.cat([samples.sum(dim=0), samples.square().sum(dim=0), count]))
    total, squares, count = torch.split(sums, [samples.shape[1], samples.shape[1], 1])
    moments.merge(total / count, squares / count, float(count) * ranks.size)
