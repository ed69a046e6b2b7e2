"""A sweep that is put into another store, and what is noted of its mirrors."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from metta.sweep.store import open_store
from metta.sweep.store.protocol import CurvePoint, Outcome, Store, SweepExistsError, TrialHistory
from metta.sweep.trial import Progress, Trial, TrialState


def begun_elsewhere(tmp_path: Path) -> Store:
    """A sweep of two trials that ended, one of them not at first, and one that waits after a loss."""
    store = open_store(f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    store.create_sweep("arena", {"num_trials": 3, "seed": 7}, {"path": "experiments.x"})
    driver = store.join("arena")
    first = store.start(driver, 0, {"lr": 0.1}, {"source": "centre"})
    store.record_progress(first, [Progress(10, 20, 1.5, {"reward": math.nan}), Progress(20, 20, 3.0, {})])
    store.end(first, Outcome(TrialState.COMPLETED, 0.5, 3.0, 3.0, {"hearts": math.inf}, {"policy": "file:///p"}))
    second = store.start(driver, 1, {"lr": 0.2})
    store.lose(second, "killed", 4.0)
    again = store.claim(driver)
    assert again is not None
    store.record_progress(again, [Progress(1, None, 0.5, {"reward": 2.0})])
    store.end(again, Outcome(TrialState.FAILED, math.nan, 5.0, error="the score is nan"))
    third = store.start(driver, 2, {"lr": 0.3})
    store.record_progress(third, [Progress(1, None, 2.5, {"reward": 1.0})])
    store.lose(third, "killed", 7.0)
    return store


def histories(store: Store) -> list[TrialHistory]:
    return [
        TrialHistory(trial, store.curve("arena", trial.number), store.seconds_lost("arena", trial.number))
        for trial in store.trials("arena")
    ]


def test_an_imported_sweep_is_the_one_that_was_exported(store: Store, tmp_path: Path) -> None:
    elsewhere = begun_elsewhere(tmp_path)
    store.import_sweep(elsewhere.sweep("arena"), histories(elsewhere))
    assert store.sweep("arena") == elsewhere.sweep("arena")
    assert repr(store.trials("arena")) == repr(elsewhere.trials("arena"))  # NaN is not equal to itself
    assert repr(histories(store)) == repr(histories(elsewhere))
    elsewhere.close()


def test_an_imported_sweep_goes_on(store: Store, tmp_path: Path) -> None:
    elsewhere = begun_elsewhere(tmp_path)
    store.import_sweep(elsewhere.sweep("arena"), histories(elsewhere))
    elsewhere.close()
    driver = store.join("arena")
    claimed = store.claim(driver)
    assert claimed is not None
    assert (claimed.number, claimed.attempt) == (2, 2)
    store.end(claimed, Outcome(TrialState.COMPLETED, 1.0, 8.0))
    assert store.start(driver, 3, {"lr": 0.4}).number == 3
    assert store.trials("arena", changed_since=1) == store.trials("arena")[2:]


def test_an_import_does_not_touch_a_sweep_of_that_name(store: Store, tmp_path: Path) -> None:
    elsewhere = begun_elsewhere(tmp_path)
    store.create_sweep("arena", {"num_trials": 1})
    with pytest.raises(SweepExistsError, match="arena"):
        store.import_sweep(elsewhere.sweep("arena"), histories(elsewhere))
    elsewhere.close()
    assert store.trials("arena") == []


@pytest.mark.parametrize(
    "trials",
    [[Trial(1, TrialState.QUEUED, {}), Trial(0, TrialState.QUEUED, {})], [Trial(0, TrialState.RUNNING, {})]],
    ids=["numbers that do not ascend", "a trial that runs"],
)
def test_what_cannot_be_imported_leaves_nothing_behind(store: Store, trials: list[Trial]) -> None:
    elsewhere = store.create_sweep("other", {})
    with pytest.raises(ValueError, match="imported"):
        store.import_sweep(replace(elsewhere, name="arena"), [TrialHistory(trial) for trial in trials])
    assert [record.name for record in store.sweeps()] == ["other"]


def test_a_trial_without_times_or_attempts_can_be_imported(store: Store) -> None:
    record = replace(store.create_sweep("other", {}), name="arena", created_at=datetime.now(UTC) - timedelta(days=1))
    curve = [CurvePoint(2, 5, 1.0, {"reward": 3.0})]
    store.import_sweep(record, [TrialHistory(Trial(0, TrialState.PRUNED, {}), curve)])
    assert store.trials("arena") == [Trial(0, TrialState.PRUNED, {})]
    assert store.curve("arena", 0) == curve


def test_what_a_mirror_holds_is_noted_for_each_mirror(store: Store) -> None:
    store.create_sweep("arena", {})
    store.set_mirrored("arena", "here", {"0": "a", "1": "b"})
    store.set_mirrored("arena", "there", {"0": "z"})
    store.set_mirrored("arena", "here", {"1": "c", "sweep": "d"})
    store.set_mirrored("arena", "here", {})
    assert store.mirrored("arena", "here") == {"0": "a", "1": "c", "sweep": "d"}
    assert store.mirrored("arena", "there") == {"0": "z"}
    store.remove_sweep("arena")
    store.create_sweep("arena", {})
    assert store.mirrored("arena", "here") == {}
