"""A game that a policy learns in a second or two: an agent gets a heart each time it moves into an altar."""

from mettagrid.config.action_config import ActionsConfig, ChangeVibeActionConfig
from mettagrid.config.game_value import stat
from mettagrid.config.handler_config import Handler
from mettagrid.config.mettagrid_config import (
    AgentConfig,
    GameConfig,
    GridObjectConfig,
    MettaGridConfig,
    WallConfig,
)
from mettagrid.config.mutation import updateActor
from mettagrid.config.obs_config import ObsConfig
from mettagrid.config.reward_config import reward
from mettagrid.config.vibes import VIBES
from mettagrid.map_builder.random_map import RandomMapBuilderConfig

NOOP, NORTH, SOUTH, WEST, EAST = range(5)


def small_env(num_agents: int = 2, max_steps: int = 20, truncates: bool = True, num_vibes: int = 0) -> MettaGridConfig:
    altar = GridObjectConfig(name="altar", on_use_handler=Handler(filters=[], mutations=[updateActor({"heart": 1})]))
    return MettaGridConfig(
        game=GameConfig(
            resource_names=["heart"],
            num_agents=num_agents,
            max_steps=max_steps,
            episode_truncates=truncates,
            obs=ObsConfig(width=5, height=5, num_tokens=60),
            protocol_details_obs=False,
            actions=ActionsConfig(
                change_vibe=ChangeVibeActionConfig(enabled=num_vibes > 0, vibes=list(VIBES)[: max(1, num_vibes)])
            ),
            agent=AgentConfig(rewards={"heart": reward(stat("heart.gained"))}),
            objects={"wall": WallConfig(), "altar": altar},
            map_builder=RandomMapBuilderConfig(
                seed=0, width=6, height=6, border_width=1, agents=num_agents, objects={"altar": 3}
            ),
        )
    )
