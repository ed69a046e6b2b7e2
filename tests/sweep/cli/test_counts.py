"""Counts agree with their nouns wherever the command prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metta.sweep import RunningTrial, optimize
from metta.sweep.cli import main


def score(config: dict[str, Any], trial: RunningTrial) -> float:
    return float(config["x"])


def test_one_trial_is_singular(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    space = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}
    optimize(score, space, "score", 1, name="s", write_report=False)
    assert main(["export", "s", "--to", "t.csv"]) == 0
    assert main(["import", "t.csv", "--name", "s"]) == 0
    assert main(["rm", "s", "--yes"]) == 0
    said = capsys.readouterr().out
    for words in ("s: 1 trial,", "1 trial written", "1 trial added", "its 2 trials were removed"):
        assert words in said
    assert "1 trials" not in said
