"""What the real client sends of a sweep, and what it does not lose."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import wandb

from metta.sweep.retention import sweep_folder, trial_folder
from metta.sweep.state import read_state
from metta.sweep.store.protocol import Driver, Outcome, Store
from metta.sweep.trial import Progress, TrialState
from metta.sweep.wandb import records
from tests.support.wandb_server import Request
from tests.sweep.wandb.conftest import CONFIG, PATIENCE, SEARCH, Mirror, RunTrial


def test_a_trial_is_a_run_of_the_sweeps_group(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    run_trial(0, metrics={"score": 0.5, "arena/basic": 1.25})
    mirror.send(store)
    run = mirror.run(0)
    assert run.fields["groupName"] == "arena"
    assert (run.fields["displayName"], run.fields["jobType"], run.state) == ("arena.0000", "trial", "finished")
    assert run.hyperparameters["optimizer.lr"] == 0.001
    expected = {
        "score": 0.5,
        "cost": 2.0,
        "state": "completed",
        "arena/basic": 1.25,
        "suggestion": {"source": "random"},
    }
    assert {name: run.summary[name] for name in expected} == expected
    assert [row["reward"] for row in run.history] == [0.25, 0.5, 0.75]
    assert [row["progress/step"] for row in run.history] == [100, 200, 300]
    assert [row["_step"] for row in run.history] == [0, 1, 2]


def test_what_is_not_a_number_is_kept(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    error = "Traceback ...\nValueError: the score is nan"
    run_trial(0, math.nan, TrialState.FAILED, metrics={"score": math.nan, "best": -math.inf}, error=error)
    mirror.send(store)
    run = mirror.run(0)
    assert (run.summary["score"], run.summary["best"]) == ("NaN", "-Infinity")
    assert run.summary["error"] == "ValueError: the score is nan"
    trial = records.decode_trial(run.summary[records.KEY]["trial"])
    assert repr(trial) == repr(store.trials("arena")[0])


def test_the_sweep_itself_is_a_run(mirror: Mirror, store: Store) -> None:
    mirror.send(store)
    run = mirror.run(records.DEFINITION)
    assert (run.fields["groupName"], run.fields["jobType"]) == ("arena", "sweep")
    assert run.hyperparameters["protein"] == CONFIG["protein"]
    assert records.decode_sweep(run.summary[records.KEY]["sweep"]) == store.sweep("arena")


def test_a_sweep_that_is_extended_is_sent_again(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    run_trial(0)
    mirror.send(store)
    store.update_sweep("arena", CONFIG | {"num_trials": 10})
    assert [event["event"] for event in mirror.send(store)] == ["began"]
    text = mirror.run(records.DEFINITION).summary[records.KEY]["sweep"]
    assert records.decode_sweep(text).config["num_trials"] == 10
    assert len(mirror.runs()) == 2


def test_what_was_sent_is_not_sent_again(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    run_trial(0)
    assert [event["event"] for event in mirror.send(store)] == ["began", "sent"]
    run_trial(1)
    mirror.server.requests.clear()
    assert [event.get("number") for event in mirror.send(store)] == [1]
    names = {
        request.body["variables"]["name"] for request in mirror.server.requests if request.kind == "RunResumeStatus"
    }
    assert names == {mirror.run(1).name}


def test_sent_twice_is_the_same_run(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    """A sender that dies before it notes what it sent sends it again."""
    run_trial(0)
    mirror.send(store)
    before = mirror.run(0).history
    store.set_mirrored("arena", mirror.name, {"0": "?", records.DEFINITION: "?"})
    mirror.send(store)
    assert len(mirror.runs()) == 2
    assert mirror.run(0).history == before
    assert mirror.run(0).state == "finished"


def test_a_trial_that_runs_shows_its_learning_curve(mirror: Mirror, store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {"optimizer.lr": 0.001})
    store.record_progress(attempt, [Progress(100, 300, 0.5, {"reward": 0.25})])
    mirror.send(store)
    run = mirror.run(0)
    assert run.summary["state"] == "running"
    assert [row["reward"] for row in run.history] == [0.25]
    store.lose(attempt, "killed", 0.5)
    again = store.claim(driver)
    assert again is not None
    store.record_progress(again, [Progress(50, 300, 0.25, {"reward": 0.5})])
    store.end(again, Outcome(TrialState.COMPLETED, 0.5, 1.0))
    mirror.send(store)
    run = mirror.run(0)
    assert (run.state, run.summary["state"]) == ("finished", "completed")
    assert [(row["progress/attempt"], row["reward"]) for row in run.history] == [(1, 0.25), (2, 0.5)]
    assert len(mirror.runs()) == 2


def test_one_process_sends_while_trials_come_and_go(mirror: Mirror, store: Store, driver: Driver) -> None:
    """The run of a trial stays open from its first point to its end."""
    sender, closed = mirror.sender(store), threading.Event()
    attempt = store.start(driver, 0, {"optimizer.lr": 0.001})
    store.record_progress(attempt, [Progress(100, 300, 0.5, {"reward": 0.25})])
    sender._send_changes()
    store.record_progress(attempt, [Progress(200, 300, 1.0, {"reward": 0.5})])
    sender._send_changes()
    store.end(attempt, Outcome(TrialState.PRUNED, 0.5, 1.0))
    closed.set()
    sender.run(closed)
    run = mirror.run(0)
    assert [row["reward"] for row in run.history] == [0.25, 0.5]
    assert (run.summary["state"], run.state) == ("pruned", "finished")
    started = [request for request in mirror.server.requests if request.kind == "RunResumeStatus"]
    assert len(started) == 2  # the sweep and the trial


def test_another_sweep_of_that_name_has_other_runs(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    mirror.send(store)
    record = store.sweep("arena")
    store.remove_sweep("arena")
    store.create_sweep("arena", CONFIG)
    mirror.send(store)
    assert len({run.name for run in mirror.runs()}) == 2
    assert records.run_id(record, 0) != records.run_id(store.sweep("arena"), 0)
    assert records.run_id(record, 0) == records.run_id(replace(record, config={}), 0)


def test_the_best_policy_is_an_artefact(
    mirror: Mirror, store: Store, run_trial: RunTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    store.update_sweep("arena", SEARCH)
    for number, score in enumerate((0.5, 0.25, 0.75)):
        policy = trial_folder(sweep_folder(store.sweep("arena")), number) / "a policy"
        policy.mkdir(parents=True)
        (policy / "weights.bin").write_bytes(b"weights")
        run_trial(number, score, artefacts={"policy": policy.as_uri()})
    best = read_state(store, "arena").best
    assert best is not None
    mirror.log_policy = True
    mirror.send(store)
    mirror.send(store)
    mine = [artefact for artefact in mirror.server.artifacts if artefact["projectName"] == mirror.name]
    assert [artefact["runName"] for artefact in mine] == [mirror.run(best.number).name], "and once only"
    assert {artefact["state"] for artefact in mine} == {"COMMITTED"}
    assert mirror.server.files[f"{mine[0]['id']}/weights.bin"] == b"weights"


def test_a_policy_that_the_sweep_did_not_write_is_not_sent(
    mirror: Mirror, store: Store, run_trial: RunTrial, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("secret")
    store.update_sweep("arena", SEARCH)
    run_trial(0, artefacts={"policy": tmp_path.as_uri()})
    mirror.log_policy = True
    said = mirror.send(store)
    assert "is not read, because it is not where the sweep writes" in str([each.get("reason") for each in said])
    assert said[-1]["event"] == "sent"
    assert b"secret" not in mirror.server.files.values()


def test_a_policy_that_is_gone_does_not_hold_up_its_trial(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    store.update_sweep("arena", SEARCH)
    run_trial(0, artefacts={"policy": "nowhere"})
    mirror.log_policy = True
    said = [event["event"] for event in mirror.send(store)]
    assert said[-1] == "sent"
    assert mirror.run(0).summary["state"] == "completed"


# ---- faults


class Times:
    """A fault of the first so many requests that fit."""

    def __init__(self, answer: int | str, times: int, *kinds: str) -> None:
        self._answer, self._times, self._kinds = answer, times, kinds

    def __call__(self, request: Request) -> int | str | None:
        if self._times <= 0 or (self._kinds and request.kind not in self._kinds):
            return None
        self._times -= 1
        return self._answer


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (429, "RunResumeStatus"),
        (429, "UpsertBucket"),
        (429, "file_stream"),
        (503, "UpsertBucket"),
        (502, "file_stream"),
        ("cut", "RunResumeStatus"),
        ("cut", "file_stream"),
        (500, "Run"),
    ],
)
def test_a_fault_that_passes_is_not_noticed(
    mirror: Mirror, store: Store, run_trial: RunTrial, answer: int | str, kind: str
) -> None:
    run_trial(0)
    mirror.server.retry_after = 0
    with mirror.server.faulty(Times(answer, 1, kind)):
        assert [event["event"] for event in mirror.send(store)] == ["began", "sent"]
    assert mirror.run(0).summary["score"] == 0.5


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (401, "RunResumeStatus"),
        (500, "UpsertBucket"),
        ("hang", "UpsertBucket"),
        (404, "file_stream"),
        (429, "file_stream"),
        ("hang", "file_stream"),
    ],
)
def test_a_fault_that_stays_loses_nothing(
    mirror: Mirror, store: Store, run_trial: RunTrial, answer: int | str, kind: str
) -> None:
    """The client calls a run finished also where the server refused it: what is noted as sent must be there."""
    run_trial(0)
    mirror.send(store)
    run_trial(1)
    patient, mirror.patience = mirror.patience, 1.0
    with mirror.server.faulty(Times(answer, 1000, kind)):
        reason = mirror.fail_to_send(store)
    assert len(reason.splitlines()) == 1
    assert store.mirrored("arena", mirror.name).keys() == {records.DEFINITION, "0"}
    wandb.teardown()  # as the worker ends, which runs this
    mirror.patience = patient
    assert [event.get("number") for event in mirror.send(store)] == [1]
    run = mirror.run(1)
    assert [row["reward"] for row in run.history] == [0.25, 0.5, 0.75]
    assert (run.state, run.summary["score"]) == ("finished", 0.5)


@pytest.mark.parametrize("served", [2, 4])
def test_a_server_that_dies_half_way_loses_nothing(
    mirror: Mirror, store: Store, run_trial: RunTrial, served: int
) -> None:
    run_trial(0)
    mirror.send(store)
    run_trial(1)
    mirror.patience = 1.0
    count = 0

    def die(request: Request) -> str | None:
        nonlocal count
        count += 1
        return "cut" if count > served else None

    with mirror.server.faulty(die):
        mirror.fail_to_send(store)
    mirror.server.stop()
    wandb.teardown()
    mirror.server.start()
    mirror.patience = PATIENCE
    mirror.send(store)
    run = mirror.run(1)
    assert [row["reward"] for row in run.history] == [0.25, 0.5, 0.75]
    assert run.summary["score"] == 0.5
    assert len(mirror.runs()) == 3


def test_a_trial_that_is_refused_does_not_hold_up_the_others(mirror: Mirror, store: Store, run_trial: RunTrial) -> None:
    """The service does not take a run again that was deleted."""
    mirror.send(store)
    for number in range(3):
        run_trial(number)
    refused = records.run_id(store.sweep("arena"), 1)

    def refuse(request: Request) -> int | None:
        name = request.body["variables"].get("name") if request.kind == "UpsertBucket" else None
        return 409 if name == refused else None

    with mirror.server.faulty(refuse):
        said = mirror.send(store)
    assert [event["event"] for event in said] == ["sent", "refused", "sent"]
    assert said[1]["what"] == "trial 1"
    assert store.mirrored("arena", mirror.name).keys() == {records.DEFINITION, "0", "2"}


def test_where_every_trial_is_refused_the_fault_is_not_theirs(
    mirror: Mirror, store: Store, run_trial: RunTrial
) -> None:
    mirror.send(store)
    for number in range(5):
        run_trial(number)
    with (
        mirror.server.faulty(lambda request: 403 if request.kind == "UpsertBucket" else None),
        pytest.raises(wandb.Error, match="403"),
    ):
        mirror.send(store)


# ---- offline


def test_offline_runs_are_files_that_can_be_synced(
    mirror: Mirror, store: Store, run_trial: RunTrial, driver: Driver
) -> None:
    run_trial(0)
    store.start(driver, 1, {"optimizer.lr": 0.1})
    mirror.offline = True
    mirror.send(store)
    assert mirror.server.requests == []
    folders = sorted((mirror.folder / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # the sweep and the trial that ended
    assert mirror.send(store) == []
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    subprocess.run(command, check=True, capture_output=True, cwd=mirror.folder)
    assert [row["reward"] for row in mirror.run(0).history] == [0.25, 0.5, 0.75]
    assert mirror.run(0).summary["score"] == 0.5
    assert mirror.run(records.DEFINITION).fields["groupName"] == "arena"
