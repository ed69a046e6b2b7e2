"""Environments that play one episode after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.environment import Buffers, Environment

_EPISODES = 0
"""Separates the seeds of episodes from those of actions; see `metta.rl.game`."""


@dataclass(frozen=True)
class EpisodeSeeds:
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


class EpisodicEnvironment:
    """An environment that starts the next episode when one ends.

    Where an episode has ended, the observations in `buffers` are already the first of the next episode, while rewards
    and ends are those of the last step.

    Args:
        buffers: of the environment.
        final_observations: uint8 [agents, tokens, 3]; the last observations of an episode are kept here.
        seeds: of its episodes.
        index: its index in them.
        like: another environment of the same configuration, if there is one; see `Environment`.
    """

    def __init__(
        self,
        buffers: Buffers,
        final_observations: npt.NDArray[np.uint8],
        seeds: EpisodeSeeds,
        index: int,
        like: EpisodicEnvironment | None = None,
    ) -> None:
        self.buffers = buffers
        self.final_observations = final_observations
        self._environment: Environment = Environment(seeds.config, buffers, None if like is None else like._environment)
        self._seeds = seeds
        self._index = index
        self._steps = seeds.first_step
        self._first_length = seeds.first_length(index)
        self._reset()

    def step(self) -> dict[str, float] | None:
        """Do the actions in the buffers. Returns the stats of the episode if a whole one has ended with this step."""
        environment = self._environment
        environment.step()
        self._steps += 1
        cut_short = environment.current_step == self._first_length
        if cut_short:
            environment.truncate()
        if not environment.done:
            return None
        stats = None if cut_short else environment.episode_stats()
        self._restart()
        return stats

    def _restart(self) -> None:
        """Start the next episode, but keep the rewards and ends of the last one in the buffers."""
        buffers = self.buffers
        self.final_observations[:] = buffers.observations
        ended = (buffers.rewards.copy(), buffers.terminals.copy(), buffers.truncations.copy())
        self._first_length = None
        self._reset()
        buffers.rewards[:], buffers.terminals[:], buffers.truncations[:] = ended

    def _reset(self) -> None:
        self._environment.reset(self._seeds.episode(self._index, self._steps))
