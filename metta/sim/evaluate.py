"""Plays simulations with a policy."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence

import numpy as np

from metta.rl.processes import usable_cores
from metta.sim.episodes import Group, Player
from metta.sim.evaluation import Evaluation, SimulationResult
from metta.sim.league import matches
from metta.sim.metrics import check_simulations
from metta.sim.players import Players
from metta.sim.simulation_config import SimulationConfig

AGENTS_TOGETHER = 384
"""Environments with at most this many agents are stepped side by side, so that the policy computes for many agents at
once. On a CPU, more agents save little time."""

STEPS_PER_CORE = 100_000
"""Agent steps of an evaluation for each core that plays; with fewer, a process takes longer to start than to play."""

_EVALUATION = 0x4556414C
"""Separates the seeds of evaluation from those of training."""


class UnfinishedEvaluationError(RuntimeError):
    """No episode of a simulation ended in time."""


def evaluate(player: Player, simulations: Sequence[SimulationConfig], cores: int | None = None) -> Evaluation:
    """Play each simulation's episodes.

    The seeds of the episodes depend only on the simulation's category. So every policy plays the same episodes, and
    simulations of a category whose maps are drawn alike have the same maps. The number of cores changes no result.

    Args:
        player: the policy. With more than one core it must be picklable.
        simulations: the simulations to play.
        cores: processes that play; by default as many as pay off, at most one for each core.

    Raises:
        UserError: there are no simulations, or two have the same name.
        UnfinishedEvaluationError: no episode of a simulation ended within its `max_seconds`.
        PlayerError: a process that played failed.
    """
    check_simulations(simulations)
    started = time.perf_counter()
    groups = {simulation.name: _groups(simulation) for simulation in simulations}
    most = max(len(group) for group in groups.values())
    number = worthwhile_cores(simulations) if cores is None else cores
    with Players(player, min(number, most)) as players:
        results = [_simulate(players, simulation, groups[simulation.name]) for simulation in simulations]
    return Evaluation(results, time.perf_counter() - started)


def worthwhile_cores(simulations: Sequence[SimulationConfig]) -> int:
    """How many cores pay off to play simulations; those without a length count as long."""
    steps = sum(
        each.num_episodes * each.env.game.num_agents * (each.env.game.max_steps or STEPS_PER_CORE)
        for each in simulations
    )
    return max(1, min(usable_cores(), steps // STEPS_PER_CORE))


def evaluation_seeds(simulation: SimulationConfig) -> list[int]:
    """The seed of each episode, in 0..2**31-1."""
    sequence = np.random.SeedSequence((_EVALUATION, zlib.crc32(simulation.category.encode())))
    return [int(seed) >> 1 for seed in sequence.generate_state(simulation.num_episodes)]


def _groups(simulation: SimulationConfig) -> list[Group]:
    """The episodes in parts that are played side by side. The parts do not depend on the number of cores."""
    seeds, teams = evaluation_seeds(simulation), matches(simulation)
    together = max(1, AGENTS_TOGETHER // simulation.env.game.num_agents)
    starts = range(0, len(seeds), together)
    return [Group(simulation.env, seeds[start : start + together], teams[start : start + together]) for start in starts]


def _simulate(players: Players, simulation: SimulationConfig, groups: list[Group]) -> SimulationResult:
    deadline = time.monotonic() + simulation.max_seconds if simulation.max_seconds else math.inf
    episodes = players.play(groups, deadline)
    if not episodes:
        raise UnfinishedEvaluationError(f"{simulation.name}: no episode ended within {simulation.max_seconds:g} s")
    return SimulationResult(simulation, [each.stats for each in episodes], [each.seed for each in episodes])
