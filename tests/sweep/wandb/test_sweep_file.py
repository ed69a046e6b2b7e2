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
from metta.sweep.observations import search_centre
from metta.sweep.program.call import Call, Program
from metta.sweep.program.command_sweep import from_file
from metta.sweep.program.yaml_file import read_yaml
from metta.sweep.sweep_name import name_problem
from metta.sweep.wandb.sweep_file import is_wandb_sweep, read_wandb_sweep

BASE: dict[str, Any] = {
    "program": "train.py",
    "method": "bayes",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"lr": {"min": 0.0, "max": 1.0}},
    "run_cap": 5,
}


def parameter(value: Any) -> Any:
    return read_wandb_sweep({**BASE, "parameters": {"p": value}}, "f").fields["parameters"]["p"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"value": 3}, 3),
        ({"distribution": "constant", "value": None}, None),
        ({"values": [1, "a", True]}, {"choices": [1, "a", True], "distribution": "categorical"}),
        ({"min": 1, "max": 5}, {"min": 1, "max": 5, "distribution": "int_uniform"}),
        ({"min": 1, "max": 5.0}, {"min": 1, "max": 5.0, "distribution": "uniform"}),
        ({"values": ["a", "b", "a", True, 1]},
         {"choices": ["a", "b", True, 1], "distribution": "categorical", "weights": [2, 1, 1, 1]}),
        ({"values": ["a", "b"], "probabilities": [0.9, 0.1]},
         {"choices": ["a", "b"], "distribution": "categorical", "weights": [0.9, 0.1]}),
        ({"min": 3, "max": 3}, 3),
        ({"distribution": "log_uniform", "min": 0, "max": 0}, 1.0),
        ({"distribution": "q_uniform", "min": 1, "max": 5}, {"min": 1, "max": 5, "step": 1, "distribution": "uniform"}),
        ({"distribution": "q_uniform", "min": 0.1, "max": 1, "q": 0.25},
         {"min": 0.0, "max": 1.0, "step": 0.25, "distribution": "uniform"}),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 8},
         {"min": 8, "max": 64, "step": 8, "distribution": "log_normal"}),
        ({"distribution": "normal", "mu": 1, "sigma": 0.5},
         {"min": -1.0, "max": 3.0, "distribution": "uniform", "mean": 1.0, "std": 0.5}),
        ({"distribution": "log_normal"},
         {"min": math.exp(-4), "max": math.exp(4), "distribution": "log_normal", "mean": 1.0, "std": 1.0}),
        ({"distribution": "q_normal", "sigma": 2, "q": 2},
         {"min": -8, "max": 8, "step": 2, "distribution": "uniform", "mean": 0.0, "std": 2.0}),
        ({"distribution": "beta", "a": 1, "b": 3},
         {"min": 0.0, "max": 1.0, "distribution": "uniform", "mean": 0.25, "beta": [1.0, 3.0]}),
        ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1e-1},
         {"min": 1e-4, "max": 1e-1, "distribution": "log_normal"}),
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
        ({"method": "gird"}, "method 'gird' is not supported; did you mean 'grid'"),
        ({"method": "grid"}, "parameters.lr: a grid needs countable values.*; write .*, or distribution: q_uniform"),
        ({"early_terminate": {"type": "envelope"}}, "expected {type: hyperband, min_iter: 3}"),
        ({"early_terminate": {"type": "hyperband"}}, "give min_iter, as in min_iter: 3"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "max_iter needs s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 1}}, "eta: 1 is not a number above 1"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 3}}, "no iteration at which to stop"),
        ({"command": 3}, "'command' is 3, not a list"),
        ({"run_capp": 3}, "did you mean 'run_cap'"),
        ({"metric": {"name": "loss", "targe": 0.1}}, "did you mean 'target'"),
        ({"metric": {"name": "loss", "goal": "minimise"}}, "did you mean 'minimize'"),
        ({"metric": {}}, "'metric' needs a name .* or --metric loss:minimize"),
        ({"metric": None, "metrics": [{"name": "a"}, {"name": "b"}]}, "write metric: {name: ..., goal: ...}"),
        ({"program": None}, "'program' is missing: .* or --program FILE"),
        ({"run_cap": None}, "how many trials.* --num-trials N"),
        ({"parameters": {"a": 3}}, "parameters.a: expected value, values, or min and max.*write {value: 3}"),
        ({"parameters": {"a": {"min": 0}}}, "parameters.a: expected value, values, or min and max"),
        ({"parameters": {"a": {"min": "low", "max": 1}}}, "parameters.a.min: 'low' is not a number"),
        ({"parameters": {"a": {"values": "1, 2"}}}, "not a list of values; write values: "),
        ({"parameters": {"a": {"distribution": "uniform", "values": [1, 2]}}}, "'values' of W&B is not supported here"),
        ({"parameters": {"a": {"distribution": "log_uniform_value", "min": 1, "max": 2}}}, "'log_uniform_values'"),
        ({"parameters": {"a": {"values": [1], "probabilities": [1, 2]}}}, "expected 1 numbers"),
        ({"parameters": {"a": {"distribution": "q_uniform", "min": 1, "max": 5, "q": 0}}}, "q: 0 must be above 0"),
        (
            {"parameters": {"a": {"distribution": "log_uniform", "min": 0, "max": 1e4}}},
            "too large; if they are values, write distribution: log_uniform_values",
        ),
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
    assert sweep.remarks() == []
    assert (sweep.sweep.num_trials, sweep.sweep.protein.metric, sweep.sweep.protein.goal) == (7, "val/acc", "maximize")
    assert sweep.sweep.protein.method == "random"
    assert sweep.program.command == ["${env}", "${interpreter}", "${program}", "${args}"]
    assert (sweep.program.metrics, sweep.program.style) == ("wandb", "wandb")
    assert sweep.program.names == ["lr"]
    assert sweep.program.environment == {"WANDB_PROJECT": "lab"}
    assert from_file(str(file), name="other", num_trials=3).sweep_name == "other"


def words(tmp_path: Path, text: str, **chosen: Any) -> list[str]:
    """What the search centre of a sweep file is passed as."""
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    sweep = from_file(str(file))
    sweep.definition()
    params = {**search_centre(sweep.sweep.protein), **chosen}
    return Call(sweep.program, params, 0, 0, tmp_path).command()


HYDRA = """
program: main.py
method: bayes
metric: {name: loss, goal: minimize}
run_cap: 3
command:
  ["${program}", "${args_no_hyphens}", "hydra.run.dir=${now:%Y}/${oc.env:USER}", "${nothing}", "x=${envvar:NAME_X}"]
parameters:
  optimizer: {values: [sgd, adam]}
  optimizer.config.learning_rate: {min: 0.1, max: 0.3}
  model: {parameters: {depth: {value: 3}, min: {value: 0}, max: {value: 1}}}
"""


def test_words_are_passed_as_the_agent_of_wandb_passes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME_X", "7")
    assert words(tmp_path, HYDRA) == [
        "main.py",
        "optimizer=sgd",
        "optimizer.config.learning_rate=0.2",
        "model={'depth': 3, 'min': 0, 'max': 1}",
        "hydra.run.dir=${now:%Y}/${oc.env:USER}",
        "x=7",
    ]


def test_a_group_beside_a_name_below_it_works_in_our_own_form_too(tmp_path: Path) -> None:
    text = (
        "command: main.py ${args_no_hyphens} --flags ${args_negated_flags} group=${optimizer}\n"
        "metric: loss\nnum_trials: 1\nparameters:\n"
        "  optimizer: {choices: [sgd, adam]}\n  optimizer.nesterov: {choices: [false, true]}\n"
    )
    assert words(tmp_path, text) == [
        *("main.py", "optimizer=sgd", "optimizer.nesterov=false"),
        *("--flags", "--optimizer=sgd", "--no-optimizer.nesterov", "group=sgd"),
    ]


def test_a_grid_is_read_with_all_its_points(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "program: a.py\nmethod: grid\nmetric: {name: acc, goal: maximize, target: 0.9}\nparameters:\n"
        "  seed: {values: [0, 1, 1]}\n  lr: {distribution: q_uniform, min: 0.1, max: 0.4, q: 0.1}\n"
        "  n: {min: 1, max: 2}\n"
    )
    definition = from_file(str(file)).definition()
    protein = Protein(definition.protein)
    points = [protein.suggest()[0] for _ in range(definition.num_trials)]

    assert definition.num_trials == 2 * 3 * 2
    assert definition.target == 0.9
    assert points[:2] == [{"seed": 0, "lr": 0.1, "n": 1}, {"seed": 0, "lr": 0.1, "n": 2}]
    assert points[-1] == {"seed": 1, "lr": 0.3, "n": 2}


@pytest.mark.parametrize(
    ("given", "rungs", "eta"),
    [
        ({"min_iter": 3}, [3, 9, 27, 81], 3),
        ({"min_iter": 1, "eta": 1.5}, [1, 2, 3, 5], 1.5),
        ({"max_iter": 27, "s": 2}, [3, 9], 3),
        ({"max_iter": 5, "s": 9, "eta": 2, "strict": True}, [1, 2], 2),
    ],
)
def test_early_terminate_becomes_our_successive_halving(
    given: Any, rungs: list[int], eta: float, tmp_path: Path
) -> None:
    data = {**BASE, "early_terminate": {"type": "hyperband", **given}}
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(data))
    sweep = from_file(str(file)).sweep

    assert (sweep.early_stopping, sweep.rungs[: len(rungs)], sweep.eta) == ("asha", rungs, eta)
    other = from_file(str(file), early_stopping="protein").sweep
    assert (other.early_stopping, other.rungs) == ("protein", [])


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"job": "a/b/c:latest", "scheduler": {"engine": "optuna"}, "method": "custom"}, "job, scheduler: ignored"),
        ({"metric": {"name": "loss", "impute": "latest"}}, "metric.impute: ignored"),
        ({"parameters": {"lr": {"distribution": "log_uniform", "min": 1e-4, "max": 0.1}}}, "log_uniform_values"),
        ({"parameters": {"n": {"distribution": "log_uniform", "min": 16, "max": 64}}}, "log_uniform_values"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "s": 2}}, "early_terminate.s: ignored"),
        ({"sweeping": 1}, "'sweeping' is not a key of W&B's"),
        ({"name": "\u0101" * 150}, "a name of 150 characters is too long; the sweep is"),
        ({"name": "Long, " * 30}, "a name of 180 characters is too long; the sweep is Long-Long-"),
    ],
)
def test_what_is_read_otherwise_than_it_looks_is_said(change: dict[str, Any], remark: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({**BASE, **change}))
    sweep = from_file(str(file))
    sweep.definition()

    assert remark in "\n".join(sweep.remarks())
    assert name_problem(sweep.sweep_name) is None


def test_negative_exponents_need_no_remark() -> None:
    value = {"distribution": "log_uniform", "min": -9.2, "max": -2.3}
    assert read_wandb_sweep({**BASE, "parameters": {"lr": value}}, "f").remarks == []


def test_our_own_form_may_have_a_method_too(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("command: run ${args}\nmethod: grid\nmetric: loss\nparameters: {a: {choices: [1, 2]}}\n")
    sweep = from_file(str(file))
    assert (sweep.program.style, sweep.definition().num_trials) == ("plain", 2)


def test_a_metric_of_our_own_form_is_not_one_of_wandb(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "command: run ${args}\nmethod: random\nnum_trials: 2\n"
        "metric: {name: loss, goal: minimize, take: min, window: 3, target: 0.1}\n"
        "parameters: {a: {min: 0, max: 1, distribution: uniform}}\n"
    )
    sweep = from_file(str(file))
    assert (sweep.program.style, sweep.program.take, sweep.program.window) == ("plain", "min", 3)
    assert (sweep.sweep.protein.goal, sweep.sweep.target, sweep.sweep.protein.method) == ("minimize", 0.1, "random")
    other = from_file(str(file), metric="error")
    assert (other.sweep.protein.metric, other.sweep.protein.goal, other.program.take) == ("error", "minimize", "min")


@pytest.mark.parametrize(
    "given",
    [
        *({key: None} for key in Program.model_fields if key not in ("command", "program", "metrics")),
        *({"metrics": each} for each in ("auto", "wandb", {"loss": "loss=(.*)"})),
        *({"metric": {"name": "loss", key: 1}} for key in ("take", "window")),
        {"parameters": {"lr": {"min": 0, "max": 1, "step": 0.5}}},
        {"max_cost": 3},
        {"metric": "loss"},
    ],
)
def test_whose_form_it_is_is_seen_by_what_only_one_has(given: dict[str, Any]) -> None:
    grid = {key: value for key, value in BASE.items() if key != "run_cap"}
    assert is_wandb_sweep(grid)
    assert not is_wandb_sweep({**grid, **given})


def test_options_stand_in_for_what_a_file_has_not(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("method: random\nparameters: {a: {values: [1, 2]}}\n")
    sweep = from_file(str(file), num_trials=4, program="train.py", metric="acc:max")
    assert (sweep.program.program, sweep.sweep.protein.metric, sweep.sweep.protein.goal) == (
        "train.py",
        "acc",
        "maximize",
    )


@st.composite
def wandb_parameters(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["uniform", "int_uniform", "log_uniform_values", "inv_log_uniform_values", None]))
    low = draw(st.integers(1, 1000) if kind == "int_uniform" else st.floats(1e-6, 1e3))
    value: dict[str, Any] = {"min": low, "max": low + draw(st.integers(1, 1000))}
    return value | ({"distribution": kind} if kind else {})


@settings(max_examples=30, deadline=None)
@given(parameters=st.dictionaries(st.sampled_from("abc"), wandb_parameters(), min_size=1))
def test_suggestions_stay_within_the_bounds_of_wandb(parameters: dict[str, Any]) -> None:
    fields = read_wandb_sweep({**BASE, "parameters": parameters}, "f").fields
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
WORDS = st.sampled_from(["min", "max", "value", "values", "distribution", "parameters", "q", "mu", "sigma", "a", "b"])
LIKELY = st.dictionaries(WORDS, JSON | st.sampled_from(["uniform", "log_uniform", "q_uniform", "constant"]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(st.sampled_from(list(BASE)), JSON), parameters=st.dictionaries(st.text(max_size=3), LIKELY))
def test_whatever_is_in_the_file_it_is_read_or_refused(data: dict[str, Any], parameters: dict[str, Any]) -> None:
    for content in ({**BASE, **data}, {**BASE, "parameters": parameters}):
        try:
            fields = read_wandb_sweep(content, "f").fields
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
