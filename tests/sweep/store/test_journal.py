"""A journal on a disk that is full for a while holds everything in the end."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from metta.sweep.store import open_store
from metta.sweep.store import process as process_module
from metta.sweep.store.journal import Journal, bring_in_journals
from metta.sweep.store.protocol import SweepRecord, TrialHistory
from metta.sweep.trial import Trial, TrialState


def ended(number: int) -> TrialHistory:
    return TrialHistory(Trial(number, TrialState.COMPLETED, {"x": 0.5}, score=float(number)))


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1}])
def test_what_a_full_disk_did_not_take_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: set[int]
) -> None:
    url, folder, said = f"sqlite:///{tmp_path}/store.sqlite", tmp_path / "runs" / "one", list[str]()
    folder.mkdir(parents=True)
    with closing(open_store(url)) as store:
        journal = Journal(folder, store.url, SweepRecord("s", {}, None, datetime.now(UTC)))
        for number in range(3):
            with monkeypatch.context() as context:
                if number in failing:

                    def full(descriptor: int) -> None:
                        raise OSError(28, "No space left on device")

                    context.setattr(os, "fsync", full)
                    with pytest.raises(OSError, match="No space"):
                        journal.keep([ended(number)])
                else:
                    journal.keep([ended(number)])
        monkeypatch.setattr(process_module.Process, "has_died", lambda process: True)
        bring_in_journals(store, "s", tmp_path / "runs", said.append)
        assert [trial.score for trial in store.trials("s")] == [0.0, 1.0, 2.0], said
