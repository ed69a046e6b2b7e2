"""What the optimiser promises of its suggestions."""

from __future__ import annotations

import json
import math
from typing import Any

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
    [(None, 1.0, "score"), (1.0, None, "cost"), (1.0, math.nan, "cost"), (1.0, -1.0, "cost"), ("1", 1.0, "score")],
)
def test_wrong_numbers_are_named(score: Any, cost: Any, message: str) -> None:
    protein = make()
    params, _ = protein.suggest()
    with pytest.raises(ValueError, match=message):
        protein.observe(params, score, cost)


def test_wrong_hyperparameters_are_named() -> None:
    with pytest.raises(SpaceError, match=r"trainer\.epochs: missing"):
        make().observe({"trainer": {"learning_rate": 1e-3}}, 1.0, 1.0)
    with pytest.raises(SpaceError, match=r"trainer\.learning_rate: -1.0 has no place on a log scale"):
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
