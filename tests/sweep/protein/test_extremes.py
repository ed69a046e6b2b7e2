"""Any finite score, cost and noise is learnt from: nothing raises, warns or becomes NaN."""

from __future__ import annotations

import json
import math
import warnings
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.7e308, -1.7e308, 5e-324, 0.0, 1.0])
COSTS = st.none() | st.floats(min_value=0, allow_infinity=False) | st.sampled_from([0.0, 5e-324, 1e308, 1.0])
NOISES = st.none() | st.floats(min_value=0, allow_infinity=False) | st.sampled_from([0.0, 1e308])
Row = tuple[float, float | None, float | None]


def check(rows: list[Row], goal: str, max_cost: float | None) -> None:
    config = ProteinConfig.model_validate(
        {
            "metric": "m",
            "goal": goal,
            "parameters": {
                "x": ParameterConfig(min=0, max=1, distribution="uniform"),
                "n": ParameterConfig(min=1, max=64, distribution="int_uniform"),
            },
            "settings": ProteinSettings(num_random_samples=1, random_suggestions=32, suggestions_per_pareto=4),
        }
    )
    protein = Protein(config, seed=0, num_trials=30, max_cost=max_cost)
    for i, (score, cost, noise) in enumerate(rows):
        protein.observe({"x": i * 0.618 % 1, "n": 1 + 7 * i % 64}, score, cost, noise=noise)
    (_, info), (_, other) = protein.suggest(2)
    json.dumps([info, other], allow_nan=False)
    best = protein.best()
    assert best.score in {score for score, _, _ in rows}
    for prediction in protein.predict_all([best.params, {"x": 0.9, "n": 3}]):
        known = [prediction.score, prediction.score_std, prediction.noise_std, prediction.success]
        assert np.isfinite([*known, 0.0 if prediction.cost is None else prediction.cost]).all()
    for importance in protein.importance().values():
        assert 0 <= importance.score <= 1
        assert 0 <= importance.cost <= 1
    assert all(observation.cost is not None for observation in protein.pareto_front())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(FINITE, COSTS, NOISES), min_size=2, max_size=9),
    st.sampled_from(["maximize", "minimize"]),
    st.none() | st.floats(min_value=5e-324, allow_infinity=False),
)
@example([(1.7e308, 1e308, 1e308), (-1.7e308, 0.0, None), (5e-324, 5e-324, 0.0), (0.0, None, None)], "maximize", 5e-324)
@example([(1.7e308, 1e308, None)] * 5, "minimize", 1e308)
@example([(0.5, 1.0, 0.1), (0.6, 1.0, 0.1), (0.7, 1.0, 0.1), (-1.7e308, 1.0, 0.1)], "maximize", None)
@example([(0.5, 1.0, 0.1), (0.6, 1.0, 0.1), (0.7, 1.0, 0.1), (1.7e308, 1.0, 0.1)], "maximize", None)
@example([(0.0, 0.0, 1e308), (5e-324, 0.0, 1e308), (1.0, 0.0, 0.0), (1e-323, 0.0, 0.0)], "maximize", None)
@example([(5e-324, 1.0, 1e308), (1e-323, 1.0, 0.0), (1.5e-323, 2.0, None)], "maximize", None)
def test_any_finite_score_cost_and_noise_is_learnt_from(rows: list[Row], goal: str, max_cost: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(rows, goal, max_cost)


@pytest.mark.parametrize("setting", ["raise", "warn"])
def test_what_training_code_asks_of_numpy_does_not_reach_the_optimiser(setting: Literal["raise", "warn"]) -> None:
    space = {
        "lr": ParameterConfig(min=1e-4, max=1, distribution="log_normal"),
        "x": ParameterConfig(min=0, max=1, distribution="uniform"),
    }
    protein = Protein(ProteinConfig(metric="m", parameters=space), seed=0, max_cost=100)
    with np.errstate(all=setting), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(25):
            params, _ = protein.suggest()
            protein.observe(params, -((math.log(params["lr"]) + 3) ** 2) - params["x"] ** 2, 1.0)
        protein.best()
        protein.importance()


@pytest.mark.parametrize("factor", [1e-305, 1e-150, 1e150, 1e305])
def test_the_unit_of_scores_changes_no_suggestion(factor: float) -> None:
    def suggestions(unit: float) -> list[float]:
        space = {"x": ParameterConfig(min=0, max=1, distribution="uniform")}
        protein = Protein(ProteinConfig(metric="m", parameters=space), seed=0)
        for _ in range(10):
            params, _ = protein.suggest()
            protein.observe(params, -((params["x"] - 0.3) ** 2) * unit, 1.0)
        return [observation.params["x"] for observation in protein.observations]

    assert suggestions(factor) == pytest.approx(suggestions(1.0), abs=1e-3)
    assert not math.isnan(sum(suggestions(factor)))
