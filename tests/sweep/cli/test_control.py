"""A sweep that runs in a process of its own, steered from this one through the store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from metta.common.entry_point import EntryPoint
from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store
from metta.sweep.trial import TrialState

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "tools/run.py", "tests.support.quick_sweep.quick_sweep", "--args", "sweep_name=q"]
ARGUMENTS = ["num_trials=1000", "seconds=0.1"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    store = open_store(f"sqlite:///{tmp_path}/sweeps.db")
    yield store
    store.close()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert metta_sweep(words) == 0
    return capsys.readouterr().out


def test_a_sweep_is_paused_resumed_and_stopped(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def ended() -> int:
        return sum(trial.state.ended for trial in store.trials("q")) if store.sweeps() else 0

    def running() -> list[int]:
        return [trial.number for trial in store.trials("q", states=[TrialState.RUNNING])]

    process = subprocess.Popen(
        [*COMMAND, *ARGUMENTS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: ended() >= 2, process)
    assert json.loads(said(capsys, "pause", "q", "--json")) == {"paused": True, "drivers": 1}

    def quiet() -> bool:
        """Whether no trial was started within two polls of the driver."""
        before = ended()
        time.sleep(2.2)
        return not running() and ended() == before

    wait_until(quiet, process)
    paused_at = ended()

    assert "q continues: 1 driver" in said(capsys, "resume", "q")
    wait_until(lambda: ended() > paused_at, process)

    told = said(capsys, "stop", "q")
    assert "1 driver will finish the running trials and end" in told
    assert told.splitlines()[-1].strip() == " ".join(["uv run ./tools/run.py", *COMMAND[2:], *ARGUMENTS])
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "paused with" in output
    assert "continuing" in output
    assert "asked to stop: finishing" in output
    assert output.splitlines()[-1] == told.splitlines()[-1], "the driver says how to go on, too"
    trials = store.trials("q")
    assert paused_at < len(trials) < 1000
    assert {(trial.state, trial.attempts) for trial in trials} == {(TrialState.COMPLETED, 1)}, "none was cut off"
    assert "no driver is running" in said(capsys, "stop", "q")
    assert json.loads(said(capsys, "resume", "q", "--json")) == {"paused": False, "drivers": 0}


def test_a_failed_trial_is_retried(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    args = {"sweep_name": "q", "num_trials": "4", "seconds": "0", "fail_above": "0.5"}
    sweep = EntryPoint(path="tests.support.quick_sweep.quick_sweep", args=args)
    assert sweep.build().invoke() == 0
    before = store.trials("q")
    failed = [trial.number for trial in before if trial.state is TrialState.FAILED]
    (completed, *_) = [trial.number for trial in before if trial.state is TrialState.COMPLETED]
    assert failed
    told = said(capsys, "retry", "q", *map(str, failed))
    assert "queued again" in told
    assert told.splitlines()[-1].strip().startswith("uv run ./tools/run.py tests.support.quick_sweep.quick_sweep")
    assert {trial.number for trial in store.trials("q", states=[TrialState.QUEUED])} == set(failed)
    worked = json.loads(said(capsys, "work", "q", "--json"))
    after = store.trials("q")
    assert [trial["attempts"] for trial in worked["trials"]] == [trial.attempts for trial in after]
    assert [trial.attempts for trial in after] == [2 if trial.number in failed else 1 for trial in after]
    assert [trial.state for trial in after] == [trial.state for trial in before], "the same x fails again"
    assert metta_sweep(["retry", "q", str(completed)]) == 2
    assert f"trial {completed} is completed; only a failed trial can be retried" in capsys.readouterr().err


def test_every_failed_trial_is_queued_again_and_nothing_else(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.create_sweep("q", {})
    driver = store.join("q")
    for number, error in enumerate([None, "ValueError: x", "ImportError: y", "ValueError: z"]):
        state = TrialState.FAILED if error else TrialState.COMPLETED
        store.end(store.start(driver, number, {}), Outcome(state, error=error))
    store.drop("q", [3])
    store.leave(driver)
    assert "trials 1-2 are queued again" in said(capsys, "retry", "q", "--failed")
    assert [trial.state.value for trial in store.trials("q")] == ["completed", "queued", "queued", "failed"]
    assert "no trial has failed" in said(capsys, "retry", "q", "--failed")
    for words in (["retry", "q"], ["retry", "q", "1", "--failed"]):
        assert metta_sweep(words) == 2


def test_the_exit_status_says_whether_a_trial_has_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    file = tmp_path / "s.yaml"
    space = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}
    sweep = {"metric": "loss", "num_trials": 2, "parameters": space, "command": ["sh", "-c", "exit 3", "${x}"]}
    file.write_text(yaml.safe_dump(sweep))
    assert metta_sweep(["run", str(file), "--overrides", "write_report=false"]) == 1
    assert "metta-sweep retry s --failed" in capsys.readouterr().out
    assert metta_sweep(["run", str(file), "--name", "t", "--json"]) == 1
    file.write_text(yaml.safe_dump(sweep | {"command": ["sh", "-c", "echo '{\"loss\": 1}'", "${x}"]}))
    assert metta_sweep(["run", str(file), "--name", "u", "--overrides", "write_report=false"]) == 0
