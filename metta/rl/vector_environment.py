"""Many environments stepped together, in worker processes that share their arrays with this one.

The workers are processes, not threads, because mettagrid 0.26.22 holds the GIL while it steps. They are forked from a
server that has imported this module, so the slow import happens once and not at every start. This module does not
import torch, so that the server starts quickly and workers stay small.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.environment import TOKEN_DIM, Buffers, Environment, EnvironmentSpec
from metta.rl.processes import interrupts_blocked

NUM_GROUPS = 2
"""Environments step in this many groups in turn: while workers step one, the policy chooses actions for the other."""

_CLOSE_SECONDS = 5.0
_EPISODES = 0
"""Makes the seeds of episodes differ from those of actions; see `metta.rl.game`."""
_FIELDS: dict[str, tuple[npt.DTypeLike, Any]] = {
    "observations": (np.uint8, ctypes.c_uint8),
    "final_observations": (np.uint8, ctypes.c_uint8),
    "rewards": (np.float32, ctypes.c_float),
    "terminals": (np.bool_, ctypes.c_bool),
    "truncations": (np.bool_, ctypes.c_bool),
    "actions": (np.int32, ctypes.c_int32),
}


class WorkerError(RuntimeError):
    """A worker process raised (its traceback is in the message) or died."""


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

    @classmethod
    def shapes(cls, spec: EnvironmentSpec, num_environments: int) -> dict[str, tuple[int, ...]]:
        agents = (num_environments, spec.num_agents)
        tokens = (*agents, spec.num_tokens, TOKEN_DIM)
        return {name: tokens if name.endswith("observations") else agents for name in _FIELDS}

    @classmethod
    def on(cls, memory: dict[str, Any], spec: EnvironmentSpec, num_environments: int) -> SharedArrays:
        """View shared memory as arrays."""
        shapes = cls.shapes(spec, num_environments)
        return cls(
            **{
                name: np.frombuffer(memory[name], dtype=dtype).reshape(shapes[name])
                for name, (dtype, _) in _FIELDS.items()
            }
        )

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
        seeds = _Seeds(config, num_environments, numbers.start, list(seed), first_step)
        num_environments = self.num_environments = len(numbers)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        shapes = SharedArrays.shapes(self.spec, num_environments)
        memory = {name: context.RawArray(c_type, int(np.prod(shapes[name]))) for name, (_, c_type) in _FIELDS.items()}
        self.arrays = SharedArrays.on(memory, self.spec, num_environments)
        num_groups = NUM_GROUPS if num_workers else 1
        bounds = [round(index * num_environments / num_groups) for index in range(num_groups + 1)]
        self.groups = [slice(start, stop) for start, stop in itertools.pairwise(bounds) if stop > start]
        self._pending: list[bool] = [True for _ in self.groups]
        self._stats: list[list[dict[str, float]]] = [[] for _ in self.groups]
        self._local: _Stepper | None = None
        self._workers: list[tuple[ForkServerProcess, Connection]] = []
        if num_workers == 0:
            members = [list(range(group.start, group.stop)) for group in self.groups]
            self._local = _Stepper(config, self.arrays, members, seeds)
            return
        with interrupts_blocked():  # Ctrl-C at the terminal also reaches workers; only this process handles it
            for worker in range(min(num_workers, num_environments)):
                members = [list(range(group.start, group.stop))[worker::num_workers] for group in self.groups]
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work,
                    args=(theirs, config, memory, members, num_environments, seeds),
                    daemon=True,
                    name=f"environments-{worker}",
                )
                process.start()
                theirs.close()
                self._workers.append((process, ours))

    def send(self, group: slice) -> None:
        """Make the environments of a group do the actions in `arrays.actions`."""
        index = self.groups.index(group)
        assert not self._pending[index], "receive() comes before the next send()"
        self._pending[index] = True
        if self._local is not None:
            self._stats[index] = self._local.step(index)
            return
        for worker, (_, connection) in enumerate(self._workers):
            try:
                connection.send_bytes(bytes([index]))
            except OSError:
                self._raise_dead(worker)

    def receive(self, group: slice) -> list[dict[str, float]]:
        """Wait until the group has stepped, and return the stats of the episodes that ended.

        Raises:
            WorkerError: a worker raised or died.
        """
        index = self.groups.index(group)
        if not self._pending[index]:
            return []
        self._pending[index] = False
        if self._local is not None:
            return self._stats[index]
        stats: list[dict[str, float]] = []
        for worker, (_, connection) in enumerate(self._workers):
            try:
                reply = connection.recv()
            except (EOFError, OSError):
                self._raise_dead(worker)
            if isinstance(reply, str):
                raise WorkerError(f"an environment failed in worker process {worker}:\n{reply}")
            stats.extend(reply)
        return stats

    def close(self) -> None:
        """End the workers."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join(_CLOSE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _raise_dead(self, worker: int) -> None:
        process = self._workers[worker][0]
        process.join(_CLOSE_SECONDS)
        code = process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        raise WorkerError(f"worker process {worker}, which steps environments, died: {how}") from None


@dataclass(frozen=True)
class _Seeds:
    """Seeds the episodes of each environment, by its number among all environments.

    Attributes:
        config: of every environment.
        total: number of environments in all processes.
        first: number of the first environment in this process.
        seed: fixes all episodes.
        first_step: the step at which the first episodes begin.
    """

    config: MettaGridConfig
    total: int
    first: int
    seed: list[int]
    first_step: int

    def episode(self, index: int, step: int) -> int:
        """The seed of an environment's episode that begins at a step."""
        sequence = np.random.SeedSequence([*self.seed, self.first + index, _EPISODES, step])
        return int(sequence.generate_state(1)[0]) >> 1

    def first_length(self, index: int) -> int | None:
        """The step at which to cut its first episode, so that episodes don't all end together, or None."""
        steps = self.config.game.max_steps
        length = steps * (self.first + index + 1) // self.total
        return length if self.config.desync_episodes and 0 < length < steps else None


class _Stepper:
    """The environments of one worker, by group."""

    def __init__(
        self,
        config: MettaGridConfig,
        arrays: SharedArrays,
        members: list[list[int]],
        seeds: _Seeds,
    ) -> None:
        self._arrays = arrays
        self._members = members
        self._environments: dict[int, Environment] = {}
        for index in itertools.chain(*members):
            like = next(iter(self._environments.values()), None)
            self._environments[index] = Environment(config, arrays.buffers(index), like)
        self._seeds = seeds
        self._steps = dict.fromkeys(self._environments, seeds.first_step)
        self._first_lengths = {index: seeds.first_length(index) for index in self._environments}
        for index in self._environments:
            self._reset(index)

    def step(self, group: int) -> list[dict[str, float]]:
        """Step the environments of a group and return the stats of the whole episodes that ended."""
        stats = []
        for index in self._members[group]:
            environment = self._environments[index]
            environment.step()
            self._steps[index] += 1
            cut_short = environment.current_step == self._first_lengths[index]
            if cut_short:
                environment.truncate()
            if environment.done:
                if not cut_short:
                    stats.append(environment.episode_stats())
                self._restart(index)
        return stats

    def _restart(self, index: int) -> None:
        """Start the next episode, but keep the rewards and ends of the last one in the arrays."""
        arrays = self._arrays
        arrays.final_observations[index] = arrays.observations[index]
        ended = (arrays.rewards[index].copy(), arrays.terminals[index].copy(), arrays.truncations[index].copy())
        self._first_lengths[index] = None
        self._reset(index)
        arrays.rewards[index], arrays.terminals[index], arrays.truncations[index] = ended

    def _reset(self, index: int) -> None:
        self._environments[index].reset(self._seeds.episode(index, self._steps[index]))


def _work(
    connection: Connection,
    config: MettaGridConfig,
    memory: dict[str, Any],
    members: list[list[int]],
    num_environments: int,
    seeds: _Seeds,
) -> None:
    """Main function of a worker process: step the groups that the parent names, until it closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        arrays = SharedArrays.on(memory, EnvironmentSpec.of(config), num_environments)
        stepper = _Stepper(config, arrays, members, seeds)
        for _ in members:  # the first observations of each group
            connection.send([])
        while True:
            group = connection.recv_bytes()[0]
            connection.send(stepper.step(group))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send(traceback.format_exc())
