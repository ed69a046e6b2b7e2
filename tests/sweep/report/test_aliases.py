"""Paths from earlier versions that were documented still work."""

from __future__ import annotations

from metta.sweep import confirmation, load_sweep
from metta.sweep.analysis.confirmation import ConfirmationResult, confirmation_result
from metta.sweep.report.snapshot import take_snapshot
from metta.sweep.store.protocol import Store


def test_a_snapshot_is_an_analysed_state_with_curves(url: str, store: Store) -> None:
    assert store.trials("made")
    sweep = take_snapshot(load_sweep(url, "made"))
    assert sweep.analysis is not None
    assert sweep.curves


def test_the_old_names_of_confirmation() -> None:
    assert confirmation.judge is confirmation_result
    assert confirmation.Verdict is ConfirmationResult
