"""The sweep of handwritten digits: it learns, and runs the same trials as `optimize`."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.sweep_digits import PARAMETERS, sweep, train
from metta.sweep import optimize


def test_the_digits_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    by_tool = sweep("digits", num_trials=2).override("seed", 1).override("write_report", False).run()
    by_function = optimize(train, PARAMETERS, metric="accuracy", num_trials=1, seed=1, write_report=False)

    assert by_tool.trials[0].params == by_function.trials[0].params
    assert by_tool.trials[0].score == by_function.trials[0].score, "the seed alone decides"
    assert by_tool.best_score > 0.9
