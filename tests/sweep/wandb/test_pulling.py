"""A sweep read back from Weights & Biases into a store that lacks it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from metta.sweep.store import open_store
from metta.sweep.store.protocol import Driver, Store, SweepExistsError, SweepRecord
from metta.sweep.trial import Progress, Trial, TrialState
from metta.sweep.wandb import records
from tests.support.wandb_server import ENTITY, Request, Run
from tests.sweep.wandb.conftest import Mirror, RunTrial


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    yield store
    store.close()


def put(mirror: Mirror, record: SweepRecord, *trials: Trial) -> None:
    """Runs as the client leaves them, put on the server at once."""
    sweep = ("sweep", records.DEFINITION, {"sweep": records.encode_sweep(record)})
    items = [("trial", str(trial.number), {"trial": records.encode_trial(trial)}) for trial in trials]
    for kind, item, ours in [sweep, *items]:
        name = records.run_id(record, item)
        run = Run(name, name, (ENTITY, mirror.name), f"2026-01-01T00:00:00.{len(mirror.server.runs):06d}Z")
        run.fields = {"groupName": record.name, "jobType": kind, "displayName": name}
        run.summary = {records.KEY: ours}
        mirror.server.runs[f"{ENTITY}/{mirror.name}/{name}"] = run


def trial(number: int, state: TrialState = TrialState.COMPLETED) -> Trial:
    return Trial(number, state, {"optimizer.lr": 0.001 * number}, {}, 1, number / 7, 1.0, {"score": number / 7})


def test_a_sweep_comes_back_as_it_was(mirror: Mirror, store: Store, empty: Store, run_trial: RunTrial) -> None:
    run_trial(0, artefacts={"policy": "file:///p"})
    run_trial(1, math.nan, TrialState.FAILED, metrics={"score": math.nan, "x": math.inf}, error="it\nbroke")
    run_trial(2, 0.25, TrialState.PRUNED)
    mirror.send(store)
    assert mirror.pull(empty) == {"event": "pulled", "ended": 3, "queued": 0, "others": 0}
    assert empty.sweep("arena") == store.sweep("arena")
    assert repr(empty.trials("arena")) == repr(store.trials("arena"))
    mirror.server.requests.clear()
    assert mirror.send(empty) == []
    assert not {"UpsertBucket", "file_stream"} & set(mirror.server.kinds())


def test_a_sweep_that_came_back_goes_on(mirror: Mirror, store: Store, empty: Store, run_trial: RunTrial) -> None:
    run_trial(0)
    mirror.send(store)
    mirror.pull(empty)
    attempt = empty.start(empty.join("arena"), 1, {"optimizer.lr": 0.5})
    assert attempt.number == 1
    assert records.run_id(empty.sweep("arena"), 1) == records.run_id(store.sweep("arena"), 1)


def test_more_runs_than_a_page_holds_are_all_read(mirror: Mirror, store: Store, empty: Store) -> None:
    record = store.sweep("arena")
    trials = [trial(number) for number in range(1050)]
    put(mirror, record, *trials)
    put(mirror, replace(record, name="another"), *trials[:5])
    put(mirror, replace(record, created_at=record.created_at - timedelta(days=1)), *trials[:5])
    assert mirror.pull(empty) == {"event": "pulled", "ended": 1050, "queued": 0, "others": 1}
    assert empty.trials("arena") == trials
    assert empty.sweep("arena") == record
    pages = [request.body["variables"] for request in mirror.server.requests if request.kind == "Runs"]
    assert len({page["cursor"] for page in pages if "trial" in page["filters"]}) >= 6


def test_a_trial_that_was_running_is_not_read(
    mirror: Mirror, store: Store, empty: Store, driver: Driver, run_trial: RunTrial
) -> None:
    run_trial(0)
    store.start(driver, 1, {"optimizer.lr": 0.5})
    mirror.send(store)
    assert mirror.pull(empty)["ended"] == 1
    assert [one.number for one in empty.trials("arena")] == [0]


def test_a_trial_that_was_overtaken_is_tried_again(
    mirror: Mirror, store: Store, empty: Store, driver: Driver, run_trial: RunTrial
) -> None:
    attempt = store.start(driver, 0, {"optimizer.lr": 0.1 + 0.2}, {"source": "centre"})
    store.record_progress(attempt, [Progress(10, 20, 1.5, {"reward": 2.0}), Progress(20, 20, 3.0, {"reward": 2.5})])
    run_trial(1)
    mirror.send(store)
    assert mirror.pull(empty) == {"event": "pulled", "ended": 1, "queued": 1, "others": 0}
    queued, ended = empty.trials("arena")
    assert (queued.state, queued.params, queued.suggestion) == (
        TrialState.QUEUED,
        {"optimizer.lr": 0.1 + 0.2},
        {"source": "centre"},
    )
    assert ended.state is TrialState.COMPLETED
    assert empty.curve("arena", 0) == store.curve("arena", 0)
    assert empty.seconds_lost("arena", 0) == 3.0
    claimed = empty.claim(empty.join("arena"))
    assert claimed is not None
    assert (claimed.number, claimed.attempt) == (0, 2)


def test_a_run_that_was_deleted_is_tried_again(mirror: Mirror, store: Store, empty: Store) -> None:
    put(mirror, store.sweep("arena"), trial(0), trial(2))
    assert mirror.pull(empty)["queued"] == 1
    assert empty.trials("arena", states=[TrialState.QUEUED])[0].params == {"optimizer.lr": 0.001}


def test_the_newest_of_several_sweeps_is_read(mirror: Mirror, store: Store, empty: Store, run_trial: RunTrial) -> None:
    record = store.sweep("arena")
    newer = replace(record, created_at=record.created_at + timedelta(days=1))
    put(mirror, newer, trial(0), trial(1))
    run_trial(0)
    mirror.send(store)
    assert mirror.pull(empty) == {"event": "pulled", "ended": 2, "queued": 0, "others": 1}
    assert empty.sweep("arena") == newer


def test_what_is_not_there_is_not_read(mirror: Mirror, store: Store, empty: Store) -> None:
    assert mirror.pull(empty) == {"event": "nothing"}  # there is no such project
    mirror.send(store)
    assert mirror.pull(empty, "another") == {"event": "nothing"}
    assert empty.sweeps() == []


def test_a_sweep_that_is_here_is_not_overwritten(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    put(mirror, store.sweep("arena"), trial(0))
    run_trial(0, 0.125)
    with pytest.raises(SweepExistsError):
        mirror.pull(store)
    assert store.trials("arena")[0].score == 0.125


def test_runs_of_others_are_left_alone(mirror: Mirror, store: Store, empty: Store) -> None:
    put(mirror, store.sweep("arena"), trial(0))
    alien = replace(mirror.run(0), name="alien", summary={"score": 1.0})
    mirror.server.runs[f"{ENTITY}/{mirror.name}/alien"] = alien
    assert mirror.pull(empty)["ended"] == 1


@pytest.mark.parametrize("answer", [429, 503, "cut"])
def test_a_page_that_fails_once_is_asked_for_again(
    mirror: Mirror, store: Store, empty: Store, answer: int | str
) -> None:
    put(mirror, store.sweep("arena"), *[trial(number) for number in range(450)])
    mirror.server.retry_after = 1
    pages = 0

    def fail(request: Request) -> int | str | None:
        nonlocal pages
        pages += request.kind == "Runs"
        return answer if pages == 3 and request.kind == "Runs" else None

    with mirror.server.faulty(fail):
        assert mirror.pull(empty)["ended"] == 450
    assert [one.number for one in empty.trials("arena")] == list(range(450))


def test_a_server_that_dies_half_way_leaves_nothing_behind(mirror: Mirror, store: Store, empty: Store) -> None:
    put(mirror, store.sweep("arena"), *[trial(number) for number in range(450)])
    mirror.patience = 1.0
    pages = 0

    def die(request: Request) -> str | None:
        nonlocal pages
        pages += request.kind == "Runs"
        return "cut" if pages > 2 else None

    with mirror.server.faulty(die), pytest.raises(Exception, match="in time"):
        mirror.pull(empty)
    assert empty.sweeps() == []
