"""The simulations that policies are evaluated on."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from metta.common.config import Config
from metta.common.errors import UserError, nearest
from metta.sim.league import LEAD, WIN, check_opponent
from metta.sim.round_trip import EnvironmentConfig
from metta.sim.stats import possible_stats


class SimulationConfig(Config):
    """A named game that policies are evaluated on.

    Example:
        >>> SimulationConfig(name="arena/combat", env=make_env(combat=True)).category
        'arena'

    Attributes:
        name: category and name of the simulation, separated by a slash.
        env: the game. The score depends on its stats, not on the rewards that it gives.
        num_episodes: episodes to play, each on its own map.
        max_seconds: episodes that have not ended this many seconds after the start of the first are not counted.
        score: the stat that is the score, as the mean over the agents that the policy plays; see `stats`.
        opponents: who plays every second agent, in turns: "random", the name of a policy in `metta/sim/opponents`, or
            a policy's URI. By default the policy plays all agents. With opponents there are two more stats, ``win``
            and ``lead``; see `metta.sim.league`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_-]+$")
    env: EnvironmentConfig
    num_episodes: int = Field(default=8, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    score: str = "heart.gained"
    opponents: list[Annotated[str, AfterValidator(check_opponent)]] = []

    @property
    def category(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def stats(self) -> list[str]:
        """Every stat that an episode can have."""
        return possible_stats(self.env) + ([WIN, LEAD] if self.opponents else [])

    @model_validator(mode="after")
    def _check(self) -> Self:
        stats = self.stats
        if self.score not in stats:
            raise UserError(
                f"simulation {self.name}: its game has no stat {self.score!r}; {nearest(self.score, stats)}"
            )
        if self.env.game.max_steps == 0 and self.max_seconds is None:
            raise UserError(f"simulation {self.name}: without env.game.max_steps or max_seconds it might never end")
        if self.opponents and self.env.game.num_agents < 2:
            raise UserError(f"simulation {self.name}: one agent has no room for opponents; raise env.game.num_agents")
        return self
