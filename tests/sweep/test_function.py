"""optimize: a function is swept like anything else, inline or in workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metta.common.errors import UserError
from metta.sweep import ParameterConfig, RunningTrial, SweepResult, load_sweep, optimize
from metta.sweep.cli import main as metta_sweep
from metta.sweep.function import numbers
from metta.sweep.sweep import MishapError, TooManyFailuresError
from metta.sweep.trial import TrialState
from tests.support.functions import one_argument, parabola

ROOT = Path(__file__).parents[2]
X = {"x": ParameterConfig(min=0, max=1, distribution="uniform")}


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))


def sweep(function: Any, num_trials: int = 3, **fields: Any) -> SweepResult:
    return optimize(
        function, parameters=X, metric="accuracy", num_trials=num_trials, seed=1, write_report=False, **fields
    )


def test_a_function_is_swept_inline_and_the_best_is_returned() -> None:
    result = sweep(parabola, 12)

    assert result.best_score == max(trial.score or 0 for trial in result.trials) > 0.999
    assert result.best_params == {"x": result.best_trial.params["x"]}
    assert {trial.metrics["pid"] for trial in result.trials} == {os.getpid()}
    assert len({trial.metrics["seed"] for trial in result.trials}) == 12, "each trial has a seed of its own"
    frame = result.to_frame()
    assert list(frame["score"]) == [trial.score for trial in result.trials]
    curve = load_sweep(result.store, result.name).curve(0)
    assert [(point.step, point.metrics) for point in curve] == [(step, {"accuracy": step / 10}) for step in range(3)]


def test_parameters_keep_their_nested_shape_and_fixed_values() -> None:
    seen: list[dict[str, Any]] = []

    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        seen.append(config)
        return float(config["optimizer"]["lr"])

    optimize(
        train,
        parameters={
            "optimizer.lr": {"min": 1e-4, "max": 1e-1, "distribution": "log_normal"},
            "optimizer": {"kind": ParameterConfig(choices=["sgd", "adam"], distribution="categorical")},
            "epochs": 3,
        },
        metric="accuracy",
        num_trials=2,
        write_report=False,
    )

    assert all(set(config) == {"optimizer", "epochs"} and config["epochs"] == 3 for config in seen)
    assert all(config["optimizer"]["kind"] in ("sgd", "adam") for config in seen)
    assert all(1e-4 <= config["optimizer"]["lr"] <= 1e-1 for config in seen)


def test_a_named_sweep_goes_on_and_extends_and_one_without_a_name_begins_anew() -> None:
    first = sweep(parabola, 2, name="mine")
    assert sweep(parabola, 3, name="mine").trials[:2] == first.trials
    assert len(load_sweep(first.store, "mine").trials()) == 3
    assert sweep(parabola, 1).name != sweep(parabola, 1).name


def test_lambdas_and_closures_run_inline_and_numbers_of_any_library_are_metrics() -> None:
    assert sweep(lambda config, trial: np.float32(config["x"])).best_score <= 1
    goal = 0.2

    def closure(config: dict[str, Any], trial: RunningTrial) -> dict[str, Any]:
        return {"accuracy": np.array(abs(config["x"] - goal))}

    result = sweep(closure, 2)
    assert result.trials[0].score == abs(result.trials[0].params["x"] - goal)


def test_what_was_reported_last_counts_where_nothing_is_returned() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> None:
        for step in range(3):
            trial.report(step, {"accuracy": step})

    assert [trial.score for trial in sweep(train).trials] == [2, 2, 2]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "the function returned None; return a number, or nan"),
        ({"accuracy": "high"}, "the metric 'accuracy': 'high' is not a number"),
        ("0.5", "the metric 'accuracy': '0.5' is not a number"),
    ],
)
def test_what_is_no_metric_stops_the_sweep_at_once_and_is_not_learnt_from(returned: Any, message: str) -> None:
    with pytest.raises(MishapError, match=message):
        sweep(lambda config, trial: returned, 9)


def test_a_trial_may_run_a_sweep() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        inner = optimize(lambda config, trial: config["y"], {"y": {"choices": [1, 2]}}, "accuracy", 2, name="inner")
        assert inner.best_trial is not None
        return float(inner.best_trial.score or 0.0)

    handler = signal.getsignal(signal.SIGTERM)
    assert [trial.score for trial in sweep(train).trials] == [2, 2, 2]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_metrics_of_any_library_become_floats_and_one_too_large_is_refused() -> None:
    metrics = {"a": Decimal("0.5"), "b": np.int64(3), "c": np.array([2.5]), "d": True, "e": np.bool_(False)}
    assert numbers(metrics) == {"a": 0.5, "b": 3.0, "c": 2.5, "d": 1.0, "e": 0.0}
    assert all(type(value) is float for value in numbers(metrics).values())
    for large in (10**400, 10**5000, Fraction(10**400, 3)):
        with pytest.raises(TypeError, match=r"the metric 'loss': .* is too large"):
            numbers({"loss": large})


def test_a_function_that_changes_what_it_is_given_changes_nothing_else() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        config["layers"].append(10)
        config["optimizer"]["betas"][0] = None
        return float(len(config["layers"]))

    parameters = {"layers": {"choices": [[64], [128], [256, 64]]}, "optimizer": {"betas": [0.9, 0.99]}}
    result = optimize(train, parameters, "accuracy", 6, write_report=False)
    assert all(trial.params["layers"] in [[64], [128], [256, 64]] for trial in result.trials)
    assert all(trial.params["optimizer.betas"] == [0.9, 0.99] for trial in result.trials)
    assert {trial.score for trial in result.trials} <= {2.0, 3.0}


def test_a_metric_under_another_name_fails_the_trial_and_says_what_was_returned() -> None:
    with pytest.raises(TooManyFailuresError, match=r"it returned no 'accuracy'; did you mean 'acc'\? valid: acc, loss"):
        sweep(lambda config, trial: {"acc": 1.0, "loss": 0.0}, 9)


def test_what_is_done_before_the_clock_is_restarted_costs_nothing() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        time.sleep(0.5)
        trial.restart_clock()
        return trial.seconds

    for trial in sweep(train, 2).trials:
        assert trial.cost is not None
        assert trial.score is not None
        assert trial.score <= trial.cost < trial.score + 0.5


def test_a_function_makes_files_and_artefacts_in_a_folder_of_its_trial() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        model = trial.run_dir / "model.txt"
        model.write_text(str(config["x"]))
        trial.artefacts["model"] = model.as_uri()
        return 1.0

    trials = sweep(train, 2).trials
    models = [Path(trial.artefacts["model"].removeprefix("file://")) for trial in trials]
    assert [float(model.read_text()) for model in models] == [trial.params["x"] for trial in trials]


@pytest.mark.parametrize("function", [parabola, "tests.support.functions:parabola"])
def test_a_worker_imports_the_function(function: Any) -> None:
    trials = sweep(function, 3, executor="local", num_workers=1).trials

    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 3
    (process,) = {trial.metrics["pid"] for trial in trials}
    assert process != os.getpid()


def test_an_interrupted_sweep_is_rebuilt_from_the_store_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERRUPT", "1")
    with pytest.raises(KeyboardInterrupt):
        sweep(parabola, 3, name="mine")
    monkeypatch.delenv("INTERRUPT")

    assert metta_sweep(["work", "mine"]) == 0
    trials = load_sweep(f"sqlite:///{tmp_path}/data/sweeps.db", "mine").trials()
    assert [(trial.state, trial.attempts) for trial in trials] == [
        (TrialState.COMPLETED, attempts) for attempts in (1, 2, 1)
    ]


def test_a_function_that_cannot_travel_is_refused_before_any_work() -> None:
    def inner(config: dict[str, Any], trial: RunningTrial) -> float:
        return 1.0

    def script(config: dict[str, Any], trial: RunningTrial) -> float:
        return 1.0

    script.__module__, script.__qualname__ = "__main__", "script"  # as where a script or a notebook defines it
    refused = [
        (lambda config, trial: 1.0, "a lambda has no name"),
        (inner, "within another function"),
        (script, "script is defined in the notebook or script itself"),
    ]
    for function, why in refused:
        with pytest.raises(UserError, match=why):
            sweep(function, num_workers=2)
    assert not Path(os.environ["METTA_DATA_DIR"], "sweeps.db").exists()


def test_what_cannot_be_meant_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"one_argument.* must accept two arguments, one_argument\(config, trial\)"):
        sweep(one_argument)
    with pytest.raises(UserError, match="did you mean 'num_workers'"):
        sweep(parabola, num_worker=2)
    with pytest.raises(UserError, match="num_trials"):
        sweep(parabola, 0)
    with pytest.raises(UserError, match=r"min .* must be below max"):
        optimize(parabola, {"x": {"min": 1, "max": 0, "distribution": "uniform"}}, "accuracy", 3)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, metta.sweep; print([m for m in ('numpy', 'scipy', 'sqlalchemy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def with_defaults(config: dict[str, Any] = {"x": 0.25, "other": 1}, trial: Any = None) -> float:  # noqa: B006
    return float(config["x"])


def test_trial_0_of_a_function_has_its_default_hyperparameters_also_in_a_sweep_that_goes_on() -> None:
    first = sweep(with_defaults, 1, name="defaults")
    assert first.trials[0].params == {"x": 0.25}
    assert first.trials[0].suggestion["source"] == "own values"
    more = sweep(with_defaults, 2, name="defaults")
    assert more.trials[0].params == {"x": 0.25}
    assert more.trials[1].suggestion["source"] == "random"


def test_a_function_without_default_hyperparameters_begins_at_the_search_centre() -> None:
    assert sweep(parabola, 1).trials[0].params == {"x": 0.5}


def test_default_hyperparameters_that_are_not_data_are_named() -> None:
    def train(config: dict[str, Any] = {"x": print}, trial: Any = None) -> float:  # noqa: B006
        return 0.0

    with pytest.raises(UserError, match="train: the default of 'config' is not data"):
        sweep(train, 1)


@pytest.mark.parametrize(
    ("metric", "given", "doubted"),
    [
        ("val_loss", {}, True),
        ("eval/mse", {}, True),
        ("valLoss", {}, True),
        ("val_logloss", {}, True),
        ("test_err", {}, True),
        ("val_loss", {"goal": "minimize"}, False),
        ("val_loss", {"goal": "maximize"}, False),
        ("accuracy", {}, False),
        ("ore.lost", {}, False),
        ("lossless", {}, False),
    ],
)
def test_a_loss_that_is_maximized_by_default_is_doubted(
    metric: str, given: dict[str, Any], doubted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    optimize(lambda config, trial: {metric: config["x"]}, X, metric, 1, write_report=False, **given)
    warned = f"warning: {metric} is maximized, because no goal is given; if less of it is better: goal=minimize"
    assert (warned in capsys.readouterr().out) == doubted


class Callable:
    def __call__(self, config: dict[str, Any], trial: RunningTrial) -> float:
        return float(config["x"])


@pytest.mark.parametrize("function", [partial(lambda factor, config, trial: factor * config["x"], 3), Callable()])
def test_what_has_no_name_is_swept(function: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(sweep(function, 2).trials) == 2
    assert "optimize(function, ..., name=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda trial: trial.report(1, 0.9), "report(step, {name: value}) takes metrics by name, not 0.9"),
        (lambda trial: trial.report(0.9, 1), "report(step, {name: value}) takes metrics by name, not 1"),
        (lambda trial: trial.report(1, {"accuracy": 0.5}, total="ten"), "the metric 'total'"),
        (lambda trial: trial.should_prune(), "should_prune is Optuna's. Here report says it"),
        (lambda trial: trial.set_user_attr("a", 1), "RunningTrial has no 'set_user_attr'"),
    ],
)
def test_a_habit_from_elsewhere_stops_the_sweep_at_once_and_says_what_to_write(use: Any, message: str) -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        use(trial)
        return 0.5

    with pytest.raises(MishapError, match=re.escape(message)):
        sweep(train)


def test_a_budget_of_a_cost_that_is_not_measured_stops_the_sweep_at_once() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        return {"accuracy": config["x"], "flops": 100.0}

    with pytest.raises(MishapError, match="did not measure 'flop', which max_cost limits; did you mean 'flops'"):
        sweep(train, 6, cost_metric="flop", max_cost=250.0)


def test_a_spent_budget_is_said_and_how_to_raise_it(capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        return {"accuracy": config["x"], "k": 3.0}

    sweep(train, 400, cost_metric="k", max_cost=10.0)
    said = capsys.readouterr().out
    assert "the sweep has ended: max_cost=10 is spent" in said
    assert "num_trials=800, max_cost=20)" in said


def test_another_function_under_the_same_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"parameters": X, "metric": "accuracy", "name": "same", "write_report": False}
    optimize(parabola, num_trials=1, **given)
    capsys.readouterr()
    optimize(one_argument_too_many, num_trials=2, **given)
    said = capsys.readouterr().out
    assert "earlier trials ran tests.support.functions:parabola; their scores are compared with" in said


def one_argument_too_many(config: dict[str, Any], trial: RunningTrial, more: int = 1) -> float:
    return float(config["x"])
