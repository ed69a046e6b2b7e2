"""What swept code does to its process stays its own."""

from __future__ import annotations

import locale
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
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


def close_streams() -> None:
    os.close(1)
    os.close(2)


def clear_variables() -> None:
    os.environ.clear()
    os.environ["METTA_DATA_DIR"] = "/nowhere"


def limit_everything() -> None:
    os.umask(0o777)
    sys.setrecursionlimit(sys.getrecursionlimit() - 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def set_an_alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "misbehave",
    [
        raise_on_underflow,
        warnings_are_errors,
        change_folder,
        change_locale,
        ignore_interrupts,
        close_output,
        close_streams,
        clear_variables,
        limit_everything,
        set_an_alarm,
        block_signals,
    ],
)
def test_a_function_changes_nothing_for_the_driver(misbehave: Callable[[], None]) -> None:
    def state() -> tuple[object, ...]:
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
        mask, timer = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getitimer(signal.ITIMER_REAL)[0] > 0
        now = replace(Surroundings.now(), variables={name: os.environ.get(name, "") for name in variables})
        return now, signals, mask, timer, resource.getrlimit(resource.RLIMIT_FSIZE), os.fstat(1)[:3]

    variables = list(os.environ)
    before = state()

    def train(config: dict[str, Any], trial: Any) -> float:
        misbehave()
        return float(config["x"])

    result = optimize(train, SPACE, "score", 8, name="s")
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 8
    assert state() == before


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


class Strange(BaseException):
    pass


def alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(10)


def raise_strange() -> None:
    raise Strange("of no library")


def raise_much() -> None:
    raise ValueError("x" * 1_000_000)


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (alarm, "the alarm went off that the trial had set"),
        (raise_strange, "Strange: of no library"),
        (raise_much, "characters ..."),
    ],
)
def test_what_swept_code_raises_is_a_failed_trial(misbehave: Callable[[], None], reason: str, folder: Path) -> None:
    def train(config: dict[str, Any], trial: Any) -> float:
        if trial.number == 1:
            misbehave()
        return float(config["x"])

    optimize(train, SPACE, "score", 3, name="s")
    trials = load_sweep(f"sqlite:///{folder}/sweeps.db", "s").trials()
    assert [trial.state.value for trial in trials] == ["completed", "failed", "completed"]
    assert reason in (trials[1].error or "")
    assert len(trials[1].error or "") < 60_000


@pytest.mark.parametrize("returns", [True, False])
def test_a_child_that_comes_back_from_a_trial_is_no_driver(returns: bool, folder: Path) -> None:
    def train(config: dict[str, Any], trial: Any) -> float:
        if (child := os.fork()) == 0 and not returns:
            raise RuntimeError("in the child")
        if child:
            os.waitpid(child, 0)
        return float(config["x"]) if child else -1.0

    optimize(train, SPACE, "score", 3, name="s")
    trials = load_sweep(f"sqlite:///{folder}/sweeps.db", "s").trials()
    assert [trial.state.value for trial in trials] == ["completed"] * 3
    assert all(trial.score is not None and trial.score >= 0 for trial in trials)


CLOSES_FILES = """
import os
from metta.sweep import optimize

kept = []

def train(config, trial):
    trial.report(1, {"score": 0.5})
    if trial.number == 1:
        os.closerange(3, 1000)
        kept.extend(open(f"own{number}", "w+") for number in range(20))
        for file in kept:
            print("own", file=file, flush=True)
    return config["x"]

optimize(train, {"x": {"min": 0, "max": 1, "distribution": "uniform"}}, "score", 3, name="closed", write_report=False)
print("changed:", [file for file in kept if open(file.name).read() != "own\\n"])
"""


def test_a_trial_that_closes_the_files_of_the_driver_is_recorded(folder: Path) -> None:
    """The store's connections then have numbers that belong to files of the trial."""
    said = subprocess.run([sys.executable, "-c", CLOSES_FILES], capture_output=True, text=True, cwd=folder)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.endswith("changed: []\n")
    trials = load_sweep(f"sqlite:///{folder}/sweeps.db", "closed").trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 3


def test_the_folder_of_the_runs_is_made_again_where_a_trial_removes_it() -> None:
    def train(config: dict[str, Any], trial: Any) -> float:
        if trial.number == 0:
            shutil.rmtree(trial.run_dir.parent)
        return float(config["x"])

    assert len(optimize(train, SPACE, "score", 2, name="s").trials) == 2


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
