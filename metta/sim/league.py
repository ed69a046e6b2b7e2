"""Matches against stored opponents: the policy plays one team, an opponent the other.

The teams of an episode are the agents with even and with odd numbers; in half of the episodes against an opponent the
policy plays the even ones. Agents cannot see who is in which team. The team with the larger mean reward wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from metta.common.errors import UserError, nearest

if TYPE_CHECKING:
    from metta.rl.environment import Environment, EnvironmentSpec
    from metta.rl.player import PolicyPlayer
    from metta.sim.episodes import Player
    from metta.sim.simulation_config import SimulationConfig

RANDOM = "random"
"""The opponent that draws every action at random."""

WIN, LEAD = "win", "lead"
"""Stats of a match: 1 for a win, 0.5 for a draw, 0 for a loss; own mean reward minus the opponent's."""

KEPT = Path(__file__).parent / "opponents"
"""Policies that are stored as opponents, one folder each."""


@dataclass(frozen=True)
class Match:
    """Who plays an episode.

    Attributes:
        opponent: who plays the other team; see `SimulationConfig.opponents`.
        plays_even: whether the policy plays the agents with even numbers, else those with odd ones.
    """

    opponent: str
    plays_even: bool

    def ours(self, num_agents: int) -> npt.NDArray[np.bool_]:
        """Whether the policy plays each agent."""
        odd: npt.NDArray[np.bool_] = np.arange(num_agents) % 2 == 1
        return ~odd if self.plays_even else odd


def matches(simulation: SimulationConfig) -> list[Match]:
    """The match of each episode: opponents take turns, and the teams change when each has had one."""
    opponents = simulation.opponents
    if not opponents:
        return []
    return [
        Match(opponents[episode % len(opponents)], plays_even=episode // len(opponents) % 2 == 0)
        for episode in range(simulation.num_episodes)
    ]


def check_opponent(opponent: str) -> str:
    """Return the opponent if its name is known. The URI of a policy, which has a slash, is not looked up.

    Raises:
        UserError: it is neither a known name nor a URI.
    """
    names = [RANDOM, *sorted(path.name for path in KEPT.iterdir() if (path / "policy.json").exists())]
    if "/" not in opponent and opponent not in names:
        raise UserError(f"no opponent is named {opponent!r}; {nearest(opponent, names)}, or give a policy's URI")
    return opponent


def require_opponents(simulation: SimulationConfig) -> None:
    """Check that every opponent of a simulation exists and can play it.

    Raises:
        UserError: one does not exist, or cannot play it.
    """
    from metta.rl.environment import EnvironmentSpec

    for opponent in simulation.opponents:
        load_opponent(opponent, EnvironmentSpec.of(simulation.env))


class TeamPlayer:
    """Plays episodes in which `player` plays one team and its opponents the other.

    Args:
        player: the policy.
        matches: the matches of the episodes that are played side by side.
        spec: the spec of the environment of each episode.
    """

    def __init__(self, player: Player, matches: Sequence[Match], spec: EnvironmentSpec) -> None:
        num_agents = spec.num_agents
        ours = np.concatenate([match.ours(num_agents) for match in matches])
        opponents = np.repeat([match.opponent for match in matches], num_agents)
        self._members: list[tuple[Player, npt.NDArray[np.intp]]] = [(player, np.flatnonzero(ours))]
        for name in dict.fromkeys(match.opponent for match in matches):
            self._members.append((load_opponent(name, spec), np.flatnonzero(~ours & (opponents == name))))

    def reset(self, num_agents: int, seed: int) -> None:
        for member, agents in self._members:
            member.reset(len(agents), seed)

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        actions = np.zeros(len(observations), dtype=np.int32)
        for member, agents in self._members:
            actions[agents] = member.act(observations[agents])
        return actions


def with_result(environment: Environment, match: Match) -> dict[str, float]:
    """The stats of the policy's agents, with the result of the match."""
    ours = match.ours(environment.spec.num_agents)
    stats, theirs = environment.episode_stats(ours), environment.episode_stats(~ours)
    lead = stats["reward"] - theirs["reward"]
    return stats | {WIN: 0.5 + 0.5 * float(np.sign(lead)), LEAD: lead}


def load_opponent(opponent: str, spec: EnvironmentSpec) -> Player:
    """Load an opponent that plays environments of this kind.

    Raises:
        UserError: the policy does not exist, or cannot play them.
    """
    if opponent == RANDOM:
        return RandomPlayer(len(spec.actions))
    from metta.rl.player import require_compatible

    player = _load_policy(opponent if "/" in opponent else str(KEPT / opponent))
    require_compatible(player.spec, spec, f"opponent {opponent}")
    return player


@lru_cache(maxsize=16)
def _load_policy(uri: str) -> PolicyPlayer:
    from metta.rl.checkpoint import load_policy

    return load_policy(uri)


class RandomPlayer:
    """Draws every action at random."""

    def __init__(self, num_actions: int) -> None:
        self._num_actions = num_actions
        self._generator = np.random.default_rng(0)

    def reset(self, num_agents: int, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        return self._generator.integers(self._num_actions, size=len(observations), dtype=np.int32)
