"""Failures that say nothing about the hyperparameters are neither learnt from nor counted, and are tried again."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metta.sweep import load_sweep, optimize
from metta.sweep.analysis.failures import last_line
from metta.sweep.mishaps import is_mishap, trouble
from metta.sweep.sweep import MishapError, TooManyFailuresError
from metta.sweep.trial import TrialState

SPACE = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "error",
    [
        "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'torch'",
        "Traceback (most recent call last):\n  ...\nFileNotFoundError: [Errno 2] No such file or directory: 'data.npz'",
        "exit status 127; its errors are in stderr.log\nno_such_program: No such file or directory",
        "exit status 1; its errors are in stderr.log\nRuntimeError: No CUDA GPUs are available",
        "exit status 1; its errors are in stderr.log\n  File train.py, line 3\nSyntaxError: invalid syntax",
        "ArgumentsRefusedError: exit status 2\nt.py: error: unrecognized arguments: --lr=0.1",
        "mishap: the run did not measure 'loss'",
        "Traceback (most recent call last):\n  ...\nmetta.sweep.program.errors.MetricMissingError: no number",
        "Traceback (most recent call last):\n  ...\nmetta.sweep.function.NotANumberError: the function returned None",
        "MetricMissingError: no number 'loss'; the end of its output:\nValueError: quoted",
        "Traceback (most recent call last):\n  ...\nOSError: [Errno 28] No space left on device",
    ],
)
def test_a_mishap(error: str) -> None:
    assert is_mishap(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        "the score loss is nan",
        "exit status 139 (SIGSEGV); its errors are in stderr.log",
        "Traceback ...\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "Traceback ...\nImportError: x\n\nDuring handling of the above exception:\n\nValueError: lr must be positive",
        "lost 3 times; the last time: its worker ended with exit status 137 (SIGKILL)",
        "exit status 1; its errors are in stderr.log\nI could not import: ImportError was caught",
    ],
)
def test_what_may_come_from_the_hyperparameters(error: str | None) -> None:
    assert not is_mishap(error)


def test_trouble_is_what_may_pass_by_itself(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "trial_0000")
    assert "No space left" in (trouble("OSError: [Errno 28] No space left on device", run_dir) or "")
    assert "Too many open files" in (trouble("OSError: [Errno 24] Too many open files: 'x'", run_dir) or "")
    assert trouble("FileNotFoundError: [Errno 2] No such file or directory: 'data.npz'", run_dir) is None
    assert "is unreachable" in (trouble("FileNotFoundError: x", str(tmp_path / "away" / "trial_0000")) or "")


def failing(when: Callable[[int], bool]) -> Callable[..., float]:
    def train(config: dict[str, Any], trial: Any) -> float:
        if when(trial.number):
            raise FileNotFoundError("data.npz")
        return float(config["x"])

    return train


def test_the_first_trial_stops_the_sweep_and_the_same_command_tries_it_again(folder: Path) -> None:
    with pytest.raises(MishapError, match=r"(?s)trial 0 failed.*data\.npz.*the resumed sweep runs"):
        optimize(failing(lambda number: True), SPACE, "score", 4, name="s")
    state = load_sweep(f"sqlite:///{folder}/sweeps.db", "s").state()
    assert (state.counted, list(state.mishaps)) == (0, [0])
    assert "neither learnt from nor counted" in "\n".join(state.remarks)

    result = optimize(failing(lambda number: False), SPACE, "score", 4, name="s")
    assert [(trial.state, trial.attempts) for trial in result.trials] == [
        (TrialState.COMPLETED, 2),
        *[(TrialState.COMPLETED, 1)] * 3,
    ]


def test_after_a_success_three_in_a_row_stop_it() -> None:
    with pytest.raises(MishapError, match="3 trials in a row"):
        optimize(failing(lambda number: number > 1), SPACE, "score", 9, name="s")


def test_one_among_successes_is_not_counted_and_the_sweep_ends() -> None:
    result = optimize(failing(lambda number: number == 2), SPACE, "score", 4, name="s")
    assert result.state.counted == 3
    assert not result.state.complete
    assert 2 not in result.state.learner.problems
    again = optimize(failing(lambda number: False), SPACE, "score", 4, name="s")
    assert again.state.counted == 4
    assert again.trials[2].attempts == 2


def test_the_values_of_a_mishap_are_not_suggested_to_another_trial_because_it_is_run_again() -> None:
    with pytest.raises(MishapError):
        optimize(failing(lambda number: number > 0), SPACE, "score", 6, name="s")
    result = optimize(failing(lambda number: False), SPACE, "score", 6, name="s")
    assert len({trial.params["x"] for trial in result.trials}) == 6


def test_crashes_still_stop_a_sweep_after_five() -> None:
    def train(config: dict[str, Any], trial: Any) -> float:
        raise RuntimeError("diverged")

    with pytest.raises(TooManyFailuresError, match="5 trials failed in a row") as caught:
        optimize(train, SPACE, "score", 9, name="s")
    assert not isinstance(caught.value, MishapError)


def test_a_full_disk_is_waited_for_and_fails_no_trial(folder: Path) -> None:
    full = [True, True]

    def train(config: dict[str, Any], trial: Any) -> float:
        if trial.number == 1 and full:
            full.pop()
            raise OSError(28, "No space left on device")
        return float(config["x"])

    result = optimize(train, SPACE, "score", 3, name="s")
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 3
    assert result.trials[1].attempts == 3


def test_the_last_line_of_a_group_of_exceptions_is_that_of_its_last_one() -> None:
    try:
        raise ExceptionGroup("two", [ValueError("first"), KeyError("second")])
    except ExceptionGroup:
        assert last_line(traceback.format_exc()) == "KeyError: 'second'"
