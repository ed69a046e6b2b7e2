import numpy as np
import pytest
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator.simulator import Simulation

from experiments import arena, navigation
from metta.rl.checkpoint import load_policy
from metta.rl.environment import EMPTY, Buffers, Environment, EnvironmentSpec
from metta.sim.evaluate import evaluate, evaluation_seeds
from metta.sim.league import KEPT
from metta.sim.round_trip import check_round_trip

SYMBOLS = {
    "#": "wall",
    ".": "empty",
    "@": "agent.agent",
    "M": "mine",
    "G": "generator",
    "A": "altar",
    "L": "lasery",
    "R": "armory",
}


def on_map(env: MettaGridConfig, rows: list[str], *inventories: dict[str, int]) -> MettaGridConfig:
    """The same game on a drawn map, with an inventory for each agent."""
    env.game.num_agents = len(inventories)
    env.game.agents = [env.game.agent.model_copy(deep=True) for _ in inventories]
    for agent, inventory in zip(env.game.agents, inventories, strict=True):
        agent.inventory.initial = inventory
    return env.with_ascii_map([list(row) for row in rows], SYMBOLS)


def play(env: MettaGridConfig, *moves: str) -> Simulation:
    """The first agent moves and the others stand still."""
    simulation = Simulation(env)
    for move in moves:
        for agent in simulation.agents():
            agent.set_action("noop")
        simulation.agent(0).set_action(f"move_{move}")
        simulation.step()
    return simulation


def held(simulation: Simulation, agent: int = 0) -> dict[str, int]:
    return {name: amount for name, amount in simulation.agent(agent).inventory.items() if amount}


CHAIN = ["######", "#MGA.#", "#@...#", "######"]


def test_a_heart_takes_ore_and_a_battery() -> None:
    game = play(on_map(arena.make_env(), CHAIN, {}), "north", "east", "north", "east", "north")
    assert held(game) == {"heart": 1}
    stats = game.episode_stats["agent"][0]
    assert (stats["ore.gained"], stats["battery.gained"], stats["heart.gained"]) == (1, 1, 1)


@pytest.mark.parametrize("column", ["GA", "AG"])
def test_a_station_gives_nothing_to_an_agent_without_its_inputs(column: str) -> None:
    game = play(on_map(arena.make_env(), ["####", f"#{column}#", "#@.#", "####"], {}), "north", "east", "north")
    assert held(game) == {}
    assert game.agent(0).last_action_success is False


def test_an_agent_carries_five_of_a_kind() -> None:
    game = play(on_map(arena.make_env(), CHAIN, {}), *["north"] * 9)
    assert held(game) == {"ore": arena.CARRY_LIMIT}
    assert game.episode_stats["agent"][0]["ore.gained"] == arena.CARRY_LIMIT


@pytest.mark.parametrize(("combat", "left"), [(True, {"battery": 1}), (False, {})])
def test_arms_are_made_of_ore_and_without_combat_of_a_battery_too(combat: bool, left: dict[str, int]) -> None:
    rows = ["####", "#LR#", "#@.#", "####"]
    game = play(on_map(arena.make_env(combat=combat), rows, {"ore": 2, "battery": 1}), "north", "east", "north")
    assert held(game) == {"laser": 1, "armor": 1, **left}


def test_reward_is_hearts_and_shaping_pays_for_the_steps() -> None:
    moves = ["north", "east", "north", "east", "north"]
    plain = play(on_map(arena.make_env(shaping={}), CHAIN, {}), *moves)
    shaped = play(on_map(arena.make_env(shaping={"ore": 0.25, "battery": 0.5}), CHAIN, {}), *moves)
    assert plain.episode_rewards.tolist() == [1.0]
    assert shaped.episode_rewards.tolist() == [1.75]


DUEL = ["#####", "#@@.#", "#####"]


def test_a_hit_costs_a_laser_wins_hearts_and_takes_ore_and_batteries() -> None:
    loaded = {"ore": 3, "battery": 2, "heart": 4}
    game = play(on_map(arena.make_env(), DUEL, {"laser": 2}, loaded), "east")
    assert held(game, 0) == {"laser": 1, "ore": 3, "battery": 2, "heart": arena.BOUNTY}
    assert held(game, 1) == {"heart": 4}
    assert game.episode_stats["agent"][0]["attack.hit"] == 1


def test_armor_stops_one_attack() -> None:
    env = on_map(arena.make_env(), DUEL, {"laser": 2}, {"ore": 3, "armor": 1})
    game = play(env, "east")
    assert held(game, 0) == {"laser": 1}
    assert held(game, 1) == {"ore": 3, "heart": arena.PARRY}
    attacker, defender = game.episode_stats["agent"]
    assert attacker["attack.blocked"] == defender["defence.blocked"] == 1
    assert held(play(env, "east", "east"), 0) == {"ore": 3, "heart": arena.BOUNTY}


def act(simulation: Simulation, *moves: str) -> None:
    for agent, move in zip(simulation.agents(), moves, strict=True):
        agent.set_action(move)
    simulation.step()


def test_an_agent_that_was_hit_can_use_nothing_and_is_not_hit_again_until_it_recovers() -> None:
    rows = ["#####", "#@@M#", "#####"]
    game = Simulation(on_map(arena.make_env(), rows, {"laser": 3}, {"laser": 1}))
    act(game, "move_east", "noop")
    for _ in range(arena.STUN_STEPS):
        act(game, "move_east", "move_east")
        assert (held(game, 0), held(game, 1)) == ({"laser": 2, "heart": arena.BOUNTY}, {"laser": 1})
    act(game, "noop", "move_east")
    assert held(game, 1) == {"laser": 1, "ore": 1}
    assert game.episode_stats["agent"][1]["stunned.steps"] == arena.STUN_STEPS
    act(game, "move_east", "noop")
    assert held(game, 0) == {"laser": 1, "heart": 2 * arena.BOUNTY, "ore": 1}


def test_an_agent_that_was_hit_cannot_attack() -> None:
    game = Simulation(on_map(arena.make_env(), DUEL, {"laser": 1}, {"laser": 1}))
    act(game, "move_east", "noop")
    act(game, "noop", "move_west")
    assert held(game, 1) == {"laser": 1}


def test_nobody_attacks_without_a_laser() -> None:
    game = play(on_map(arena.make_env(), DUEL, {"ore": 1}, {"ore": 3}), "east")
    assert (held(game, 0), held(game, 1)) == ({"ore": 1}, {"ore": 3})


def test_without_combat_lasers_do_nothing() -> None:
    game = play(on_map(arena.make_env(combat=False), DUEL, {"laser": 2}, {"ore": 3}), "east")
    assert (held(game, 0), held(game, 1)) == ({"laser": 2}, {"ore": 3})


def test_shaping_and_combat_do_not_change_what_a_policy_sees() -> None:
    specs = {EnvironmentSpec.of(env) for env in (arena.make_env(), arena.make_env(combat=False, shaping={}))}
    assert len(specs) == 1
    random = np.random.default_rng(0).integers(0, 5, size=(30, 24))
    first, second = (observe(arena.make_env(shaping=shaping), 1, random) for shaping in ({}, {"ore": 0.5}))
    np.testing.assert_array_equal(first, second)


def test_the_fullest_window_fits_the_observation() -> None:
    """One of 24 agents that stand close together, each with every resource, sees all of them and no empty cell."""
    crowd = "@" * 24 + "MMM"
    rows = ["M" * 9] * 3 + [crowd[:9], crowd[9:18], crowd[18:]] + ["M" * 9] * 3
    everything = dict.fromkeys(arena.RESOURCES, 1)
    env = on_map(arena.make_env(), rows, *[everything] * 24)
    tokens = (Simulation(env)._c_sim.observations()[:, :, 0] != EMPTY).sum(axis=1)
    assert tokens.max() == env.game.obs.num_tokens


def test_maps_are_the_same_with_and_without_combat() -> None:
    basic, combat = arena.simulations()
    assert evaluation_seeds(basic) == evaluation_seeds(combat)
    nothing = np.zeros((0, 24), dtype=np.int64)
    np.testing.assert_array_equal(observe(basic.env, 3, nothing), observe(combat.env, 3, nothing))


def test_where_nobody_has_a_laser_combat_changes_nothing() -> None:
    to_stations_and_agents = np.random.default_rng(1).integers(0, 5, size=(200, 24))
    basic, combat = arena.make_env(combat=False), arena.make_env(combat=True)
    for each in (basic, combat):
        each.game.objects["lasery"].on_use_handler = None
    np.testing.assert_array_equal(observe(basic, 5, to_stations_and_agents), observe(combat, 5, to_stations_and_agents))


def test_ore_is_scarce_and_walls_are_many_in_settings_of_their_own() -> None:
    def count(setting: str, name: str) -> int:
        builder = arena.SETTINGS[setting]().env.game.map_builder.create()
        return int((builder.build().grid == name).sum())

    assert [count(setting, "mine") for setting in ("basic", "scarce")] == [20, arena.SCARCE_MINES]
    assert count("walls", "wall") - count("basic", "wall") == arena.MANY_WALLS - arena.WALLS
    assert count("walls", "mine") == count("basic", "mine")


ENVIRONMENTS = [
    arena.make_env(),
    arena.make_env(combat=False),
    arena.make_env(mines=arena.SCARCE_MINES),
    arena.make_env(walls=arena.MANY_WALLS),
    arena.make_env(num_agents=3, shaping={}),
    navigation.make_env(),
    navigation.make_env(walled=True),
]


def observe(env: MettaGridConfig, seed: int, actions: np.ndarray) -> np.ndarray:
    """Every observation of an episode with these actions, [steps + 1, agents, tokens, 3]."""
    spec = EnvironmentSpec.of(env)
    buffers = Buffers.allocate(spec)
    environment = Environment(env, buffers)
    environment.reset(seed)
    seen = [buffers.observations.copy()]
    for step in actions:
        buffers.actions[:] = step[: spec.num_agents]
        environment.step()
        seen.append(buffers.observations.copy())
    return np.stack(seen)


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=lambda env: env.label)
def test_an_environment_survives_json(env: MettaGridConfig) -> None:
    assert check_round_trip(env) is env


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=lambda env: env.label)
def test_a_seed_repeats_a_trajectory_and_another_makes_another(env: MettaGridConfig) -> None:
    actions = np.random.default_rng(0).integers(0, 5, size=(30, 24))
    first = observe(env, 5, actions)
    np.testing.assert_array_equal(first, observe(env, 5, actions))
    assert (first[0] != observe(env, 6, actions[:0])[0]).any(), "another seed must draw another map"


def test_an_episode_is_cut_off_at_its_length() -> None:
    env = arena.make_env(num_agents=2, max_steps=3)
    buffers = Buffers.allocate(EnvironmentSpec.of(env))
    environment = Environment(env, buffers)
    environment.reset(0)
    for _ in range(3):
        assert not environment.done
        environment.step()
    assert environment.done
    assert buffers.truncations.all()
    assert not buffers.terminals.any()


def test_the_best_policy_without_combat_is_not_the_best_with_it() -> None:
    """Two kept policies: one was trained without combat and one with it."""
    simulations = [each.model_copy(update={"num_episodes": 12}) for each in arena.simulations()]
    miners, fighters = (evaluate(load_policy(str(KEPT / name)), simulations) for name in ("miners", "fighters"))
    for simulation, better, worse in (("arena/basic", miners, fighters), ("arena/combat", fighters, miners)):
        high, low = better.metrics(), worse.metrics()
        error = np.hypot(high[f"{simulation}.stderr"], low[f"{simulation}.stderr"])
        assert high[simulation] - low[simulation] > 3 * error
    assert fighters.metrics()["arena/combat/attack.hit"] > 10 * miners.metrics()["arena/combat/attack.hit"]
