import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.arena import make_env
from metta.sim.evaluation import Evaluation, SimulationResult
from metta.sim.metrics import metric_names
from metta.sim.simulation_config import SimulationConfig

ENV = make_env(num_agents=2)


def result(name: str, *hearts: float) -> SimulationResult:
    return SimulationResult(SimulationConfig(name=name, env=ENV), [{"heart.gained": value} for value in hearts])


EVALUATION = Evaluation([result("a/one", 1, 3), result("a/two", 5, 5), result("b/only", 10, 12, 14)])


def test_scores_are_means_of_episodes_simulations_and_categories() -> None:
    metrics = EVALUATION.metrics()
    assert metrics["a/one"] == 2
    assert metrics["a/two"] == 5
    assert metrics["a"] == 3.5
    assert metrics["b"] == metrics["b/only"] == 12
    assert metrics["avg_category_score"] == (3.5 + 12) / 2  # not the mean over three simulations
    assert metrics["b/only.episodes"] == 3


def test_standard_errors_are_those_of_independent_episodes() -> None:
    metrics = EVALUATION.metrics()
    assert metrics["a/one.stderr"] == pytest.approx(statistics.stdev([1, 3]) / math.sqrt(2))
    assert metrics["b/only.stderr"] == pytest.approx(2 / math.sqrt(3))
    assert metrics["a.stderr"] == pytest.approx(metrics["a/one.stderr"] / 2)
    assert metrics["avg_category_score.stderr"] == pytest.approx(
        math.hypot(metrics["a.stderr"], metrics["b.stderr"]) / 2
    )


def test_one_episode_has_no_standard_error() -> None:
    metrics = Evaluation([result("a/one", 1), result("a/two", 2, 4)]).metrics()
    assert metrics["a"] == 2
    assert "a/two.stderr" in metrics
    assert not {"a/one.stderr", "a.stderr", "avg_category_score.stderr"} & metrics.keys()


def test_a_stat_that_did_not_occur_is_zero() -> None:
    simulation = SimulationConfig(name="a/one", env=ENV)
    evaluation = Evaluation([SimulationResult(simulation, [{"heart.gained": 2, "attack.hit": 1}, {"heart.gained": 4}])])
    metrics = evaluation.metrics()
    assert metrics["a/one/attack.hit"] == 0.5
    assert metrics["a/one/laser.gained"] == 0
    assert metrics.keys() >= set(metric_names([simulation])), "what a sweep may aim at is always measured"


def test_the_summary_uses_the_terms_of_the_game() -> None:
    (line,) = Evaluation([SimulationResult(SimulationConfig(name="a/one", env=ENV), [{"ore.gained": 7.5}])]).summary()
    assert line.startswith("a/one")
    assert "7.50 ore" in line


@given(st.lists(st.lists(st.floats(-10, 10), min_size=2, max_size=5), min_size=1, max_size=4))
def test_a_category_lies_among_its_simulations(episodes: list[list[float]]) -> None:
    evaluation = Evaluation([result(f"a/{number}", *hearts) for number, hearts in enumerate(episodes)])
    means = [score.mean for score in evaluation.simulation_scores.values()]
    assert min(means) - 1e-9 <= evaluation.average.mean <= max(means) + 1e-9
    assert evaluation.average.stderr is not None
    assert evaluation.average.stderr <= max(score.stderr or 0 for score in evaluation.simulation_scores.values()) + 1e-9
