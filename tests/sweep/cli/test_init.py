"""The examples that `metta-sweep init` writes, run as a new user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metta.sweep import load_sweep
from metta.sweep.cli import main as metta_sweep

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METTA_DATA_DIR", raising=False)


def run(*words: str) -> None:
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": search}
    finished = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("kind", "words"),
    [("function", ["sweep.py"]), ("program", ["-m", "metta.sweep.cli", "run", "sweep.yaml", "--num-trials", "6"])],
)
def test_what_is_written_runs(kind: str, words: list[str], tmp_path: Path) -> None:
    assert metta_sweep(["init", kind]) == 0
    run(*words)
    trials = load_sweep(f"sqlite:///{tmp_path}/train_dir/sweeps.db", f"my_{kind}").trials()
    assert len(trials) == (25 if kind == "function" else 6)
    assert all(trial.score is not None for trial in trials)


def test_the_experiments_are_those_of_the_repository(tmp_path: Path) -> None:
    assert metta_sweep(["init", "arena", "new"]) == 0
    for path in (ROOT / "experiments").glob("*.py"):
        assert (tmp_path / "new" / "experiments" / path.name).read_text() == path.read_text()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text("mine")
    assert metta_sweep(["init", "program"]) == 2
    assert "because these files exist: train.py" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]
    assert (tmp_path / "train.py").read_text() == "mine"
