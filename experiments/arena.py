"""The arena: agents mine ore, turn it into batteries and those into hearts, and may rob each other.

::

    mine ──> ore ──> generator ──> battery ──> altar ──> heart
              ├────────────────────────┴────> lasery ──> laser
              └─────────────────────────────> armory ──> armor

An agent uses a station by moving into it. In combat it attacks another agent by moving into it: this costs a laser and
takes the other's ore and batteries, unless the other has an armor, which is used up instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mettagrid.config.action_config import ActionsConfig, ChangeVibeActionConfig
from mettagrid.config.filter import actorHas, targetHas
from mettagrid.config.game_value import stat
from mettagrid.config.handler_config import FirstMatch, Handler
from mettagrid.config.mettagrid_config import (
    AgentConfig,
    GameConfig,
    GridObjectConfig,
    InventoryConfig,
    MettaGridConfig,
    ResourceLimitsConfig,
    WallConfig,
)
from mettagrid.config.mutation import logActorAgentStat, updateActor, updateTarget, withdraw
from mettagrid.config.obs_config import GlobalObsConfig, ObsConfig
from mettagrid.config.reward_config import reward
from mettagrid.map_builder.random_map import RandomMapBuilderConfig

from metta.sim.simulation_config import SimulationConfig
from metta.tools.sim import SimTool
from metta.tools.train import TrainTool
from metta.tools.watch import PlayTool, ReplayTool

RESOURCES = ["ore", "battery", "heart", "laser", "armor"]
SHAPING = {"ore": 0.1, "battery": 0.5}
"""Default reward for each unit gained of the resources that lead to a heart, whose reward is 1."""

WIDTH = HEIGHT = 25
WINDOW, CELLS_IN_SIGHT = 9, 57  # an agent sees a disc with the window's diameter
CARRY_LIMIT = 5
STATIONS = {"mine": 20, "generator": 15, "altar": 15, "lasery": 4, "armory": 4}
WALLS = 10


def make_env(
    num_agents: int = 24, combat: bool = True, shaping: Mapping[str, float] = SHAPING, max_steps: int = 200
) -> MettaGridConfig:
    """Build the arena.

    Args:
        num_agents: agents on the map of 25 by 25.
        combat: whether moving into another agent attacks it.
        shaping: reward for each unit gained of a resource other than hearts; if empty, only hearts are rewarded.
        max_steps: length of an episode, which ends by truncation.
    """
    rewards = {resource: reward(stat(f"{resource}.gained"), weight=weight) for resource, weight in shaping.items()}
    return MettaGridConfig(
        label="arena/combat" if combat else "arena/basic",
        game=GameConfig(
            resource_names=RESOURCES,
            num_agents=num_agents,
            max_steps=max_steps,
            episode_truncates=True,
            # No token for the last reward, so that a policy sees the same game with any shaping.
            obs=ObsConfig(
                width=WINDOW,
                height=WINDOW,
                num_tokens=_most_tokens(num_agents),
                global_obs=GlobalObsConfig(last_reward=False),
            ),
            protocol_details_obs=False,
            actions=ActionsConfig(change_vibe=ChangeVibeActionConfig(enabled=False)),
            agent=AgentConfig(
                inventory=InventoryConfig(
                    default_limit=CARRY_LIMIT,
                    limits={"heart": ResourceLimitsConfig(base=255, resources=["heart"])},
                ),
                rewards={"heart": reward(stat("heart.gained")), **rewards},
                on_use_handler=_attack() if combat else None,
            ),
            objects={
                "wall": WallConfig(),
                "mine": _station("mine", takes={}, gives={"ore": 1}),
                "generator": _station("generator", takes={"ore": 1}, gives={"battery": 1}),
                "altar": _station("altar", takes={"battery": 1}, gives={"heart": 1}),
                "lasery": _station("lasery", takes={"ore": 1, "battery": 1}, gives={"laser": 1}),
                "armory": _station("armory", takes={"ore": 1}, gives={"armor": 1}),
            },
            map_builder=RandomMapBuilderConfig(
                seed=0,
                width=WIDTH,
                height=HEIGHT,
                border_width=1,
                agents=num_agents,
                objects={**STATIONS, "wall": WALLS},
            ),
        ),
    )


def simulations() -> list[SimulationConfig]:
    """What a policy of the arena is evaluated on; the score is the mean number of hearts that an agent gained."""
    return [
        SimulationConfig(name="arena/basic", env=make_env(combat=False), num_episodes=16),
        SimulationConfig(name="arena/combat", env=make_env(combat=True), num_episodes=16),
    ]


def train(run_name: str = "arena") -> TrainTool:
    """Train on the arena with combat."""
    return TrainTool(run_name=run_name, env=make_env(), simulations=simulations())


def evaluate(policy_uri: str) -> SimTool:
    """Evaluate a policy that was trained on the arena."""
    return SimTool(policy_uri=policy_uri, simulations=simulations())


def play(policy_uri: str | None = None, combat: bool = True, seed: int = 0) -> PlayTool:
    """Show an episode in the terminal, by default with an untrained policy."""
    return PlayTool(simulation=_simulation(combat), policy_uri=policy_uri, seed=seed)


def replay(
    to: Path = Path("arena.gif"), policy_uri: str | None = None, combat: bool = True, seed: int = 0
) -> ReplayTool:
    """Write an episode as an animation (``.gif``) or as a replay for mettagrid's viewer (``.json.z``)."""
    return ReplayTool(simulation=_simulation(combat), policy_uri=policy_uri, seed=seed, to=to)


def _simulation(combat: bool) -> SimulationConfig:
    basic, with_combat = simulations()
    return with_combat if combat else basic


def _station(name: str, takes: dict[str, int], gives: dict[str, int]) -> GridObjectConfig:
    """An object that takes resources from its user and gives others in return."""
    deltas = {**{resource: -amount for resource, amount in takes.items()}, **gives}
    return GridObjectConfig(
        name=name,
        on_use_handler=Handler(filters=[actorHas(takes)] if takes else [], mutations=[updateActor(deltas)]),
    )


def _attack() -> FirstMatch:
    """What moving into another agent does. mettagrid 0.26.22 ignores its own attack action and attack mutation."""
    shoot = updateActor({"laser": -1})
    return FirstMatch(
        handlers=[
            Handler(
                name="blocked",
                filters=[actorHas({"laser": 1}), targetHas({"armor": 1})],
                mutations=[shoot, updateTarget({"armor": -1}), logActorAgentStat("attack.blocked")],
            ),
            Handler(
                name="hit",
                filters=[actorHas({"laser": 1})],
                mutations=[shoot, withdraw({"ore": -1, "battery": -1}), logActorAgentStat("attack.hit")],
            ),
        ]
    )


def _most_tokens(num_agents: int) -> int:
    """Tokens of an observation in which no cell is empty, because mettagrid raises an error if they overflow.

    Each cell shows a tag; an agent also shows its group, its number and each resource that it has. Two tokens show
    the progress of the episode and the agent's last action.
    """
    return CELLS_IN_SIGHT + min(num_agents, CELLS_IN_SIGHT) * (2 + len(RESOURCES)) + 2
