"""Navigation: find altars and take their hearts, on an open map or among walls.

An agent takes the heart of an altar by moving into it. The altar then disappears, so the agent must find the next one.
"""

from __future__ import annotations

from mettagrid.config.action_config import ActionsConfig, ChangeVibeActionConfig
from mettagrid.config.game_value import stat
from mettagrid.config.handler_config import Handler
from mettagrid.config.mettagrid_config import (
    AgentConfig,
    GameConfig,
    GridObjectConfig,
    InventoryConfig,
    MettaGridConfig,
    WallConfig,
)
from mettagrid.config.mutation import withdraw
from mettagrid.config.obs_config import GlobalObsConfig, ObsConfig
from mettagrid.config.reward_config import reward
from mettagrid.mapgen.mapgen import MapGenConfig
from mettagrid.mapgen.scene import ChildrenAction
from mettagrid.mapgen.scenes.bsp import BSPConfig
from mettagrid.mapgen.scenes.nop import NopConfig
from mettagrid.mapgen.scenes.random import RandomConfig

from metta.sim.simulation_config import SimulationConfig
from metta.tools.sim import SimTool
from metta.tools.train import TrainTool

SIZE = 33
WINDOW = 11
ALTARS_PER_AGENT = 3


def make_env(num_agents: int = 8, walled: bool = False, max_steps: int = 100) -> MettaGridConfig:
    """Build the task.

    Args:
        num_agents: agents on the map, which has three altars for each agent.
        walled: whether the map has rooms and corridors; otherwise it is open.
        max_steps: length of an episode, which ends by truncation.
    """
    # Upper bound: each cell of the window shows a tag; an agent also shows its group, number and hearts. Two tokens
    # show the progress of the episode and the agent's last action.
    num_tokens = WINDOW * WINDOW + 3 * num_agents + 2
    children = [
        ChildrenAction(
            scene=RandomConfig(
                objects={"altar": ALTARS_PER_AGENT * num_agents}, agents=num_agents, too_many_is_ok=False
            ),
            where="full",
        )
    ]
    terrain = (
        BSPConfig(rooms=12, min_room_size=4, min_room_size_ratio=0.7, max_room_size_ratio=1.0, children=children)
        if walled
        else NopConfig(children=children)
    )
    return MettaGridConfig(
        label="navigation/walled" if walled else "navigation/open",
        game=GameConfig(
            resource_names=["heart"],
            num_agents=num_agents,
            max_steps=max_steps,
            episode_truncates=True,
            obs=ObsConfig(
                width=WINDOW, height=WINDOW, num_tokens=num_tokens, global_obs=GlobalObsConfig(last_reward=False)
            ),
            protocol_details_obs=False,
            actions=ActionsConfig(change_vibe=ChangeVibeActionConfig(enabled=False)),
            agent=AgentConfig(rewards={"heart": reward(stat("heart.gained"))}),
            objects={
                "wall": WallConfig(),
                "altar": GridObjectConfig(
                    name="altar",
                    inventory=InventoryConfig(initial={"heart": 1}),
                    on_use_handler=Handler(mutations=[withdraw({"heart": 1}, remove_when_empty=True)]),
                ),
            },
            map_builder=MapGenConfig(seed=0, width=SIZE, height=SIZE, border_width=1, instance=terrain),
        ),
    )


def simulations() -> list[SimulationConfig]:
    """The simulations that evaluate a policy; the score is the mean number of hearts that an agent gained."""
    return [
        SimulationConfig(name="navigation/open", env=make_env(walled=False), num_episodes=16),
        SimulationConfig(name="navigation/walled", env=make_env(walled=True), num_episodes=16),
    ]


def train(run_name: str = "navigation") -> TrainTool:
    """Train among walls, where altars are harder to find."""
    return TrainTool(run_name=run_name, env=make_env(walled=True), simulations=simulations())


def evaluate(policy_uri: str) -> SimTool:
    """Evaluate a policy that was trained to navigate."""
    return SimTool(policy_uri=policy_uri, simulations=simulations())
