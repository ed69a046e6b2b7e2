"""W&B's sweep files: distributions keep their meaning, and what is not supported is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.common.config import flatten
from metta.common.errors import UserError
from metta.sweep import Protein, ProteinConfig
from metta.sweep.program.command_sweep import from_file
from metta.sweep.program.yaml_file import read_yaml
from metta.sweep.wandb.sweep_file import read_wandb_sweep

BASE: dict[str, Any] = {
    "program": "train.py",
    "method": "bayes",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"lr": {"min": 0.0, "max": 1.0}},
    "run_cap": 5,
}


def parameter(value: Any) -> Any:
    return read_wandb_sweep({**BASE, "parameters": {"p": value}}, "f")["parameters"]["p"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"value": 3}, 3),
        ({"distribution": "constant", "value": None}, None),
        ({"values": [1, "a", True]}, {"choices": [1, "a", True], "distribution": "categorical"}),
        ({"min": 1, "max": 5}, {"min": 1, "max": 5, "distribution": "int_uniform"}),
        ({"min": 1, "max": 5.0}, {"min": 1, "max": 5.0, "distribution": "uniform"}),
        ({"distribution": "q_uniform", "min": 1, "max": 5}, {"min": 1, "max": 5, "distribution": "int_uniform"}),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 1},
         {"min": 1, "max": 64, "distribution": "int_log_normal"}),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
         {"min": 1e-4, "max": 1e-1, "distribution": "log_normal"}),
        ({"distribution": "log_uniform", "min": -2, "max": 0},
         {"min": math.exp(-2), "max": 1.0, "distribution": "log_normal"}),
        ({"distribution": "inv_log_uniform", "min": 0, "max": 2},
         {"min": math.exp(-2), "max": 1.0, "distribution": "log_normal"}),
        ({"parameters": {"a": {"value": 1}, "b": {"parameters": {"c": {"min": 0, "max": 2}}}}},
         {"a": 1, "b": {"c": {"min": 0, "max": 2, "distribution": "int_uniform"}}}),
    ],
)  # fmt: skip
def test_parameters(value: Any, expected: Any) -> None:
    assert parameter(value) == expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "grid"}, "method 'grid' is not supported; valid: bayes, random"),
        ({"early_terminate": {"type": "hyperband"}}, "'early_terminate' of W&B is not supported"),
        ({"command": 3}, "'command' is 3, not a list"),
        ({"run_capp": 3}, "did you mean 'run_cap'"),
        ({"metric": {"name": "loss", "target": 0.1}}, "metric.target of W&B is not supported"),
        ({"metric": {}}, "'metric' needs a name"),
        ({"parameters": {"a": 3}}, "parameters.a: expected value, values, or min and max"),
        ({"parameters": {"a": {"min": 0}}}, "parameters.a: expected value, values, or min and max"),
        ({"parameters": {"a": {"min": "low", "max": 1}}}, "parameters.a.min: 'low' is not a number"),
        ({"parameters": {"a": {"distribution": "normal", "mu": 0, "sigma": 1}}}, "distribution 'normal' of W&B is not"),
        ({"parameters": {"a": {"distribution": "log_uniform_value", "min": 1, "max": 2}}}, "'log_uniform_values'"),
        ({"parameters": {"a": {"values": [1], "probabilities": [1]}}}, "'probabilities' of W&B is not supported"),
        ({"parameters": {"a": {"distribution": "q_uniform", "min": 1, "max": 5, "q": 2}}}, "q=2 of W&B is not"),
        ({"parameters": {"a": {"distribution": "log_uniform", "min": 0, "max": 1e4}}}, "are too large"),
        ({"program": None, "command": ["${program}"]}, "command: \\${program} needs the key 'program'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({**BASE, **change}))
    with pytest.raises(UserError, match=why):
        from_file(str(file)).definition()


def test_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "my sweep.yaml"
    file.write_text(
        "program: train.py\nname: my sweep!\nmethod: random\nproject: lab\n"
        "metric: {name: val/acc, goal: maximize}\nrun_cap: 7\n"
        "parameters:\n  lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-2}\n"
    )
    sweep = from_file(str(file))
    assert sweep.sweep_name == "my-sweep-"
    assert (sweep.sweep.num_trials, sweep.sweep.protein.metric, sweep.sweep.protein.goal) == (7, "val/acc", "maximize")
    assert sweep.sweep.protein.settings.num_random_samples == 7
    assert sweep.program.command == ["${env}", "${interpreter}", "${program}", "${args}"]
    assert (sweep.program.metrics, sweep.program.style) == ("wandb", "wandb")
    assert sweep.program.names == ["lr"]
    assert sweep.program.environment == {"WANDB_PROJECT": "lab"}
    assert from_file(str(file), name="other", num_trials=3).sweep_name == "other"


@st.composite
def wandb_parameters(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["uniform", "int_uniform", "log_uniform_values", "inv_log_uniform_values", None]))
    low = draw(st.integers(1, 1000) if kind == "int_uniform" else st.floats(1e-6, 1e3))
    value: dict[str, Any] = {"min": low, "max": low + draw(st.integers(1, 1000))}
    return value | ({"distribution": kind} if kind else {})


@settings(max_examples=30, deadline=None)
@given(parameters=st.dictionaries(st.sampled_from("abc"), wandb_parameters(), min_size=1))
def test_suggestions_stay_within_the_bounds_of_wandb(parameters: dict[str, Any]) -> None:
    fields = read_wandb_sweep({**BASE, "parameters": parameters}, "f")
    protein = Protein(ProteinConfig(metric="m", parameters=fields["parameters"]), seed=0)
    for _ in range(4):
        params, _ = protein.suggest()
        for name, value in params.items():
            low, high = parameters[name]["min"], parameters[name]["max"]
            assert low - 1e-9 <= value <= high + 1e-9
            assert isinstance(value, int) == (parameters[name].get("distribution") == "int_uniform")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(["min", "max", "value", "values", "distribution", "parameters", "q"])
LIKELY = st.dictionaries(WORDS, JSON | st.sampled_from(["uniform", "log_uniform", "q_uniform", "constant"]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(st.sampled_from(list(BASE)), JSON), parameters=st.dictionaries(st.text(max_size=3), LIKELY))
def test_whatever_is_in_the_file_it_is_read_or_refused(data: dict[str, Any], parameters: dict[str, Any]) -> None:
    for content in ({**BASE, **data}, {**BASE, "parameters": parameters}):
        try:
            fields = read_wandb_sweep(content, "f")
        except UserError:
            continue
        flatten(fields["parameters"])


@settings(max_examples=100, deadline=None)
@given(x=st.floats(allow_nan=False, allow_infinity=False))
def test_yaml_numbers_are_numbers(x: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "number.yaml"
    for text in (repr(x), f"{x:e}", f"{x:E}", str(int(x)) if abs(x) < 1e15 else repr(x)):
        file.write_text(f"x: {text}")
        assert read_yaml(file)["x"] == float(text)
