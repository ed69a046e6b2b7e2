"""Playing with the current policy to gather a batch of experience."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from metta.rl.policy import Policy, sample
from metta.rl.ppo import Batch, generalized_advantages
from metta.rl.tokens import TokenBatch, Vocabulary
from metta.rl.trainer_config import PPOConfig
from metta.rl.vector_environment import VectorEnvironment


class Rollout:
    """Plays `horizon` steps in every environment at a time, going on where the last batch stopped."""

    def __init__(self, environments: VectorEnvironment, vocabulary: Vocabulary, horizon: int) -> None:
        self.environments = environments
        self.vocabulary = vocabulary
        self.horizon = horizon
        self.num_agents = environments.num_environments * environments.spec.num_agents
        self.batch_size = horizon * self.num_agents

    @torch.no_grad()
    def collect(
        self, policy: Policy, config: PPOConfig, generator: torch.Generator
    ) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and judge what was done by generalised advantage estimation.

        Returns:
            the batch, on the policy's device, and the stats of the episodes that ended meanwhile.
        """
        device = policy.device
        embeddings = policy.embeddings()
        environments, arrays = self.environments, self.environments.arrays
        shape = (self.horizon, environments.num_environments, environments.spec.num_agents)
        actions = torch.zeros(shape, dtype=torch.int64, device=device)
        log_probs = torch.zeros(shape, device=device)
        values = torch.zeros((self.horizon + 1, *shape[1:]), device=device)
        final_values = torch.zeros(shape, device=device)
        rewards = np.zeros(shape, dtype=np.float32)
        terminals = np.zeros(shape, dtype=np.bool_)
        truncations = np.zeros(shape, dtype=np.bool_)
        tokens: list[TokenBatch] = []
        episodes: list[dict[str, float]] = []

        for step in range(self.horizon + 1):
            for group in environments.groups:
                episodes += environments.receive(group)
                if step > 0:
                    rewards[step - 1, group] = arrays.rewards[group]
                    terminals[step - 1, group] = arrays.terminals[group]
                    truncations[step - 1, group] = arrays.truncations[group]
                    for cut in group.start + np.flatnonzero(arrays.truncations[group].any(axis=1)):
                        final = self._encode(arrays.final_observations[cut], device)
                        _, final_values[step - 1, cut] = policy(final, embeddings)
                observed = self._encode(arrays.observations[group], device)
                logits, value = policy(observed, embeddings)
                values[step, group] = value.view(values[step, group].shape)
                if step == self.horizon:
                    continue
                action = sample(logits, generator)
                arrays.actions[group] = action.view(actions[step, group].shape).cpu().numpy()
                environments.send(group)
                tokens.append(observed)
                actions[step, group] = action.view(actions[step, group].shape)
                log_probs[step, group] = (
                    functional.log_softmax(logits, dim=-1).gather(1, action[:, None]).view(actions[step, group].shape)
                )

        known_values = values.cpu().numpy()
        next_values = np.where(truncations, final_values.cpu().numpy(), known_values[1:])
        advantages = generalized_advantages(
            rewards,
            known_values[:-1],
            np.where(terminals, np.float32(0), next_values),
            terminals | truncations,
            config.gamma,
            config.gae_lambda,
        )
        batch = Batch(
            observations=TokenBatch.concatenate(tokens),
            actions=actions.flatten(),
            log_probs=log_probs.flatten(),
            values=values[:-1].flatten(),
            advantages=torch.from_numpy(advantages).to(device).flatten(),
            returns=torch.from_numpy(advantages + known_values[:-1]).to(device).flatten(),
        )
        self.reward_per_step = float(rewards.mean())
        return batch, episodes

    def _encode(self, observations: npt.NDArray[np.uint8], device: torch.device) -> TokenBatch:
        return self.vocabulary.encode(observations.reshape(-1, *observations.shape[-2:])).to(device)
