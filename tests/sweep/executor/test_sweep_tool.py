"""SweepTool with workers: Ctrl-C once and twice, and real training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from metta.sweep.store import open_store
from metta.sweep.trial import Trial, TrialState
from tests.support.small_sweep import small_sweep
from tests.sweep.executor.probe import write
from tests.sweep.executor.trials import PATIENCE_SECONDS, alive, pids, until

ROOT = Path(__file__).parents[3]
COMPLETED, QUEUED, RUNNING = TrialState.COMPLETED, TrialState.QUEUED, TrialState.RUNNING


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))


def stored(folder: Path) -> list[Trial]:
    with closing(open_store(f"sqlite:///{folder / 'data' / 'sweeps.db'}")) as store:
        return store.trials("s")


def await_line(process: subprocess.Popen[str], text: str) -> None:
    """Read what it prints up to a line with this text."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), f"it ended without {text!r}"


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_ctrl_c_once_finishes_what_runs_and_twice_cancels_it(executor: str, tmp_path: Path) -> None:
    command = [sys.executable, "tools/run.py", "tests.sweep.executor.trials.probe_sweep"]
    command += ["--args", "sweep_name=s", "wait_for=end", "--overrides", f"executor={executor}", "num_workers=2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def interrupt() -> None:
        """Send what a terminal sends: SIGINT to every process of the foreground group."""
        os.killpg(process.pid, signal.SIGINT)

    def states() -> list[tuple[TrialState, int]]:
        return [(trial.state, trial.attempts) for trial in stored(tmp_path)]

    until(lambda: len(pids(tmp_path)) == 2)
    interrupt()
    await_line(process, "finishing 2 running trials")
    assert all(alive(pid) for pid in pids(tmp_path))
    (first,) = tmp_path.glob("**/trial_0000/pids.1")
    write(first.with_name("end"))
    until(lambda: states() == [(COMPLETED, 1), (RUNNING, 1)])

    interrupt()
    rest, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "run the same command again" in rest
    assert "Traceback" not in rest
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)))
    assert states() == [(COMPLETED, 1), (QUEUED, 1)], "no trial is started after the first"


def test_ctrl_c_stays_ignored_where_a_script_started_the_sweep_in_the_background(tmp_path: Path) -> None:
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "tools/run.py"]
    command += ["tests.sweep.executor.trials.probe_sweep", "--args", "sweep_name=s", "wait_for=end", "--overrides"]
    command += ["executor=local", "num_workers=2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: len(pids(tmp_path)) == 2)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "finishing" not in said
    assert {trial.state for trial in stored(tmp_path)} == {QUEUED}


def test_workers_train_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert small_sweep("s", num_trials=3).override("num_workers", 2).invoke() == 0

    assert "2 worker processes" in capsys.readouterr().out
    trials = stored(tmp_path)
    assert [(trial.state, trial.attempts) for trial in trials] == [(COMPLETED, 1)] * 3
    assert len({trial.params["trainer.ppo.clip_coef"] for trial in trials}) == 3
    for trial in trials:
        assert trial.score == trial.metrics["small/room/heart.gained"]
        assert Path(trial.artefacts["policy"].removeprefix("file://")).is_relative_to(
            tmp_path / "data" / "sweeps" / "s"
        )
