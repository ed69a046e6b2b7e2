"""One mettagrid environment, stepped directly in C++ on arrays that the caller owns.

`mettagrid.simulator.Simulation` is made for watching a game: it times every call and builds Python objects for
agents and tokens. Here the C++ core writes into arrays, which may be in memory shared with other processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mettagrid.config.action_config import CHANGE_VIBE_PREFIX
from mettagrid.config.mettagrid_c_config import convert_to_cpp_game_config, rename_map_agents
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.map_builder.map_builder import HasSeed
from mettagrid.mettagrid_c import MettaGrid

from metta.common.errors import UserError

TOKEN_DIM = 3
EMPTY = 0xFF
"""A token whose location is this value is empty. Empty tokens come last in an observation."""
GLOBAL_LOCATION = 0xFE
"""The location of tokens that describe the agent's whole situation, not a cell in its view."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """The facts about an environment that a policy needs.

    Attributes:
        num_agents: agents that act at each step.
        num_tokens: tokens in one agent's observation.
        view: height and width in cells of what an agent sees.
        actions: action names; an action is an index into them.
        features: names of the features that a token can describe; a token's second byte is an index into them.
        tags: names of tags; the value of a token of the feature ``tag`` is an index into them.
        vibes: names of vibes, empty if agents cannot change theirs.
    """

    num_agents: int
    num_tokens: int
    view: tuple[int, int]
    actions: tuple[str, ...]
    features: tuple[str, ...]
    tags: tuple[str, ...]
    vibes: tuple[str, ...]

    @classmethod
    def of(cls, config: MettaGridConfig) -> EnvironmentSpec:
        """Read the spec from an environment's configuration.

        Raises:
            UserError: the observation is not made of three-byte tokens, or vibes can be chosen without a noop.
        """
        game = config.game
        if game.obs.token_dim != TOKEN_DIM:
            raise UserError(
                f"env.game.obs.token_dim is {game.obs.token_dim}; policies read tokens of {TOKEN_DIM} bytes"
            )
        if game.actions.change_vibe.enabled and not game.actions.noop.enabled:
            raise UserError("env.game.actions: change_vibe needs noop, which an agent does while it changes its vibe")
        id_map = game.id_map()
        features = id_map.features()
        assert [feature.id for feature in features] == list(range(len(features)))
        return cls(
            num_agents=game.num_agents,
            num_tokens=game.obs.num_tokens,
            view=(game.obs.height, game.obs.width),
            actions=tuple(action.name for action in game.actions.actions()),
            features=tuple(feature.name for feature in features),
            tags=tuple(id_map.tag_names()),
            vibes=tuple(game.vibe_names) if game.actions.change_vibe.enabled else (),
        )


@dataclass(frozen=True)
class Buffers:
    """The arrays an environment reads and writes at each step, all C-contiguous.

    Attributes:
        observations: uint8 [agents, tokens, 3] of (location, feature, value); location is row << 4 | column.
        rewards: float32 [agents].
        terminals: bool [agents]; the game is over.
        truncations: bool [agents]; the game was stopped before its end.
        actions: int32 [agents], read by `Environment.step`.
    """

    observations: npt.NDArray[np.uint8]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    actions: npt.NDArray[np.int32]

    @classmethod
    def allocate(cls, spec: EnvironmentSpec) -> Buffers:
        """Make zeroed buffers for one environment in this process."""
        agents = spec.num_agents
        return cls(
            observations=np.zeros((agents, spec.num_tokens, TOKEN_DIM), dtype=np.uint8),
            rewards=np.zeros(agents, dtype=np.float32),
            terminals=np.zeros(agents, dtype=np.bool_),
            truncations=np.zeros(agents, dtype=np.bool_),
            actions=np.zeros(agents, dtype=np.int32),
        )


class Environment:
    """A mettagrid game that reads actions from its buffers and writes their outcome into them.

    Example:
        >>> buffers = Buffers.allocate(EnvironmentSpec.of(config))
        >>> environment = Environment(config, buffers)
        >>> environment.reset(seed=0)
        >>> while not environment.done:
        ...     buffers.actions[:] = policy(buffers.observations)
        ...     environment.step()
        >>> environment.episode_stats()["heart.gained"]
    """

    def __init__(self, config: MettaGridConfig, buffers: Buffers, like: Environment | None = None) -> None:
        """Make an environment; `reset` starts its first episode.

        Args:
            config: of the game.
            buffers: see above.
            like: an environment with the same configuration, whose conversion for the C++ core is used again, because
                that takes 20 ms.
        """
        self.spec: EnvironmentSpec = EnvironmentSpec.of(config) if like is None else like.spec
        self.buffers = buffers
        if like is None:
            self._game_config = config.game.model_copy(deep=True)  # because the conversion writes into it
            self._c_config, self._agent_renames = convert_to_cpp_game_config(self._game_config)
        else:
            self._game_config, self._c_config, self._agent_renames = (
                like._game_config,
                like._c_config,
                like._agent_renames,
            )
        self._num_core_actions = sum(not name.startswith(CHANGE_VIBE_PREFIX) for name in self.spec.actions)
        self._core_actions = np.zeros(self.spec.num_agents, dtype=np.int32)
        self._vibe_actions = np.zeros(self.spec.num_agents, dtype=np.int32)
        self._game: MettaGrid | None = None

    def reset(self, seed: int) -> None:
        """Start an episode and write its first observations. The seed fixes both the map and the game's random events.

        Args:
            seed: in 0..2**31-1.
        """
        grid = rename_map_agents(self._build_map(seed), self._agent_renames)
        self._game = MettaGrid(self._c_config, grid, seed)
        buffers = self.buffers
        self._game.set_buffers(
            buffers.observations,
            buffers.terminals,
            buffers.truncations,
            buffers.rewards,
            self._core_actions,
            self._vibe_actions,
        )

    def step(self) -> None:
        """Do the actions in the buffers, then write the observations, rewards and ends that follow."""
        self.buffers.terminals[:] = False  # the C++ core sets these and never clears them
        self.buffers.truncations[:] = False
        actions = self.buffers.actions
        if self._num_core_actions == len(self.spec.actions):
            self._core_actions[:] = actions
        else:  # the C++ core reads vibes from a separate array; an agent that changes its vibe does nothing else
            is_vibe = actions >= self._num_core_actions
            np.copyto(self._core_actions, np.where(is_vibe, 0, actions))
            np.copyto(self._vibe_actions, np.where(is_vibe, actions, 0))
        self._running.step()
        self._end_on_game_stats()

    def truncate(self) -> None:
        """Cut the episode off after this step."""
        self.buffers.truncations[:] = True

    @property
    def done(self) -> bool:
        """Whether the episode has ended for all its agents."""
        return bool((self.buffers.terminals | self.buffers.truncations).all())

    @property
    def current_step(self) -> int:
        """Steps done in this episode."""
        return self._running.current_step

    def episode_stats(self, agents: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """The stats of this episode so far.

        Args:
            agents: which agents to take the mean over; by default all.

        Returns:
            ``reward``: mean over agents of the reward summed over the episode; ``episode_length``: steps; each of the
            game's agent stats by its name, as the mean over the agents (0 for an agent without it); each of
            its game stats, with ``game/`` before its name.
        """
        game = self._running
        chosen = np.arange(self.spec.num_agents) if agents is None else np.flatnonzero(agents)
        reward = float(game.get_episode_rewards()[chosen].mean())
        stats = {"reward": reward, "episode_length": float(game.current_step)}
        totals: dict[str, float] = {}
        episode = game.get_episode_stats()
        for number in chosen:
            for name, value in episode["agent"][number].items():
                totals[name] = totals.get(name, 0.0) + value
        stats |= {name: total / len(chosen) for name, total in sorted(totals.items())}
        return stats | {f"game/{name}": float(value) for name, value in sorted(episode["game"].items())}

    @property
    def _running(self) -> MettaGrid:
        assert self._game is not None, "reset() comes before the first step"
        return self._game

    def _build_map(self, seed: int) -> list[list[str]]:
        # MettaGrid's own seed does not reach the map. A builder may change its config, hence the deep copy.
        config = self._game_config.map_builder.model_copy(deep=True)
        if isinstance(config, HasSeed):
            config.seed = seed
        builder = config.create()
        if not isinstance(config, HasSeed):  # e.g. an ASCII map, which otherwise picks spawn points at random
            builder.shuffle_spawn_indices = np.random.default_rng(seed).shuffle
        grid: list[list[str]] = builder.build_for_num_agents(self.spec.num_agents).grid.tolist()
        return grid

    def _end_on_game_stats(self) -> None:
        for name, threshold in self._game_config.end_episode_on_game_stats.items():
            value = self._running.get_game_stat(name)
            if value is not None and value >= threshold:
                self.truncate()
