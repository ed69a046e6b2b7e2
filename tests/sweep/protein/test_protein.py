"""What the optimiser promises of its suggestions."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from metta.sweep.protein import Protein, SpaceError
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

SPACE: dict[str, Any] = {
    "trainer": {
        "learning_rate": ParameterConfig(min=1e-5, max=1e-1, distribution="log_normal"),
        "epochs": ParameterConfig(min=1, max=50, distribution="int_uniform"),
        "activation": ParameterConfig(choices=["relu", "gelu", True, 1], distribution="categorical"),
    },
    "seed": 7,
}


def make(goal: str = "maximize", seed: int = 0, num_trials: int | None = 20, **settings: Any) -> Protein:
    config = ProteinConfig.model_validate(
        {"metric": "m", "goal": goal, "parameters": SPACE, "settings": {"num_random_samples": 4, **settings}}
    )
    return Protein(config, seed=seed, num_trials=num_trials)


def objective(params: dict[str, Any]) -> tuple[float, float]:
    trainer = params["trainer"]
    score = -abs(math.log10(trainer["learning_rate"]) + 3.0) + trainer["epochs"] / 50
    return score + (trainer["activation"] == "gelu"), float(trainer["epochs"])


def run(protein: Protein, trials: int, sign: float = 1.0) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    suggestions = []
    for _ in range(trials):
        params, info = protein.suggest()
        score, cost = objective(params)
        protein.observe(params, sign * score, cost)
        suggestions.append((params, info))
    return suggestions


def test_the_search_centre_comes_first() -> None:
    params, info = make().suggest()
    assert params["trainer"]["learning_rate"] == pytest.approx(1e-3)
    assert params["trainer"]["activation"] == "relu"
    assert params["seed"] == 7
    assert info["source"] == "search centre"


def test_it_finds_a_good_score() -> None:
    protein = make()
    run(protein, 20)
    assert objective(dict(protein.best().params))[0] > 1.8


def test_suggestions_are_the_same_after_a_rebuild_in_any_order() -> None:
    live = make()
    history = run(live, 9)
    outstanding, outstanding_info = live.suggest()
    rebuilt = make()
    rebuilt.suggested(9, json.loads(json.dumps(outstanding)), json.loads(json.dumps(outstanding_info)))
    for number in reversed(range(9)):
        params, info = json.loads(json.dumps(history[number]))
        rebuilt.observe(params, *objective(params), number=number, info=info)
    assert rebuilt.suggest() == live.suggest()


FRESH = """
import json, sys
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ProteinConfig
given = json.load(sys.stdin)
protein = Protein(ProteinConfig.model_validate(given["config"]), seed=0)
for number, (params, score, info) in enumerate(given["trials"]):
    protein.observe(params, score, 1.0, number=number, info=info)
print(json.dumps(protein.suggest()))
"""


@pytest.mark.parametrize("length", [20, 104])
def test_a_process_that_lived_through_the_sweep_and_a_fresh_one_suggest_the_same(length: int) -> None:
    """While score models are drawn, and where fits take turns; the fresh process has another number of BLAS threads."""
    config = {"metric": "m", "parameters": {f"x{i}": {"min": 0, "max": 1, "distribution": "uniform"} for i in range(3)}}
    live, trials = Protein(ProteinConfig.model_validate(config), seed=0), []
    for i in range(length):
        params: dict[str, Any] = {f"x{j}": (i * (0.5 + j / 7)) % 1 for j in range(3)}
        info: dict[str, Any] = {}
        if i >= length - 8:
            params, info = live.suggest()
        score = math.sin(5 * params["x0"]) - params["x1"] ** 2
        live.observe(params, score, 1.0)
        trials.append((params, score, info))
    given = json.dumps({"config": config, "trials": trials})
    threads = {"OPENBLAS_NUM_THREADS": "3"}
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH], input=given, check=True, capture_output=True, text=True, env=os.environ | threads
    )
    assert json.loads(fresh.stdout) == json.loads(json.dumps(live.suggest()))


def test_minimising_mirrors_maximising() -> None:
    up = [params for params, _ in run(make("maximize"), 12)]
    down = [params for params, _ in run(make("minimize"), 12, sign=-1.0)]
    assert up == down


def test_outstanding_suggestions_differ() -> None:
    protein = make()
    run(protein, 6)
    batch = [json.dumps(params) for params, _ in protein.suggest(8)]
    assert len(set(batch)) == 8


def test_params_may_be_flat() -> None:
    protein = make()
    params, _ = protein.suggest()
    flat = {f"trainer.{name}": value for name, value in params["trainer"].items()}
    protein.observe(flat, 1.0, 1.0)
    assert [o.number for o in protein.observations] == [0]


def test_a_forgotten_suggestion_is_made_again() -> None:
    protein = make()
    run(protein, 6)
    first, info = protein.suggest()
    protein.forget(info["number"])
    assert protein.suggest()[0] == first
    with pytest.raises(KeyError):
        protein.forget(99)


@pytest.mark.parametrize(
    ("score", "cost", "message"),
    [
        (None, 1.0, "score is missing"),
        (1.0, math.nan, "cost must be a finite number"),
        (1.0, math.inf, "cost must be a finite number"),
        (1.0, -1.0, "cost must be a finite number of at least 0"),
        (1.0, 10**400, "cost must be a number: 10*.* is too large"),
        ("1", 1.0, "score must be a number: '1' is not a number"),
        (True, 1.0, "score must be a number"),
    ],
)
def test_wrong_numbers_are_named(score: Any, cost: Any, message: str) -> None:
    protein = make()
    params, _ = protein.suggest()
    with pytest.raises(ValueError, match=message):
        protein.observe(params, score, cost)


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf, "1"])
def test_a_wrong_noise_is_named(noise: Any) -> None:
    with pytest.raises(ValueError, match="noise"):
        one_parameter().observe({"x0": 0.5}, 1.0, 1.0, noise=noise)


def test_wrong_hyperparameters_are_named() -> None:
    with pytest.raises(SpaceError, match=r"trainer\.epochs: missing"):
        make().observe({"trainer": {"learning_rate": 1e-3}}, 1.0, 1.0)
    with pytest.raises(SpaceError, match=r"trainer\.learning_rate: -1.0 is not above 0, and .* is on a log"):
        make().observe({"trainer": {"learning_rate": -1.0, "epochs": 1, "activation": 1}}, 1.0, 1.0)


def test_a_score_that_is_not_finite_is_a_failure() -> None:
    protein = make()
    params, _ = protein.suggest()
    protein.observe(params, math.nan, 1.0)
    assert protein.observations[0].is_failure


def test_failures_need_no_score_or_cost() -> None:
    protein = Protein(
        ProteinConfig(metric="m", parameters=SPACE, settings=ProteinSettings(num_random_samples=2)), seed=0
    )
    for _ in range(5):
        params, _ = protein.suggest()
        protein.observe(params, None, None, is_failure=True)
    params, info = protein.suggest()
    assert "no trial has a score" in info["fallback"]


def one_parameter(dimension: int = 1, **settings: Any) -> Protein:
    parameters = {f"x{i}": ParameterConfig(min=0, max=1, distribution="uniform") for i in range(dimension)}
    config = ProteinConfig(
        metric="m", parameters=dict(parameters), settings=ProteinSettings(num_random_samples=3, **settings)
    )
    return Protein(config, seed=0, num_trials=20)


@pytest.mark.parametrize("dimension", [1, 50])
def test_any_dimension_works(dimension: int) -> None:
    protein = one_parameter(dimension)
    for _ in range(7):
        params, info = protein.suggest()
        assert len(params) == dimension
        protein.observe(params, sum(params.values()), 1.0)
    assert info["source"] == "model"


@pytest.mark.parametrize(("scores", "costs"), [([1.0] * 6, [2.0] * 6), ([0.0] * 6, [0.0] * 6)])
def test_constant_scores_and_costs_work(scores: list[float], costs: list[float]) -> None:
    protein = one_parameter()
    for score, cost in zip(scores, costs, strict=True):
        params, _ = protein.suggest()
        protein.observe(params, score, cost)
    params, info = protein.suggest()
    assert info["source"] == "model"
    assert math.isfinite(info["score"])


def test_duplicates_work_and_are_not_suggested_again() -> None:
    protein = one_parameter()
    for _ in range(8):
        protein.observe({"x0": 0.5}, 1.0, 1.0)
    params, info = protein.suggest()
    assert info["source"] == "model"
    assert params != {"x0": 0.5}


def test_one_observation_is_enough_for_a_model() -> None:
    protein = one_parameter(seed_with_search_center=False)
    protein.config.settings.num_random_samples = 1
    protein.observe({"x0": 0.5}, 1.0, 1.0)
    assert protein.suggest()[1]["source"] == "model"


def test_a_region_that_fails_is_avoided() -> None:
    protein = one_parameter()
    for i in range(20):
        x = (i + 0.5) / 20
        failed = x > 0.6
        protein.observe({"x0": x}, None if failed else x, None if failed else 1.0, is_failure=failed)
    params, _ = protein.suggest()
    assert params["x0"] < 0.65
    assert protein.predict({"x0": 0.9}).success < 0.3
    assert protein.predict({"x0": 0.2}).success > 0.7


def test_what_will_rather_fail_is_not_suggested_while_there_is_anything_else() -> None:
    """Not even with the best there is found, and more only promised beyond the border."""
    protein = one_parameter()
    for _ in range(25):
        params, info = protein.suggest()
        failed = params["x0"] > 0.7
        protein.observe(params, None if failed else params["x0"], None if failed else 1.0, is_failure=failed)
        assert info.get("success", 1.0) > 0.35
    assert (protein.best().score or 0.0) > 0.68


def test_one_failure_spoils_little_of_the_space() -> None:
    protein = one_parameter()
    for i in range(10):
        protein.observe({"x0": (i + 0.5) / 10}, 0.0, 1.0)
    protein.observe({"x0": 0.5}, None, None, is_failure=True)
    likely = [protein.predict({"x0": x / 100}).success > 0.5 for x in range(101)]
    assert sum(likely) > 70


def test_importance_names_what_matters() -> None:
    protein = one_parameter(3)
    for i in range(25):
        params = {f"x{j}": ((i + 1) * ratio) % 1 for j, ratio in enumerate((0.618, 0.414, 0.732))}
        protein.observe(params, math.sin(4 * params["x0"]), math.exp(3 * params["x1"]))
    importance = protein.importance()
    assert importance["x0"].score > 0.8
    assert importance["x2"].score < 0.1
    assert importance["x1"].cost > 0.8


def test_the_best_is_not_the_luckiest() -> None:
    protein = one_parameter()
    for i in range(40):
        x = i / 40
        luck = 1.5 if i == 4 else 0.1 * math.sin(37 * i)
        protein.observe({"x0": x}, -4 * (x - 0.7) ** 2 + luck, 1.0)
    assert abs(protein.best().params["x0"] - 0.7) < 0.25


def test_a_lucky_score_with_a_large_error_is_not_the_best() -> None:
    best = {}
    for noise in (None, 1.0):
        protein = one_parameter()
        for i in range(12):
            lucky = i == 2
            protein.observe({"x0": i / 11}, -((i / 11 - 0.7) ** 2) + lucky, 1.0, noise=noise if lucky else None)
        best[noise] = protein.best().params["x0"]
    assert best[None] < 5 / 11
    assert best[1.0] == pytest.approx(8 / 11)


def test_analyses_share_a_model_until_something_new_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from metta.sweep.protein import history as module
    from metta.sweep.protein.surrogate import Surrogate

    protein, built = one_parameter(), []
    for i in range(6):
        protein.observe({"x0": i / 5}, i / 5, 1.0)

    def counted(*args: Any, **kwargs: Any) -> Any:
        built.append(args)
        return Surrogate(*args, **kwargs)

    monkeypatch.setattr(module, "Surrogate", counted)
    before = protein.predict({"x0": 0.5}).score
    protein.importance()
    protein.best()
    assert len(built) == 1
    protein.observe({"x0": 0.5}, 3.0, 1.0)
    assert protein.predict({"x0": 0.5}).score > before + 0.5
    assert len(built) == 2


def test_the_best_keeps_to_a_cost() -> None:
    protein = one_parameter()
    for x, cost in ((0.1, 1.0), (0.5, 5.0), (0.9, 9.0)):
        protein.observe({"x0": x}, x, cost)
    cheap = protein.best(max_cost=5.0).cost
    assert cheap is not None
    assert cheap <= 5.0
    with pytest.raises(LookupError, match=r"cost up to 0\.5"):
        protein.best(max_cost=0.5)


def test_resampling_repeats_a_pareto_optimal_trial() -> None:
    protein = one_parameter(resample_frequency=5)
    for i in range(5):
        protein.observe({"x0": i / 5}, float(i), 1.0)
    params, info = protein.suggest()
    assert info["source"] == "resample"
    assert params["x0"] == pytest.approx(0.8)


def test_a_cost_limit_holds() -> None:
    protein = one_parameter(max_suggestion_cost=3.0)
    for i in range(12):
        protein.observe({"x0": i / 11}, i / 11, math.exp(3 * i / 11))
    _, info = protein.suggest()
    assert info["cost"] < 4.0


def test_the_first_trials_are_cheap_where_a_count_drives_the_cost() -> None:
    config = ProteinConfig(
        metric="m",
        parameters={
            "epochs": ParameterConfig(min=1, max=100, distribution="int_uniform"),
            "rate": ParameterConfig(min=1e-4, max=1e-1, distribution="log_normal"),
        },
        settings=ProteinSettings(seed_with_search_center=False),
    )
    protein = Protein(config, seed=0, max_cost=1000.0)
    epochs = []
    for _ in range(6):
        params, _ = protein.suggest()
        epochs.append(params["epochs"])
        protein.observe(params, 0.0, float(params["epochs"]))
    assert max(epochs) < 20


def test_cheap_trials_end_where_they_have_taken_a_tenth_of_the_budget() -> None:
    space = {"steps": ParameterConfig(min=1, max=1000, distribution="int_log_normal")}
    for cost, first in ((0.1, 24), (1.0, 9), (9.0, 4)):
        protein = Protein(ProteinConfig(metric="m", parameters=dict(space)), seed=0, max_cost=100.0)
        sources = []
        for i in range(26):
            params, info = protein.suggest()
            sources.append(info["source"])
            protein.observe(params, math.sin(i), cost)
        assert sources == ["search centre"] + ["random"] * first + ["model"] * (25 - first)


def test_the_sooner_trials_end_before_the_budget_the_less_cost_counts() -> None:
    parameters = {
        "epochs": ParameterConfig(min=1, max=100, distribution="int_log_normal"),
        "rate": ParameterConfig(min=1e-4, max=1e-1, distribution="log_normal"),
    }
    config = ProteinConfig(metric="m", parameters=dict(parameters), settings=ProteinSettings(num_random_samples=8))
    suggested = []
    for num_trials in (None, 60, 30):
        protein = Protein(config, 0, num_trials, max_cost=400.0)
        for i in range(11):
            epochs, rate = 1 + 3 * i % 7, 10 ** (-1 - 3 * (i * 0.618 % 1))
            score = math.sin(2 * math.log10(rate)) + 0.1 * math.log(epochs)
            protein.observe({"epochs": epochs, "rate": rate}, score, float(epochs))
        suggested.append(protein.suggest()[0]["epochs"])
    assert suggested[0] < suggested[1] < suggested[2]


def test_info_is_json() -> None:
    for _, info in run(make(), 8):
        assert json.loads(json.dumps(info)) == info


def test_a_trial_without_a_cost_teaches_its_score_only() -> None:
    protein = make()
    run(protein, 6)
    point = {"trainer": {"learning_rate": 1e-3, "epochs": 50, "activation": "gelu"}}
    protein.observe(point, 9.0, None)
    assert protein.best().score == 9.0
    assert protein.observations[-1].cost is None
    assert not protein.observations[-1].is_failure
    assert 9.0 not in [observation.score for observation in protein.pareto_front()]
    assert protein.best(max_cost=1e9).score != 9.0
    costs = [prediction.cost for prediction in protein.predict_all([point])]
    protein.forget(protein.observations[-1].number)
    assert costs == [prediction.cost for prediction in protein.predict_all([point])]
    alone = make()
    alone.observe(point, 9.0, None)
    assert alone.predict(point).cost is None
    assert alone.pareto_front() == []


def test_what_is_observed_and_suggested_is_kept_as_a_copy() -> None:
    space = {"layers": ParameterConfig(choices=[[64], [128]], distribution="categorical"), "betas": [0.9]}
    protein = Protein(ProteinConfig(metric="m", parameters=space), seed=0)
    for _ in range(6):
        params, info = protein.suggest()
        assert params["layers"] in ([64], [128])
        assert params["betas"] == [0.9]
        protein.observe(params, 1.0, 1.0)
        params["layers"].append(10)
        params["betas"].append(10)
        info["number"] = -1
    assert all(observation.params["layers"] in ([64], [128]) for observation in protein.observations)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, Decimal, Fraction])
def test_scores_and_costs_of_any_library_are_numbers(kind: Any) -> None:
    protein = make()
    params, _ = protein.suggest()
    protein.observe(params, kind(0.5), kind(2), noise=kind(0))
    (observation,) = protein.observations
    assert (observation.score, observation.cost, observation.noise) == (0.5, 2.0, 0.0)
    assert type(observation.score) is type(observation.cost) is float


def test_importance_of_many_parameters_takes_memory_in_proportion_to_them() -> None:
    protein = one_parameter(1000)
    for i in range(3):
        protein.observe({f"x{j}": (i + 1) * (j + 1) * 0.618 % 1 for j in range(1000)}, float(i), 1.0)
    protein.predict({f"x{j}": 0.5 for j in range(1000)})
    tracemalloc.start()
    protein.importance()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 128 * 2**20
