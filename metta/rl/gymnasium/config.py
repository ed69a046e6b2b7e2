"""Which environment of Gymnasium or PettingZoo to train on, and its wrappers. Imports neither of them."""

from __future__ import annotations

from pydantic import Field, JsonValue

from metta.common.config import Config


class GymnasiumConfig(Config):
    """An environment.

    Attributes:
        env_id: as `gymnasium.make` takes it (``CartPole-v1``, ``my_package:MyEnv-v0``), or the module of a parallel
            environment of PettingZoo (``pettingzoo.sisl.multiwalker_v9``, or your own with a `parallel_env`).
        options: keyword arguments for its constructor.
        frame_stack: observations that a policy sees at once, for games where a single one does not show motion.
        grayscale: convert images to shades of grey.
        normalize_observations: shift and scale numbers (not images) to mean 0 and variance 1, by running statistics.
        normalize_rewards: divide rewards by the running standard deviation of discounted returns. Metrics use the
            original rewards.
    """

    env_id: str = Field(min_length=1)
    options: dict[str, JsonValue] = {}
    frame_stack: int = Field(default=1, ge=1)
    grayscale: bool = False
    normalize_observations: bool = True
    normalize_rewards: bool = True

    @property
    def is_parallel(self) -> bool:
        """Whether it is PettingZoo's: a module's name has dots, but an id of Gymnasium has none outside its version."""
        return "." in self.env_id and ":" not in self.env_id and "/" not in self.env_id


class GymnasiumSimulation(Config):
    """An evaluation of a policy.

    Attributes:
        name: name of the metric that is the mean reward of its episodes.
        env: the environment; normalisation uses the policy's own statistics.
        num_episodes: episodes to play.
        seed: fixes the episodes.
        greedy: take the most likely action at each step instead of drawing one.
    """

    name: str = Field(default="evaluation", pattern=r"^[A-Za-z0-9_-]+$")
    env: GymnasiumConfig
    num_episodes: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)
    greedy: bool = True
