"""Plays episodes side by side in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.environment import Buffers, Environment, EnvironmentSpec
from metta.sim.league import Match, TeamPlayer, with_result


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


@dataclass(frozen=True)
class Group:
    """Episodes that are played side by side.

    Attributes:
        env: the game.
        seeds: the seed of each episode.
        matches: which agents of each episode the policy plays, and who plays the others; empty if it plays all.
    """

    env: MettaGridConfig
    seeds: list[int]
    matches: Sequence[Match] = ()


@dataclass(frozen=True)
class Episode:
    """An episode that ended.

    Attributes:
        seed: the seed of its map, the game's random events and the actions that were drawn.
        stats: those of the policy's own agents; see `metta.rl.environment.Environment.episode_stats`.
    """

    seed: int
    stats: dict[str, float]


def play(player: Player, group: Group, deadline: float) -> list[Episode]:
    """Play the episodes, and return those that ended before the deadline (of `time.monotonic`)."""
    spec = EnvironmentSpec.of(group.env)
    num_agents = spec.num_agents * len(group.seeds)
    buffers = Buffers.allocate(replace(spec, num_agents=num_agents))
    environments = [
        Environment(group.env, _rows(buffers, slice(start, start + spec.num_agents)))
        for start in range(0, num_agents, spec.num_agents)
    ]
    for environment, seed in zip(environments, group.seeds, strict=True):
        environment.reset(seed)
    players = TeamPlayer(player, group.matches, spec) if group.matches else player
    players.reset(num_agents, group.seeds[0])
    running = environments
    while running and time.monotonic() < deadline:
        buffers.actions[:] = players.act(buffers.observations)
        for environment in running:
            environment.step()
        running = [environment for environment in running if not environment.done]
    return [
        Episode(seed, _stats(environment, group.matches[index] if group.matches else None))
        for index, (environment, seed) in enumerate(zip(environments, group.seeds, strict=True))
        if environment not in running
    ]


def _stats(environment: Environment, match: Match | None) -> dict[str, float]:
    return environment.episode_stats() if match is None else with_result(environment, match)


def _rows(buffers: Buffers, rows: slice) -> Buffers:
    return Buffers(**{field.name: getattr(buffers, field.name)[rows] for field in fields(Buffers)})
