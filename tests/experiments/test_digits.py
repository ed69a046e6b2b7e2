"""The sweep of handwritten digits: it learns, and is what `optimize` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.sweep_digits import PARAMETERS, sweep, train
from metta.sweep import optimize
from metta.sweep.abstract_sweep import AbstractSweep


def test_the_digits_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(AbstractSweep, "_write_report", lambda *_: None)
    told = sweep("digits", num_trials=2).override("seed", 1).run()
    called = optimize(train, PARAMETERS, metric="accuracy", num_trials=1, seed=1)

    assert told.trials[0].params == called.trials[0].params
    assert told.trials[0].score == called.trials[0].score, "the seed decides, whoever runs it"
    assert told.best_score > 0.9
