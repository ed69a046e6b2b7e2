"""Environments of Gymnasium and PettingZoo, stepped one after another on arrays."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from metta.common.errors import UserError
from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.gymnasium.spaces import Array, Flattener, GymnasiumSpec


@dataclass
class Step:
    """The outcome of an action, for each agent.

    Attributes:
        observations: [agents, size].
        rewards: float32 [agents].
        terminals, truncations: bool [agents].
        acted: bool [agents]; an agent whose episode ended before that of the others no longer acts.
    """

    observations: Array
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    acted: npt.NDArray[np.bool_]

    @property
    def done(self) -> bool:
        return bool((self.terminals | self.truncations).all())


class GymnasiumEnvironment(Protocol):
    """An environment of one or more agents."""

    spec: GymnasiumSpec

    def reset(self, seed: int | None) -> Array:
        """Begin an episode and return the first observations [agents, size]."""
        ...

    def step(self, actions: Array) -> Step:
        """Do the actions [agents, width]."""
        ...

    def close(self) -> None: ...


def make_environment(config: GymnasiumConfig) -> GymnasiumEnvironment:
    """Make an environment.

    Raises:
        UserError: no environment has that id, it can't be created, or a policy here can't play it.
    """
    return ParallelEnvironment(config) if config.is_parallel else SingleEnvironment(config)


class SingleEnvironment:
    """An environment of Gymnasium."""

    def __init__(self, config: GymnasiumConfig) -> None:
        options: dict[str, Any] = dict(config.options)
        try:
            environment = gymnasium.make(config.env_id, disable_env_checker=True, **options)
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            raise UserError(f"env_id={config.env_id}: {error}") from None
        if config.grayscale:
            environment = gymnasium.wrappers.GrayscaleObservation(environment)
        if config.frame_stack > 1:
            environment = gymnasium.wrappers.FrameStackObservation(environment, config.frame_stack)
        self._environment: gymnasium.Env[Any, Any] = environment
        self._flatten = Flattener(environment.observation_space)
        self.spec = GymnasiumSpec.of(1, environment.observation_space, environment.action_space)

    def reset(self, seed: int | None) -> Array:
        observation, _ = self._environment.reset(seed=seed)
        return self._flatten(observation)[None]

    def step(self, actions: Array) -> Step:
        action = self.spec.actions.to_environment(actions[0])
        observation, reward, terminated, truncated, _ = self._environment.step(action)
        return Step(
            self._flatten(observation)[None],
            np.array([reward], dtype=np.float32),
            np.array([terminated], dtype=np.bool_),
            np.array([truncated], dtype=np.bool_),
            np.ones(1, dtype=np.bool_),
        )

    def close(self) -> None:
        self._environment.close()


class ParallelEnvironment:
    """A parallel environment of PettingZoo, whose agents have equal spaces.

    An agent whose episode ended before that of the others gets no reward and is not learnt from until the next episode.
    """

    def __init__(self, config: GymnasiumConfig) -> None:
        if config.frame_stack > 1 or config.grayscale:
            raise UserError(f"env_id={config.env_id}: only environments of Gymnasium have frame_stack and grayscale")
        try:
            self._environment: Any = importlib.import_module(config.env_id).parallel_env(**config.options)
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(f"env_id={config.env_id}: no parallel environment of PettingZoo: {error}") from None
        self._agents: list[Any] = list(self._environment.possible_agents)
        observations, actions = (
            [space(agent) for agent in self._agents]
            for space in (self._environment.observation_space, self._environment.action_space)
        )
        for kind, found in (("observation", observations), ("action", actions)):
            if any(space != found[0] for space in found):
                raise UserError(f"env_id={config.env_id}: its agents have different {kind} spaces, but share a policy")
        self._flatten = Flattener(observations[0])
        self.spec = GymnasiumSpec.of(len(self._agents), observations[0], actions[0])

    def reset(self, seed: int | None) -> Array:
        observations, _ = self._environment.reset(seed=seed)
        return self._stacked(observations)

    def step(self, actions: Array) -> Step:
        acting = set(self._environment.agents)
        chosen = {
            agent: self.spec.actions.to_environment(action)
            for agent, action in zip(self._agents, actions, strict=True)
            if agent in acting
        }
        observations, rewards, terminated, truncated, _ = self._environment.step(chosen)
        return Step(
            self._stacked(observations),
            np.array([rewards.get(agent, 0.0) for agent in self._agents], dtype=np.float32),
            np.array([terminated.get(agent, True) for agent in self._agents], dtype=np.bool_),
            np.array([truncated.get(agent, False) for agent in self._agents], dtype=np.bool_),
            np.array([agent in acting for agent in self._agents], dtype=np.bool_),
        )

    def close(self) -> None:
        self._environment.close()

    def _stacked(self, observations: dict[Any, Any]) -> Array:
        stacked = np.zeros((len(self._agents), self.spec.size), dtype=self.spec.dtype)
        for row, agent in enumerate(self._agents):
            if agent in observations:
                stacked[row] = self._flatten(observations[agent])
        return stacked


@dataclass
class _Episode:
    """Totals of the current episode."""

    reward: float = 0.0
    length: int = 0

    def stats(self) -> dict[str, float]:
        return {"reward": self.reward, "episode_length": float(self.length)}


@dataclass
class VectorStep:
    """The outcome of the actions in all environments; [environments, agents, ...].

    Attributes:
        observations: where an episode ended, the first of the next one.
        final_observations: the last ones of each episode that ended, by environment.
        episodes: stats of the episodes that ended.
    """

    observations: Array
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    acted: npt.NDArray[np.bool_]
    final_observations: dict[int, Array] = field(default_factory=dict)
    episodes: list[dict[str, float]] = field(default_factory=list)


class GymnasiumEnvironments:
    """Environments that restart automatically when an episode ends.

    Args:
        config: of each environment.
        numbers: the numbers of the environments in this process.
        seed: fixes the episodes of all environments, together with their numbers.
    """

    def __init__(self, config: GymnasiumConfig, numbers: range, seed: Sequence[int]) -> None:
        self._environments = [make_environment(config) for _ in numbers]
        self._episodes = [_Episode() for _ in numbers]
        self.spec = self._environments[0].spec
        shape = (len(numbers), self.spec.num_agents)
        self._observations = np.zeros((*shape, self.spec.size), dtype=self.spec.dtype)
        self._shape = shape
        for index, (number, environment) in enumerate(zip(numbers, self._environments, strict=True)):
            generator = np.random.default_rng([*seed, number])
            self._observations[index] = environment.reset(int(generator.integers(2**31 - 1)))

    @property
    def observations(self) -> Array:
        """The current ones, [environments, agents, size]; `step` overwrites them."""
        return self._observations

    def step(self, actions: Array) -> VectorStep:
        """Do the actions [environments, agents, width]."""
        after = VectorStep(
            self._observations,
            np.zeros(self._shape, dtype=np.float32),
            np.zeros(self._shape, dtype=np.bool_),
            np.zeros(self._shape, dtype=np.bool_),
            np.zeros(self._shape, dtype=np.bool_),
        )
        for index, environment in enumerate(self._environments):
            step, episode = environment.step(actions[index]), self._episodes[index]
            after.rewards[index] = step.rewards
            after.terminals[index] = step.terminals
            after.truncations[index] = step.truncations
            after.acted[index] = step.acted
            episode.reward += float(step.rewards.mean())
            episode.length += 1
            if step.done:
                after.final_observations[index] = step.observations.astype(self.spec.dtype)
                after.episodes.append(episode.stats())
                self._episodes[index] = _Episode()
                self._observations[index] = environment.reset(None)
            else:
                self._observations[index] = step.observations
        return after

    def close(self) -> None:
        for environment in self._environments:
            environment.close()
