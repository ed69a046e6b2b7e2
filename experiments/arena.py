"""The arena: agents mine ore, turn it into batteries and those into hearts, and may rob each other.

::

    mine ──> ore ──> generator ──> battery ──> altar ──> heart
              ├────────────────────────┴────> lasery ──> laser
              └─────────────────────────────> armory ──> armor

An agent uses a station by moving into it. In combat it attacks another agent by moving into it, which costs a laser.
A hit is worth `BOUNTY` hearts, takes the other's ore and batteries, and stuns it: for `STUN_STEPS` steps it can use
no station, cannot attack, and cannot be hit again. An agent that has an armor is not hit: the armor is used up instead,
and is worth `PARRY` hearts. So in combat lasers and armors are other ways to hearts. Without combat both are useless.

Agents see each other's inventories and which are stunned, but not whether there is combat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mettagrid.config.action_config import ActionsConfig, ChangeVibeActionConfig
from mettagrid.config.filter import (
    GameValueFilter,
    HandlerTarget,
    actorHas,
    actorVibe,
    targetHas,
    targetVibe,
)
from mettagrid.config.game_value import SumGameValue, stat, val
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
from mettagrid.config.mutation import (
    AnyMutation,
    ChangeVibeMutation,
    EntityTarget,
    StatsEntity,
    StatsMutation,
    StatsTarget,
    logActorAgentStat,
    logTargetAgentStat,
    updateActor,
    updateTarget,
    withdraw,
)
from mettagrid.config.obs_config import GlobalObsConfig, ObsConfig
from mettagrid.config.reward_config import reward
from mettagrid.map_builder.random_map import RandomMapBuilderConfig

from metta.rl.trainer_config import PolicyConfig, PPOConfig, TrainerConfig
from metta.sim.simulation_config import SimulationConfig
from metta.tools.sim import SimTool
from metta.tools.train import TrainTool
from metta.tools.watch import PlayTool, ReplayTool

RESOURCES = ["ore", "battery", "heart", "laser", "armor"]
SHAPING = {"ore": 0.1, "battery": 0.5}
COMBAT_SHAPING = {**SHAPING, "laser": 0.5}
"""Default reward for each unit gained of the resources that lead to a heart, whose reward is 1."""

WIDTH = HEIGHT = 25
WINDOW, CELLS_IN_SIGHT = 9, 57  # an agent sees a disc with the window's diameter
CARRY_LIMIT = 5
STATIONS = {"mine": 20, "generator": 15, "altar": 15, "lasery": 4, "armory": 4}
LASER, LASER_IN_COMBAT = {"ore": 1, "battery": 1}, {"ore": 1}
"""The resources that a laser consists of."""
SCARCE_MINES = 5
WALLS, MANY_WALLS = 10, 90

EPISODES = 64
"""Episodes of each simulation. A score of 17 hearts then has a standard error of 0.35."""
OPPONENTS = ("random", "miners", "fighters")
"""A policy's opponents in the league: random agents, and agents trained without and with combat."""

BOUNTY, PARRY = 5, 2
"""Hearts for a hit, and for an attack that the agent's armor stopped."""
STUN_STEPS = 5
"""Steps for which an agent that was hit cannot move, and cannot be hit again."""
AWAKE, STUNNED = "default", "junction"
"""Vibes of mettagrid, which other agents see."""


TRAINER = TrainerConfig(
    total_timesteps=3_000_000,
    anneal_learning_rate=True,
    ppo=PPOConfig(gamma=0.95, gae_lambda=0.8, ent_coef=0.01, update_epochs=3),
    policy=PolicyConfig(hidden_size=64),
)
"""How the arena is trained; docs/recipes.md compares it with the trainer's defaults."""


def make_env(
    num_agents: int = 24,
    combat: bool = True,
    shaping: Mapping[str, float] | None = None,
    max_steps: int = 200,
    mines: int = STATIONS["mine"],
    walls: int = WALLS,
) -> MettaGridConfig:
    """Build the arena.

    Args:
        num_agents: agents on the map of 25 by 25.
        combat: whether moving into another agent attacks it.
        shaping: reward for each unit gained of a resource other than hearts; if empty, only hearts are rewarded. By
            default `COMBAT_SHAPING` or `SHAPING`.
        max_steps: length of an episode, which ends by truncation.
        mines: mines on the map; the numbers of other stations are `STATIONS`.
        walls: the number of wall cells, not counting the border.
    """
    if shaping is None:
        shaping = COMBAT_SHAPING if combat else SHAPING
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
                on_tick=_recover() if combat else None,
            ),
            objects={
                "wall": WallConfig(),
                "mine": _station("mine", combat, takes={}, gives={"ore": 1}),
                "generator": _station("generator", combat, takes={"ore": 1}, gives={"battery": 1}),
                "altar": _station("altar", combat, takes={"battery": 1}, gives={"heart": 1}),
                "lasery": _station("lasery", combat, takes=LASER_IN_COMBAT if combat else LASER, gives={"laser": 1}),
                "armory": _station("armory", combat, takes={"ore": 1}, gives={"armor": 1}),
            },
            map_builder=RandomMapBuilderConfig(
                seed=0,
                width=WIDTH,
                height=HEIGHT,
                border_width=1,
                agents=num_agents,
                objects={**STATIONS, "mine": mines, "wall": walls},
            ),
        ),
    )


def simulations() -> list[SimulationConfig]:
    """The simulations that evaluate a policy; the score is the mean number of hearts that an agent gained."""
    return [SETTINGS["basic"](), SETTINGS["combat"]()]


def _setting(name: str, **settings: Any) -> Callable[[], SimulationConfig]:
    return lambda: SimulationConfig(name=f"arena/{name}", env=make_env(**settings), num_episodes=EPISODES)


def league(opponents: Sequence[str] = OPPONENTS) -> SimulationConfig:
    """Matches in combat, twelve agents against twelve; the score is the share of matches won.

    Args:
        opponents: see `SimulationConfig`.
    """
    return SimulationConfig(
        name="arena/league",
        env=make_env(combat=True, shaping={}),
        num_episodes=EPISODES,
        score="win",
        opponents=list(opponents),
    )


SETTINGS: dict[str, Callable[[], SimulationConfig]] = {
    "basic": _setting("basic", combat=False),
    "combat": _setting("combat", combat=True),
    "scarce": _setting("scarce", combat=False, mines=SCARCE_MINES),
    "walls": _setting("walls", combat=False, walls=MANY_WALLS),
    "league": league,
}
"""Makes each simulation of the arena, by its name without ``arena/``."""

Setting = Literal["basic", "combat", "scarce", "walls", "league"]


def train(run_name: str = "arena", combat: bool = False) -> TrainTool:
    """Train on the arena, and evaluate with and without combat.

    Args:
        run_name: the run's name.
        combat: whether agents attack each other in training.
    """
    return TrainTool(
        run_name=run_name,
        trainer=TRAINER.model_copy(deep=True),
        env=make_env(combat=combat),
        simulations=simulations(),
    )


def evaluate(policy_uri: str, settings: Sequence[Setting] = ("basic", "combat", "scarce", "walls")) -> SimTool:
    """Evaluate a policy that was trained on the arena.

    Args:
        policy_uri: a checkpoint's folder, as printed by the training.
        settings: the simulations to play. "league" gives a share of matches won, the others hearts.
    """
    return SimTool(policy_uri=policy_uri, simulations=[SETTINGS[setting]() for setting in settings])


def play(policy_uri: str | None = None, setting: Setting = "combat", seed: int = 0) -> PlayTool:
    """Show an episode in the terminal, by default with an untrained policy."""
    return PlayTool(simulation=SETTINGS[setting](), policy_uri=policy_uri, seed=seed)


def replay(
    to: Path = Path("arena.gif"), policy_uri: str | None = None, setting: Setting = "combat", seed: int = 0
) -> ReplayTool:
    """Write an episode as an animation (``.gif``) or as a replay for mettagrid's viewer (``.json.z``)."""
    return ReplayTool(simulation=SETTINGS[setting](), policy_uri=policy_uri, seed=seed, to=to)


def _station(name: str, combat: bool, takes: dict[str, int], gives: dict[str, int]) -> GridObjectConfig:
    """An object that takes resources from its user and gives others in return. Stunned agents cannot use it."""
    deltas = {**{resource: -amount for resource, amount in takes.items()}, **gives}
    filters = [*([actorVibe(AWAKE)] if combat else []), *([actorHas(takes)] if takes else [])]
    return GridObjectConfig(name=name, on_use_handler=Handler(filters=filters, mutations=[updateActor(deltas)]))


def _attack() -> FirstMatch:
    """The effect of moving into another agent. mettagrid 0.26.22 ignores its own attack action and attack mutation."""
    shoot = updateActor({"laser": -1})
    ready = [actorVibe(AWAKE), actorHas({"laser": 1}), targetVibe(AWAKE)]
    return FirstMatch(
        handlers=[
            Handler(
                name="blocked",
                filters=[*ready, targetHas({"armor": 1})],
                mutations=[
                    shoot,
                    updateTarget({"armor": -1, "heart": PARRY}),
                    logActorAgentStat("attack.blocked"),
                    logTargetAgentStat("defence.blocked"),
                ],
            ),
            Handler(
                name="hit",
                filters=ready,
                mutations=[
                    shoot,
                    withdraw({"ore": -1, "battery": -1}),
                    updateActor({"heart": BOUNTY}),
                    logActorAgentStat("attack.hit"),
                    *_stun(),
                ],
            ),
        ]
    )


def _stun() -> list[AnyMutation]:
    """The mutations that prevent the target from moving for `STUN_STEPS` steps; see `_recover`."""
    until = SumGameValue(values=[stat("stunned.steps"), val(STUN_STEPS)])
    return [
        ChangeVibeMutation(target=EntityTarget.TARGET, vibe_name=STUNNED),
        StatsMutation(stat="stunned.until", target=StatsTarget.AGENT, entity=StatsEntity.TARGET, source=until),
    ]


def _recover() -> FirstMatch:
    """The effect of each step on a stunned agent: it counts the step, and the last one frees the agent."""
    stunned = actorVibe(STUNNED)
    over = GameValueFilter(target=HandlerTarget.ACTOR, value=stat("stunned.steps"), min=stat("stunned.until"))
    return FirstMatch(
        handlers=[
            Handler(
                name="recover",
                filters=[stunned, over],
                mutations=[ChangeVibeMutation(target=EntityTarget.ACTOR, vibe_name=AWAKE)],
            ),
            Handler(name="stunned", filters=[stunned], mutations=[logActorAgentStat("stunned.steps")]),
        ]
    )


def _most_tokens(num_agents: int) -> int:
    """Tokens of an observation in which no cell is empty, because mettagrid raises an error if they overflow.

    Each cell shows a tag; an agent also shows its group, its number and each resource that it has. Two tokens show
    the progress of the episode and the agent's last action.
    """
    return CELLS_IN_SIGHT + min(num_agents, CELLS_IN_SIGHT) * (2 + len(RESOURCES)) + 2
