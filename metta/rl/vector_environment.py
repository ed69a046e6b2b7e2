"""Many environments stepped together, in worker processes that share their arrays with this one.

The workers are processes, not threads, because mettagrid 0.26.22 holds the GIL while it steps. This module does not
import torch; see `metta.rl.worker_pool`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.environment import TOKEN_DIM, Buffers, EnvironmentSpec
from metta.rl.episodes import EpisodeSeeds, EpisodicEnvironment
from metta.rl.shared_arrays import Field, Memory, allocate, arrays_on
from metta.rl.worker_pool import WorkerPool

NUM_GROUPS = 2
"""Environments step in this many groups in turn: while workers step one, the policy chooses actions for the other."""


@dataclass(frozen=True)
class SharedArrays:
    """The arrays of all environments, each with a leading axis of environments.

    `observations`, `rewards`, `terminals`, `truncations` and `actions` are as in `Buffers`. If an episode has
    ended, `observations` are already the first of the next episode; `final_observations` are the last of a truncated
    episode, so that the value function can estimate the rest.
    """

    observations: npt.NDArray[np.uint8]
    final_observations: npt.NDArray[np.uint8]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    actions: npt.NDArray[np.int32]

    @staticmethod
    def fields(spec: EnvironmentSpec, num_environments: int) -> dict[str, Field]:
        """The shapes and types of the arrays."""
        agents = (num_environments, spec.num_agents)
        tokens = (*agents, spec.num_tokens, TOKEN_DIM)
        return {
            "observations": (tokens, np.uint8),
            "final_observations": (tokens, np.uint8),
            "rewards": (agents, np.float32),
            "terminals": (agents, np.bool_),
            "truncations": (agents, np.bool_),
            "actions": (agents, np.int32),
        }

    @classmethod
    def on(cls, memory: Memory, spec: EnvironmentSpec, num_environments: int) -> SharedArrays:
        """View shared memory as arrays."""
        return cls(**arrays_on(memory, cls.fields(spec, num_environments)))

    def buffers(self, environment: int) -> Buffers:
        """The arrays of one environment."""
        return Buffers(
            observations=self.observations[environment],
            rewards=self.rewards[environment],
            terminals=self.terminals[environment],
            truncations=self.truncations[environment],
            actions=self.actions[environment],
        )


class VectorEnvironment:
    """Environments that restart automatically when an episode ends, stepped in `groups`.

    A seed gives the same episodes with any number of workers.

    Example:
        >>> with VectorEnvironment(config, num_environments=16, num_workers=2, seed=[0]) as environments:
        ...     for group in environments.groups:
        ...         stats = environments.receive(group)
        ...         environments.arrays.actions[group] = policy(environments.arrays.observations[group])
        ...         environments.send(group)
    """

    def __init__(
        self,
        config: MettaGridConfig,
        num_environments: int,
        num_workers: int,
        seed: Sequence[int],
        part: range | None = None,
        first_step: int = 0,
    ) -> None:
        """Start the workers; the first `receive` of a group waits for its first observations.

        Args:
            config: of every environment.
            num_environments: at least 1, in all processes together.
            num_workers: processes to start, at most one for each environment; 0 steps in this process.
            seed: fixes every episode of every environment.
            part: which of the environments this process holds; all by default.
            first_step: steps of each environment that were made before, by a run that this one continues. An episode
                depends on the step at which it begins, not on those before.
        """
        self.spec = EnvironmentSpec.of(config)
        numbers = range(num_environments) if part is None else part
        seeds = EpisodeSeeds(config, num_environments, numbers.start, list(seed), first_step)
        num_environments = self.num_environments = len(numbers)
        memory = allocate(SharedArrays.fields(self.spec, num_environments))
        self.arrays = SharedArrays.on(memory, self.spec, num_environments)
        num_groups = NUM_GROUPS if num_workers else 1
        bounds = [round(index * num_environments / num_groups) for index in range(num_groups + 1)]
        self.groups = [slice(start, stop) for start, stop in itertools.pairwise(bounds) if stop > start]
        self._pending: list[bool] = [False for _ in self.groups]
        self._stats: list[list[dict[str, float]]] = [[] for _ in self.groups]
        self._local: _Stepper | None = None
        self._started = num_workers == 0
        groups = [range(group.start, group.stop) for group in self.groups]
        if num_workers == 0:
            self._local = _Stepper(memory, num_environments, groups, seeds)
        num_workers = min(num_workers, num_environments)
        divided = [[group[worker::num_workers] for group in groups] for worker in range(num_workers)]
        arguments = [(memory, num_environments, members, seeds) for members in divided]
        self._pool = WorkerPool(_Stepper, arguments, name="environments")

    def send(self, group: slice) -> None:
        """Make the environments of a group do the actions in `arrays.actions`."""
        index = self.groups.index(group)
        assert not self._pending[index], "receive() comes before the next send()"
        self._pending[index] = True
        if self._local is None:
            self._pool.send(bytes([index]))
        else:
            self._stats[index] = self._local(bytes([index]))

    def receive(self, group: slice) -> list[dict[str, float]]:
        """Wait until the group has stepped, and return the stats of the episodes that ended.

        Raises:
            WorkerError: a worker raised or died.
        """
        if not self._started:
            self._pool.receive()
            self._started = True
        index = self.groups.index(group)
        if not self._pending[index]:
            return []
        self._pending[index] = False
        if self._local is not None:
            return self._stats[index]
        return list(itertools.chain(*self._pool.receive()))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stepper:
    """The environments of one worker, by group. Its request is the number of a group, whose environments step."""

    def __init__(
        self, memory: Memory, num_environments: int, groups: Sequence[Sequence[int]], seeds: EpisodeSeeds
    ) -> None:
        arrays = SharedArrays.on(memory, EnvironmentSpec.of(seeds.config), num_environments)
        like: EpisodicEnvironment | None = None
        self._groups: list[list[EpisodicEnvironment]] = []
        for members in groups:
            self._groups.append([])
            for index in members:
                final = arrays.final_observations[index]
                like = EpisodicEnvironment(arrays.buffers(index), final, seeds, index, like)
                self._groups[-1].append(like)

    def __call__(self, request: bytes) -> list[dict[str, float]]:
        """Step the environments of a group and return the stats of the whole episodes that ended."""
        outcomes = [environment.step() for environment in self._groups[request[0]]]
        return [stats for stats in outcomes if stats is not None]
