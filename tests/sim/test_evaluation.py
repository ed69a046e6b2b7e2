import math
import statistics
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.arena import make_env
from metta.sim.evaluation import Evaluation, SimulationResult
from metta.sim.metrics import metric_names
from metta.sim.simulation_config import SimulationConfig

ENV = make_env(num_agents=2)


def result(name: str, *hearts: float) -> SimulationResult:
    """One episode for each number of hearts, each with a seed that no other simulation has."""
    first = zlib.crc32(name.encode())
    return on_seeds(name, {first + index: value for index, value in enumerate(hearts)})


def on_seeds(name: str, hearts: dict[int, float]) -> SimulationResult:
    episodes = [{"heart.gained": value} for value in hearts.values()]
    return SimulationResult(SimulationConfig(name=name, env=ENV), episodes, list(hearts))


EVALUATION = Evaluation([result("a/one", 1, 3), result("a/two", 5, 5), result("b/only", 10, 12, 14)], seconds=1.0)


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


def test_simulations_on_the_same_maps_are_not_independent() -> None:
    """A map that is easy in both raises both, so the error of the mean is not that of twice as many episodes."""
    easy_and_hard = [on_seeds(f"a/{name}", {1: 10, 2: 20}) for name in ("one", "two")]
    assert Evaluation(easy_and_hard, 1.0).average.stderr == pytest.approx(5)
    opposed = [on_seeds("a/one", {1: 10, 2: 20}), on_seeds("a/two", {1: 20, 2: 10})]
    assert Evaluation(opposed, 1.0).average.stderr == pytest.approx(0)


def test_one_episode_has_no_standard_error() -> None:
    metrics = Evaluation([result("a/one", 1), result("a/two", 2, 4)], seconds=1.0).metrics()
    assert metrics["a"] == 2
    assert "a/two.stderr" in metrics
    assert not {"a/one.stderr", "a.stderr", "avg_category_score.stderr"} & metrics.keys()


def test_a_stat_that_did_not_occur_is_zero() -> None:
    simulation = SimulationConfig(name="a/one", env=ENV)
    episodes = [{"heart.gained": 2.0, "attack.hit": 1.0}, {"heart.gained": 4.0}]
    evaluation = Evaluation([SimulationResult(simulation, episodes, seeds=[0, 1])], seconds=1.0)
    metrics = evaluation.metrics()
    assert metrics["a/one/attack.hit"] == 0.5
    assert metrics["a/one/laser.gained"] == 0
    assert metrics.keys() >= set(metric_names([simulation])), "what a sweep may aim at is always measured"


def test_the_summary_uses_the_terms_of_the_game() -> None:
    played = SimulationResult(SimulationConfig(name="a/one", env=ENV), [{"ore.gained": 7.5}], seeds=[0])
    (line,) = Evaluation([played], seconds=1.0).summary()
    assert line.startswith("a/one")
    assert "7.50 ore" in line


@given(st.lists(st.lists(st.floats(-10, 10), min_size=2, max_size=5), min_size=1, max_size=4))
def test_a_category_lies_among_its_simulations(episodes: list[list[float]]) -> None:
    evaluation = Evaluation([result(f"a/{number}", *hearts) for number, hearts in enumerate(episodes)], 1.0)
    means = [score.mean for score in evaluation.simulation_scores.values()]
    assert min(means) - 1e-9 <= evaluation.average.mean <= max(means) + 1e-9
    assert evaluation.average.stderr is not None
    assert evaluation.average.stderr <= max(score.stderr or 0 for score in evaluation.simulation_scores.values()) + 1e-9
