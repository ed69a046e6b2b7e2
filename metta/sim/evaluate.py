"""Plays simulations with a policy."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.environment import Buffers, Environment, EnvironmentSpec
from metta.sim.evaluation import Evaluation, SimulationResult
from metta.sim.metrics import check_simulations
from metta.sim.simulation_config import SimulationConfig

AGENTS_TOGETHER = 512
"""Environments with at most this many agents are stepped side by side, so that the policy computes for many agents at
once. On a CPU, more agents save little time."""

_EVALUATION = 0x4556414C
"""Separates the seeds of evaluation from those of training."""


class Player(Protocol):
    """A policy that plays, with its memory of the episode."""

    def reset(self, num_agents: int, seed: int) -> None:
        """Begin an episode of `num_agents` agents, without memory. The seed fixes the actions that are drawn."""

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Choose the next action of every agent.

        Args:
            observations: [agents, tokens, 3].

        Returns:
            Indices of actions, [agents].
        """


class UnfinishedEvaluationError(RuntimeError):
    """No episode of a simulation ended in time."""


def evaluate(player: Player, simulations: Sequence[SimulationConfig]) -> Evaluation:
    """Play each simulation's episodes.

    The seeds of the episodes depend only on the simulation's name, so that every policy plays the same episodes.

    Raises:
        UserError: there are no simulations, or two have the same name.
        UnfinishedEvaluationError: no episode of a simulation ended within its `max_seconds`.
    """
    check_simulations(simulations)
    return Evaluation([_simulate(player, simulation) for simulation in simulations])


def evaluation_seeds(simulation: SimulationConfig) -> list[int]:
    """The seed of each episode, in 0..2**31-1."""
    sequence = np.random.SeedSequence((_EVALUATION, zlib.crc32(simulation.name.encode())))
    return [int(seed) >> 1 for seed in sequence.generate_state(simulation.num_episodes)]


def _simulate(player: Player, simulation: SimulationConfig) -> SimulationResult:
    deadline = time.monotonic() + simulation.max_seconds if simulation.max_seconds else math.inf
    seeds = evaluation_seeds(simulation)
    together = max(1, AGENTS_TOGETHER // simulation.env.game.num_agents)
    episodes: list[dict[str, float]] = []
    for first in range(0, len(seeds), together):
        episodes += _play(player, simulation.env, seeds[first : first + together], deadline)
    if not episodes:
        raise UnfinishedEvaluationError(f"{simulation.name}: no episode ended within {simulation.max_seconds:g} s")
    return SimulationResult(simulation, episodes)


def _play(player: Player, env: MettaGridConfig, seeds: list[int], deadline: float) -> list[dict[str, float]]:
    """Play one episode for each seed, side by side, and return the stats of those that ended before the deadline."""
    spec = EnvironmentSpec.of(env)
    num_agents = spec.num_agents * len(seeds)
    buffers = Buffers.allocate(replace(spec, num_agents=num_agents))
    environments = [
        Environment(env, _rows(buffers, slice(start, start + spec.num_agents)))
        for start in range(0, num_agents, spec.num_agents)
    ]
    for environment, seed in zip(environments, seeds, strict=True):
        environment.reset(seed)
    player.reset(num_agents, seeds[0])
    running = environments
    while running and time.monotonic() < deadline:
        buffers.actions[:] = player.act(buffers.observations)
        for environment in running:
            environment.step()
        running = [environment for environment in running if not environment.done]
    return [environment.episode_stats() for environment in environments if environment not in running]


def _rows(buffers: Buffers, rows: slice) -> Buffers:
    return Buffers(**{field.name: getattr(buffers, field.name)[rows] for field in fields(Buffers)})
