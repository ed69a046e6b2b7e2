"""Train on any environment of Gymnasium, or parallel environment of PettingZoo, and evaluate the policy."""

from __future__ import annotations

import re
from typing import Any

from metta.rl.gymnasium.config import GymnasiumConfig, GymnasiumSimulation
from metta.rl.trainer_config import OptimizerConfig, PolicyConfig, PPOConfig, TrainerConfig
from metta.tools.gymnasium import GymnasiumSimTool, GymnasiumTool


def trainer_for(env_id: str) -> TrainerConfig:
    """Hyperparameters that work well in a known environment, or reasonable defaults for any other.

    docs/recipes.md says how those of Pendulum were found.
    """
    if env_id == "CartPole-v1":
        return TrainerConfig(
            total_timesteps=50_000,
            batch_size=256,
            minibatch_size=64,
            num_environments=8,
            anneal_learning_rate=True,
            optimizer=OptimizerConfig(learning_rate=2.5e-3),
            ppo=PPOConfig(gamma=0.98, gae_lambda=0.8, ent_coef=0.0, update_epochs=10),
            policy=PolicyConfig(hidden_size=64),
        )
    if env_id.startswith(("LunarLander-", "LunarLanderContinuous-")):
        return TrainerConfig(
            total_timesteps=1_000_000,
            batch_size=8_192,
            minibatch_size=256,
            num_environments=16,
            anneal_learning_rate=True,
            optimizer=OptimizerConfig(learning_rate=1e-3),
            ppo=PPOConfig(gamma=0.999, gae_lambda=0.98, ent_coef=0.01, update_epochs=4),
            policy=PolicyConfig(hidden_size=64),
        )
    if env_id.startswith("Pendulum-"):
        return TrainerConfig(
            total_timesteps=102_400,
            batch_size=2_048,
            minibatch_size=256,
            num_environments=8,
            anneal_learning_rate=True,
            optimizer=OptimizerConfig(learning_rate=7.4e-4),
            ppo=PPOConfig(clip_coef=0.277, gamma=0.9989, gae_lambda=0.918, ent_coef=5.2e-4, update_epochs=19),
            policy=PolicyConfig(hidden_size=64),
        )
    return TrainerConfig(
        total_timesteps=1_000_000,
        batch_size=2_048,
        minibatch_size=256,
        num_environments=8,
        anneal_learning_rate=True,
        optimizer=OptimizerConfig(learning_rate=3e-4),
        ppo=PPOConfig(gamma=0.99, gae_lambda=0.95, ent_coef=0.0, update_epochs=10),
        policy=PolicyConfig(hidden_size=64),
    )


def train(
    env_id: str = "CartPole-v1",
    run_name: str | None = None,
    options: dict[str, Any] | None = None,
    frame_stack: int = 1,
    grayscale: bool = False,
) -> GymnasiumTool:
    """Train on an environment and evaluate.

    Args:
        env_id: see `GymnasiumConfig`.
        run_name: name of the run; by default that of the environment.
        options: keyword arguments for the environment's constructor.
        frame_stack: observations that the policy sees at once.
        grayscale: convert images to shades of grey.
    """
    env = GymnasiumConfig(env_id=env_id, options=options or {}, frame_stack=frame_stack, grayscale=grayscale)
    return GymnasiumTool(
        run_name=run_name or re.sub(r"[^\w.-]", "-", env_id),
        trainer=trainer_for(env_id),
        env=env,
        simulations=[GymnasiumSimulation(env=env)],
    )


def evaluate(
    policy_uri: str,
    env_id: str = "CartPole-v1",
    num_episodes: int = 100,
    options: dict[str, Any] | None = None,
    frame_stack: int = 1,
    grayscale: bool = False,
) -> GymnasiumSimTool:
    """Evaluate a policy.

    Args:
        policy_uri: a checkpoint's folder, as printed by the training.
        num_episodes: how many episodes to play.
        env_id, options, frame_stack, grayscale: as in the training, see `train`.
    """
    env = GymnasiumConfig(env_id=env_id, options=options or {}, frame_stack=frame_stack, grayscale=grayscale)
    return GymnasiumSimTool(policy_uri=policy_uri, simulation=GymnasiumSimulation(env=env, num_episodes=num_episodes))
