"""Environments of Gymnasium and PettingZoo, stepped on arrays, in this process or in worker processes.

This module does not import torch; see `metta.rl.worker_pool`.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

import gymnasium
import numpy as np
import numpy.typing as npt

from metta.common.errors import UserError
from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.gymnasium.spaces import Array, Flattener, GymnasiumSpec
from metta.rl.shared_arrays import Field, Memory, allocate, arrays_on
from metta.rl.worker_pool import WorkerError, WorkerPool


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


SECONDS_PER_WORKER = 0.5e-3
"""How long a worker should step its environments between two choices of actions; with less, waiting for it takes longer
than it saves."""


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


def spec_of(config: GymnasiumConfig) -> GymnasiumSpec:
    """The spec of an environment, for a policy.

    Raises:
        UserError: the environment does not exist, or no policy here can play it.
    """
    environment = make_environment(config)
    environment.close()
    return environment.spec


def worthwhile_workers(config: GymnasiumConfig, num_environments: int, cores: int) -> int:
    """How many workers step the environments fastest. None, if that would give fewer than two enough to do."""
    workers = min(cores, int(num_environments * _step_seconds(config) / SECONDS_PER_WORKER))
    return workers if workers > 1 else 0


def _step_seconds(config: GymnasiumConfig) -> float:
    """The median time of some random steps of an environment."""
    with closing(make_environment(config)) as environment:
        random, agents, actions = np.random.default_rng(0), environment.spec.num_agents, environment.spec.actions
        durations: list[float] = []
        environment.reset(0)
        while sum(durations) < 0.1 and len(durations) < 100:
            size = (agents, actions.width)
            chosen: Array = random.integers(actions.sizes, size=size) if actions.sizes else random.uniform(-1, 1, size)
            started = time.perf_counter()
            step = environment.step(chosen)
            durations.append(time.perf_counter() - started)
            if step.done:
                environment.reset(None)
        return statistics.median(durations)


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


@dataclass(frozen=True)
class EnvironmentArrays:
    """The arrays of all environments, [environments, agents, ...].

    Attributes:
        actions: to do next.
        observations: the current ones; where an episode has ended, the first of the next one.
        final_observations: the last of each environment's last episode that ended.
        rewards, terminals, truncations, acted: the outcome of the last actions, as in `Step`.
    """

    actions: Array
    observations: Array
    final_observations: Array
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    acted: npt.NDArray[np.bool_]

    @staticmethod
    def fields(spec: GymnasiumSpec, number: int) -> dict[str, Field]:
        """The shapes and types of the arrays of a number of environments."""
        agents = (number, spec.num_agents)
        return {
            "actions": ((*agents, spec.actions.width), np.int64 if spec.actions.sizes else np.float32),
            "observations": ((*agents, spec.size), spec.dtype),
            "final_observations": ((*agents, spec.size), spec.dtype),
            "rewards": (agents, np.float32),
            "terminals": (agents, np.bool_),
            "truncations": (agents, np.bool_),
            "acted": (agents, np.bool_),
        }

    @classmethod
    def on(cls, memory: Memory, spec: GymnasiumSpec, number: int) -> EnvironmentArrays:
        """View shared memory as arrays."""
        return cls(**arrays_on(memory, cls.fields(spec, number)))


Stats = dict[int, dict[str, float]]
"""The stats of the episodes that ended, by the index of their environment."""


class GymnasiumEnvironments:
    """Environments that restart automatically when an episode ends. Close them after use.

    A seed gives the same episodes with any number of workers.

    Args:
        config: of each environment.
        numbers: the numbers of the environments in this process.
        seed: fixes the episodes of all environments, together with their numbers.
        num_workers: processes to start, at most one for each environment; 0 steps in this process.

    Attributes:
        spec: of each environment.
        arrays: what they show and take; `step` changes them.
    """

    def __init__(self, config: GymnasiumConfig, numbers: range, seed: Sequence[int], num_workers: int = 0) -> None:
        self.spec = spec_of(config)
        memory = allocate(EnvironmentArrays.fields(self.spec, len(numbers)))
        self.arrays = EnvironmentArrays.on(memory, self.spec, len(numbers))
        self.shape = (len(numbers), self.spec.num_agents)
        indices = range(len(numbers))
        parts = [indices[worker::num_workers] for worker in range(min(num_workers, len(numbers)))]
        self._local = None if parts else _Stepper(config, self.spec, memory, numbers, indices, seed)
        arguments = [(config, self.spec, memory, numbers, part, seed) for part in parts]
        self._pool = WorkerPool(_Stepper, arguments, name="environments")
        try:
            self._pool.receive()
        except BaseException:
            self._pool.close()
            raise

    def step(self, actions: Array) -> Stats:
        """Do the actions [environments, agents, width], and return the stats of the episodes that ended.

        Raises:
            WorkerError: an environment failed in a worker, or a worker died.
        """
        self.arrays.actions[:] = actions
        if self._local is not None:
            return self._local(_STEP)
        self._pool.send(_STEP)
        return dict(sorted(item for ended in self._pool.receive() for item in ended.items()))

    def close(self) -> None:
        """Close the environments, and end the workers."""
        if self._local is not None:
            self._local(_CLOSE)
        with suppress(WorkerError):
            self._pool.send(_CLOSE)  # which a worker does before it notices that the pipe is closed
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_STEP, _CLOSE = b"step", b"close"


class _Stepper:
    """The environments of one process. Its request is to step or to close them.

    Args:
        config: of each environment.
        spec: of each environment.
        memory: of the arrays of all environments.
        numbers: of all environments.
        members: the indices of the environments that this process steps.
        seed: fixes the episodes.
    """

    def __init__(
        self,
        config: GymnasiumConfig,
        spec: GymnasiumSpec,
        memory: Memory,
        numbers: range,
        members: range,
        seed: Sequence[int],
    ) -> None:
        self._arrays = EnvironmentArrays.on(memory, spec, len(numbers))
        self._environments = {index: make_environment(config) for index in members}
        self._episodes = {index: _Episode() for index in members}
        for index, environment in self._environments.items():
            generator = np.random.default_rng([*seed, numbers[index]])
            self._arrays.observations[index] = environment.reset(int(generator.integers(2**31 - 1)))

    def __call__(self, request: bytes) -> Stats:
        if request == _CLOSE:
            for environment in self._environments.values():
                environment.close()
            return {}
        return {index: episode.stats() for index in self._environments if (episode := self._step(index))}

    def _step(self, index: int) -> _Episode | None:
        """Step an environment, and return its episode if that ended."""
        arrays, environment, episode = self._arrays, self._environments[index], self._episodes[index]
        step = environment.step(arrays.actions[index])
        arrays.rewards[index] = step.rewards
        arrays.terminals[index] = step.terminals
        arrays.truncations[index] = step.truncations
        arrays.acted[index] = step.acted
        episode.reward += float(step.rewards.mean())
        episode.length += 1
        if not step.done:
            arrays.observations[index] = step.observations
            return None
        arrays.final_observations[index] = step.observations
        arrays.observations[index] = environment.reset(None)
        self._episodes[index] = _Episode()
        return episode
