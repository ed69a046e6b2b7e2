import pytest
from mettagrid.config.handler_config import Handler
from mettagrid.config.mutation import logStatToGame

from experiments import arena, navigation
from metta.common.config import ConfigError
from metta.common.errors import UserError
from metta.sim.metrics import check_simulations, metric_names
from metta.sim.simulation_config import SimulationConfig

SIMULATIONS = [*arena.simulations(), *navigation.simulations()]


@pytest.mark.parametrize(
    "name",
    [
        "avg_category_score",
        "arena",
        "navigation",
        "arena/combat",
        "arena/basic/heart.gained",
        "arena/combat/attack.hit",
    ],
)
def test_scores_and_stats_are_metrics(name: str) -> None:
    assert name in metric_names(SIMULATIONS)
    arena.train().check_metric(name, SIMULATIONS)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("arena/basc", "arena/basic"),
        ("arena/basic/hart.gained", "arena/basic/heart.gained"),
        ("navigation/open/ore.gained", "navigation/open/"),  # there is no ore to navigate to
        ("arena/basic/attack.hit", "arena/combat/attack.hit"),  # nobody attacks there
        ("arena.stderr", "arena"),
    ],
)
def test_an_unknown_metric_is_refused_with_the_nearest_names(name: str, suggestion: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean.*'{suggestion}"):
        arena.train().check_metric(name, SIMULATIONS)


def test_what_a_handler_logs_is_a_metric() -> None:
    env = arena.make_env()
    env.game.agent.on_tick = Handler(mutations=[logStatToGame("ticks")])
    assert "arena/combat/game/ticks" in metric_names([SimulationConfig(name="arena/combat", env=env)])
    assert "arena/combat/game/ticks" not in metric_names(SIMULATIONS)


def test_simulations_must_have_different_names() -> None:
    with pytest.raises(UserError, match="two simulations are named 'arena/basic'"):
        check_simulations([*SIMULATIONS, SIMULATIONS[0]])
    with pytest.raises(UserError, match="no simulations"):
        check_simulations([])
    with pytest.raises(UserError, match="no category may be named"):
        check_simulations([SimulationConfig(name="avg_category_score/a", env=arena.make_env())])


@pytest.mark.parametrize("name", ["arena", "arena/", "arena/a/b", "arena/a.b", "/a"])
def test_a_name_is_a_category_and_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        SimulationConfig(name=name, env=arena.make_env())


def test_the_score_must_be_a_stat_of_the_game() -> None:
    with pytest.raises(UserError, match=r"did you mean 'heart\.gained'"):
        SimulationConfig(name="arena/basic", env=arena.make_env(), score="heart.gain")


def test_a_simulation_must_end() -> None:
    env = arena.make_env(max_steps=0)
    with pytest.raises(UserError, match="might never end"):
        SimulationConfig(name="arena/basic", env=env)
    SimulationConfig(name="arena/basic", env=env, max_seconds=1)
