"""What swept code does to its process stays its own."""

from __future__ import annotations

import locale
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metta.sweep import load_sweep, optimize
from metta.sweep.executor.surroundings import Surroundings
from metta.sweep.signals import stops_are_interrupts
from metta.sweep.trial import TrialState

SPACE = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}


def raise_on_underflow() -> None:
    np.seterr(all="raise")


def warnings_are_errors() -> None:
    warnings.simplefilter("error")


def change_folder() -> None:
    os.chdir("/")


def change_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C")


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def close_output() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "misbehave",
    [raise_on_underflow, warnings_are_errors, change_folder, change_locale, ignore_interrupts, close_output],
)
def test_a_function_changes_nothing_for_the_driver(misbehave: Callable[[], None]) -> None:
    before = Surroundings.now(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def train(config: dict[str, Any], trial: Any) -> float:
        misbehave()
        return float(config["x"])

    result = optimize(train, SPACE, "score", 8, name="s")
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 8
    assert (Surroundings.now(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_trial_runs_as_the_script_would_and_the_optimiser_does_not() -> None:
    def train(config: dict[str, Any], trial: Any) -> float:
        return float(np.geterr()["under"] == "raise")

    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        result = optimize(train, SPACE, "score", 8, name="s")
    assert [trial.score for trial in result.trials] == [1.0] * 8


@pytest.mark.parametrize("status", [0, 2, "a text"])
def test_sys_exit_is_a_failed_trial(status: int | str, folder: Path) -> None:
    def train(config: dict[str, Any], trial: Any) -> float:
        if trial.number == 1:
            sys.exit(status)
        return float(config["x"])

    optimize(train, SPACE, "score", 3, name="s")
    trials = load_sweep(f"sqlite:///{folder}/sweeps.db", "s").trials()
    assert [trial.state.value for trial in trials] == ["completed", "failed", "completed"]
    assert f"SystemExit: {status}" in (trials[1].error or "")
    assert trials[1].attempts == 1


def test_a_forked_child_does_not_inherit_the_handlers_of_the_driver() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stops_are_interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before
        child = os.fork()
        if child == 0:
            os._exit(signal.getsignal(signal.SIGTERM) is not before)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["100%s", "a b", "why?", "#1", "ü%20"])
def test_a_data_folder_of_any_name_is_that_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / name
    monkeypatch.setenv("METTA_DATA_DIR", str(data))
    optimize(lambda config, trial: config["x"], SPACE, "score", 2, name="s")
    assert sorted(path.name for path in data.iterdir() if not path.name.startswith("sweeps.db-")) == [
        "sweeps",
        "sweeps.db",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [name]
