"""A straightforward PPO: one process, observations as images, a convolution over them.

The trainer's speed is compared with it, so it takes the same steps of the same game and makes as many passes over
them. Its picture has one channel for each tag and one for each other feature.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from torch import Tensor, nn
from torch.distributions import Categorical

from metta.rl.environment import EMPTY, GLOBAL_LOCATION, Buffers, Environment, EnvironmentSpec
from metta.rl.trainer_config import TrainerConfig, round_batch


class DensePolicy(nn.Module):
    """A small convolutional actor and critic."""

    def __init__(self, spec: EnvironmentSpec, hidden_size: int) -> None:
        super().__init__()
        height, width = spec.view
        self.trunk = nn.Sequential(
            nn.Conv2d(num_channels(spec), 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height - 4) * (width - 4), hidden_size),
            nn.ReLU(),
        )
        self.actor = nn.Linear(hidden_size, len(spec.actions))
        self.critic = nn.Linear(hidden_size, 1)

    def forward(self, pictures: Tensor) -> tuple[Categorical, Tensor]:
        features = self.trunk(pictures)
        return Categorical(logits=self.actor(features)), self.critic(features).squeeze(-1)


def num_channels(spec: EnvironmentSpec) -> int:
    return len(spec.tags) + len(spec.features)


def picture(observations: npt.NDArray[np.uint8], spec: EnvironmentSpec) -> Tensor:
    """Draw tokens (uint8 [agents, tokens, 3]) as float32 [agents, channels, height, width]; global ones everywhere."""
    height, width = spec.view
    drawn = np.zeros((len(observations), num_channels(spec), height, width), dtype=np.float32)
    agents, tokens = np.nonzero(observations[:, :, 0] != EMPTY)
    locations, features, values = observations[agents, tokens].T.astype(np.int64)
    is_tag = features == spec.features.index("tag")
    channels = np.where(is_tag, values, len(spec.tags) + features)
    amounts = np.where(is_tag, 1, values / 10).astype(np.float32)
    placed = locations != GLOBAL_LOCATION
    drawn[agents[placed], channels[placed], locations[placed] >> 4, locations[placed] & 15] = amounts[placed]
    drawn[agents[~placed], channels[~placed]] = amounts[~placed, None, None]
    return torch.from_numpy(drawn)


def train_dense(config: TrainerConfig, env: MettaGridConfig, updates: int) -> float:
    """Train for some updates and return agent steps per second."""
    spec = EnvironmentSpec.of(env)
    num_environments, horizon = round_batch(config.batch_size, spec.num_agents, config.num_environments)
    num_agents = num_environments * spec.num_agents
    policy = DensePolicy(spec, config.policy.hidden_size)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.optimizer.learning_rate, eps=config.optimizer.eps)
    environments = [Environment(env, Buffers.allocate(spec)) for _ in range(num_environments)]
    for seed, environment in enumerate(environments):
        environment.reset(seed)

    def observe() -> Tensor:
        return picture(np.concatenate([environment.buffers.observations for environment in environments]), spec)

    started = time.perf_counter()
    for _ in range(updates):
        pictures: list[Tensor] = []
        actions, log_probs = torch.zeros(horizon, num_agents), torch.zeros(horizon, num_agents)
        rewards, ended = torch.zeros(horizon, num_agents), torch.zeros(horizon, num_agents)
        values = torch.zeros(horizon + 1, num_agents)
        with torch.no_grad():
            for step in range(horizon):
                pictures.append(observe())
                distribution, values[step] = policy(pictures[-1])
                actions[step] = distribution.sample()
                log_probs[step] = distribution.log_prob(actions[step])
                for index, environment in enumerate(environments):
                    agents = slice(index * spec.num_agents, (index + 1) * spec.num_agents)
                    environment.buffers.actions[:] = actions[step, agents].numpy()
                    environment.step()
                    rewards[step, agents] = torch.from_numpy(environment.buffers.rewards.copy())
                    ended[step, agents] = float(environment.done)
                    if environment.done:
                        environment.reset(step)
            values[horizon] = policy(observe())[1]
            advantages, following = torch.zeros(horizon, num_agents), torch.zeros(num_agents)
            for step in reversed(range(horizon)):
                going_on = 1 - ended[step]
                delta = rewards[step] + config.ppo.gamma * values[step + 1] * going_on - values[step]
                following = delta + config.ppo.gamma * config.ppo.gae_lambda * going_on * following
                advantages[step] = following
        seen, done, before = torch.cat(pictures), actions.flatten(), log_probs.flatten()
        gain, target = advantages.flatten(), (advantages + values[:-1]).flatten()
        for _ in range(config.ppo.update_epochs):
            for chosen in torch.split(torch.randperm(len(seen)), config.minibatch_size):
                distribution, value = policy(seen[chosen])
                ratio = (distribution.log_prob(done[chosen]) - before[chosen]).exp()
                advantage = (gain[chosen] - gain[chosen].mean()) / (gain[chosen].std() + 1e-8)
                clipped = ratio.clamp(1 - config.ppo.clip_coef, 1 + config.ppo.clip_coef)
                loss = -torch.min(ratio * advantage, clipped * advantage).mean()
                loss = loss + config.ppo.vf_coef * 0.5 * (value - target[chosen]).square().mean()
                loss = loss - config.ppo.ent_coef * distribution.entropy().mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(policy.parameters(), config.ppo.max_grad_norm)
                optimizer.step()
    return updates * horizon * num_agents / (time.perf_counter() - started)
