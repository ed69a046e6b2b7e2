"""Trial 0: the Tool's own values where they lie in the space, and the search centre elsewhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

SPACE: dict[str, Any] = {
    "optimizer": {"rate": ParameterConfig(min=1e-5, max=1e-1, distribution="log_normal")},
    "layers": ParameterConfig(min=1, max=9, distribution="int_uniform"),
    "batch": ParameterConfig(min=16, max=1024, distribution="uniform_pow2"),
    "kind": ParameterConfig(choices=["a", [1, 2], True], distribution="categorical"),
    "fixed": 7,
}
OWN: dict[str, Any] = {"optimizer": {"rate": 3.3e-4}, "layers": 2, "batch": 64, "kind": [1, 2], "fixed": 8, "more": 1}
CENTRE = {"optimizer": {"rate": 1e-3}, "layers": 5, "batch": 128, "kind": "a", "fixed": 7}


def first(own: dict[str, Any] | None, space: dict[str, Any] = SPACE, **fields: Any) -> tuple[Any, Any]:
    config = ProteinConfig.model_validate({"metric": "m", "parameters": space, **fields})
    return Protein(config, seed=0, own_values=own).suggest()


def changed(**values: Any) -> dict[str, Any]:
    return {**OWN, **values}


def test_trial_0_has_the_tools_own_values_exactly() -> None:
    params, info = first(OWN)
    assert params == {"optimizer": {"rate": 3.3e-4}, "layers": 2, "batch": 64, "kind": [1, 2], "fixed": 7}
    assert info == {"number": 0, "source": "own values"}


def test_without_own_values_it_is_the_search_centre() -> None:
    for own in (None, {}, {"more": 1}):
        params, info = first(own)
        assert params == {**CENTRE, "optimizer": {"rate": pytest.approx(1e-3)}}
        assert info == {"number": 0, "source": "search centre"}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("layers", 10, "10 is outside 1 to 9, whole numbers"),
        ("layers", 2.5, "2.5 is outside 1 to 9, whole numbers"),
        ("layers", None, "None is not a number"),
        ("layers", True, "True is not a number"),
        ("batch", 48, "48 is outside 16 to 1024, powers of two"),
        ("batch", float("nan"), "nan is outside 16 to 1024, powers of two"),
        ("kind", 1, "1 is not one of the choices"),
        ("kind", object, "JSON"),
    ],
)
def test_what_is_outside_the_space_takes_the_search_centre_and_says_so(path: str, value: Any, reason: str) -> None:
    params, info = first(changed(**{path: value}))
    assert params[path] == CENTRE[path]
    assert params["optimizer"] == OWN["optimizer"]
    assert info["source"] == "own values"
    assert info["fallback"].startswith(f"search centre for {path} (")
    assert reason in info["fallback"]


def test_what_the_tool_lacks_takes_the_search_centre_and_says_so() -> None:
    params, info = first({"layers": 3})
    assert params == {**CENTRE, "layers": 3, "optimizer": {"rate": pytest.approx(1e-3)}}
    assert "optimizer.rate (the Tool has no value of it)" in info["fallback"]


def test_where_none_is_inside_it_is_the_search_centre_and_says_so() -> None:
    params, info = first({"layers": 90})
    assert params["layers"] == CENTRE["layers"]
    assert info["source"] == "search centre"
    assert info["fallback"] == "search centre for layers (90 is outside 1 to 9, whole numbers)"


def test_a_given_mean_is_trial_0() -> None:
    space = {**SPACE, "layers": ParameterConfig(min=1, max=9, mean=7, distribution="int_uniform")}
    params, info = first(OWN, space)
    assert (params["layers"], params["batch"]) == (7, 64)
    assert info["fallback"] == "search centre for layers (its mean is given)"


def test_own_values_that_break_a_constraint_give_way_to_the_search_centre() -> None:
    params, info = first(OWN, constraints=["batch >= 100"])
    assert params["batch"] == CENTRE["batch"]
    assert params["layers"] == CENTRE["layers"]
    assert info == {
        "number": 0,
        "source": "search centre",
        "fallback": "with the Tool's own values a constraint does not hold",
    }
    assert first(OWN, constraints=["batch >= 60"])[1]["source"] == "own values"


def test_it_is_not_used_where_no_baseline_is_wanted() -> None:
    assert first(OWN, settings={"seed_with_search_center": False})[1]["source"] == "random"


def test_the_model_goes_on_from_it_and_a_rebuilt_optimiser_suggests_the_same() -> None:
    config = ProteinConfig.model_validate({"metric": "m", "parameters": SPACE})
    live, rebuilt = (Protein(config, seed=0, own_values=OWN) for _ in range(2))
    for number in range(7):
        params, info = json.loads(json.dumps(live.suggest()))
        assert (info["source"] == "own values") == (number == 0)
        live.observe(params, float(np.sin(number)), 1.0)
        rebuilt.observe(params, float(np.sin(number)), 1.0, number=number, info=info)
    assert live.suggest() == rebuilt.suggest()
