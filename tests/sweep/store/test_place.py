"""A store that is removed, moved or replaced while somebody works with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from metta.sweep.store import database, open_store
from metta.sweep.store.journal import Journal, bring_in_journals
from metta.sweep.store.protocol import (
    Outcome,
    Store,
    StoreMissingError,
    StoreReplacedError,
    SweepExistsError,
    SweepRecord,
    TrialHistory,
)
from metta.sweep.trial import Progress, TrialState
from tests.support.postgresql import PostgresServer

COMPLETED = Outcome(TrialState.COMPLETED, 0.5, 2.0, 2.0, {"score": 0.5})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.0)
    return tmp_path / "opened.sqlite"


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.create_sweep("arena", {"seed": 1})
        yield store


def test_a_write_to_a_file_that_was_moved_does_not_count(opened: Store, path: Path) -> None:
    attempt = opened.start(opened.join("arena"), 0, {"lr": 0.1})
    path.rename(path.with_name("elsewhere"))
    for use in (lambda: opened.end(attempt, COMPLETED), lambda: opened.trials("arena")):
        with pytest.raises(StoreMissingError, match="removed or moved"):
            use()
    assert not path.exists(), "it is not made again, empty"
    path.with_name("elsewhere").rename(path)
    assert opened.end(attempt, COMPLETED).state is TrialState.COMPLETED


def test_a_file_in_its_place_is_another_store_for_a_driver(opened: Store, path: Path) -> None:
    saved: list[TrialHistory] = []
    opened.guard("arena", lambda record, histories: saved.extend(histories))
    driver = opened.join("arena")
    first = opened.start(driver, 0, {"lr": 0.1})
    opened.record_progress(first, [Progress(1, 2, 0.5, {"score": 0.25})])
    opened.end(first, COMPLETED)
    with closing(open_store(f"sqlite:///{path}.copy")) as other:
        other.create_sweep("arena", {"seed": 1})
    Path(f"{path}.copy").replace(path)

    for _ in range(2):  # until it is opened again
        with pytest.raises((StoreReplacedError, StoreMissingError)):
            opened.trials("arena")
    assert [(history.trial.state, len(history.curve)) for history in saved] == [(TrialState.COMPLETED, 1)]
    opened.reopen()
    assert opened.trials("arena") == []


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_file_whose_log_is_taken_away_is_another_store(opened: Store, path: Path, suffix: str) -> None:
    saved: list[TrialHistory] = []
    opened.guard("arena", lambda record, histories: saved.extend(histories))
    record, attempt = opened.sweep("arena"), opened.start(opened.join("arena"), 0, {"lr": 0.1})
    Path(f"{path}{suffix}").unlink()
    with pytest.raises(StoreMissingError, match="the log beside the file"):
        opened.end(attempt, COMPLETED)
    with pytest.raises(StoreReplacedError):
        opened.trials("arena")
    assert len(saved) == 1
    opened.reopen()
    opened.bring_in(record, saved)
    assert [trial.state for trial in opened.trials("arena")] == [TrialState.RUNNING]


def test_no_file_is_made_beside_the_log_of_one_that_is_away(opened: Store, path: Path) -> None:
    opened.end(opened.start(opened.join("arena"), 0, {"lr": 0.1}), COMPLETED)
    aside = path.with_name("aside")
    path.rename(aside)
    command = f"from metta.sweep.store import open_store; open_store('sqlite:///{path}')"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert "a running driver waits for it" in other.stderr
    aside.rename(path)
    assert [trial.score for trial in opened.trials("arena")] == [0.5]


def test_the_log_of_a_file_that_is_gone_is_not_replayed_into_a_new_one(path: Path) -> None:
    command = (
        f"import os; from metta.sweep.store import open_store; store = open_store('sqlite:///{path}')\n"
        "store.create_sweep('old', {}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", command], check=True)
    assert Path(f"{path}-wal").stat().st_size
    path.unlink()
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert store.sweeps() == []
    assert len(list(path.parent.glob(f"{path.name}-wal.*"))) == 1, "it is kept, should the file come back"


def test_a_reader_follows_to_the_file_in_its_place(opened: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 30.0)
    shutil.copy(path, f"{path}.copy")
    with closing(open_store(f"sqlite:///{path}.copy")) as other:
        other.create_sweep("later", {})
    Path(f"{path}.copy").replace(path)
    assert "later" in [sweep.name for sweep in opened.sweeps()]


def test_a_server_with_another_database_of_the_same_name(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    name = url.rpartition("/")[2]
    with closing(open_store(url)) as store:
        store.create_sweep("arena", {})
        store.guard("arena", lambda record, histories: None)
        with postgres_server.connect("postgres") as connection:
            connection.autocommit = True
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
        with pytest.raises(StoreReplacedError):
            store.trials("arena")
        store.reopen()
        assert store.sweeps() == []


# ---- what is brought in


def copy_of(store: Store) -> tuple[SweepRecord, list[TrialHistory]]:
    return store.sweep("arena"), store.histories("arena")


def test_a_missing_sweep_is_made_with_its_trials(opened: Store, store: Store) -> None:
    opened.end(opened.start(opened.join("arena"), 0, {"lr": 0.1}), COMPLETED)
    assert store.bring_in(*copy_of(opened)) == [0]
    assert store.trials("arena") == opened.trials("arena")
    assert store.sweep("arena") == opened.sweep("arena")
    assert store.bring_in(*copy_of(opened)) == [], "once is enough"


def test_an_attempt_that_ended_elsewhere_ends_here(opened: Store, store: Store) -> None:
    driver = opened.join("arena")
    attempt = opened.start(driver, 0, {"lr": 0.1})
    record, histories = copy_of(opened)
    store.import_sweep(record, histories)
    here = store.claim(store.join("arena"))
    assert here is not None
    opened.lose(attempt, "killed")
    again = opened.claim(driver)
    assert again is not None
    opened.record_progress(again, [Progress(1, 2, 0.5, {"score": 0.25})])
    opened.end(again, COMPLETED)
    assert store.bring_in(*copy_of(opened)) == [0]
    assert store.trials("arena")[0].state is TrialState.COMPLETED
    assert [point.step for point in store.curve("arena", 0)] == [1]


def test_a_later_attempt_is_brought_into_an_older_copy(opened: Store, store: Store) -> None:
    """A copy that was made while attempt 1 ran must not have the trial run again that attempt 2 completed."""
    driver = opened.join("arena")
    attempt = opened.start(driver, 0, {"lr": 0.1})
    record, histories = copy_of(opened)
    store.import_sweep(record, histories)
    assert store.claim(store.join("arena"))
    opened.lose(attempt, "killed")
    for _ in range(2):
        again = opened.claim(driver)
        assert again is not None
        opened.record_progress(again, [Progress(1, 2, 0.5, {"score": 0.25})])
        last = again
        if again.attempt == 2:
            opened.lose(again, "killed")
    opened.end(last, COMPLETED)
    assert store.bring_in(*copy_of(opened)) == [0]
    assert store.trials("arena")[0].state is TrialState.COMPLETED
    assert store.trials("arena")[0].attempts == 3
    assert [point.attempt for point in store.curve("arena", 0)] == [3]
    assert store.release_lost("arena") == []


def test_what_went_on_here_stays(opened: Store, store: Store) -> None:
    opened.end(opened.start(opened.join("arena"), 0, {"lr": 0.1}), COMPLETED)
    store.import_sweep(opened.sweep("arena"), [])
    driver = store.join("arena")
    store.lose(store.start(driver, 0, {"lr": 0.2}), "killed")
    assert store.claim(driver)
    assert store.bring_in(*copy_of(opened)) == []
    assert [trial.state for trial in store.trials("arena")] == [TrialState.RUNNING]


def test_another_sweep_of_that_name_is_not_touched(opened: Store, store: Store) -> None:
    store.create_sweep("arena", {})
    opened.enqueue("arena", {"lr": 0.1})
    with pytest.raises(SweepExistsError):
        store.bring_in(*copy_of(opened))
    assert store.trials("arena") == []


def test_a_stop_that_was_asked_for_is_no_loss(store: Store) -> None:
    store.create_sweep("arena", {})
    driver = store.join("arena")
    attempt = store.start(driver, 0, {})
    for _ in range(5):
        assert store.hand_back(attempt, "SIGTERM", 1.0).state is TrialState.QUEUED
        claimed = store.claim(driver)
        assert claimed is not None
        attempt = claimed
    assert store.end(attempt, COMPLETED).attempts == 6
    assert store.seconds_lost("arena", 0) == 5.0


# ---- the journal


def test_a_journal_is_brought_in_once(opened: Store, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    driver = opened.join("arena")
    opened.end(opened.start(driver, 0, {"lr": float("nan")}), COMPLETED)
    opened.enqueue("arena", {"lr": 0.2})
    record, histories = copy_of(opened)
    store.import_sweep(record, [])
    journal = Journal(folder, store.url, record)
    journal.keep(histories)
    assert journal.path is not None
    with journal.path.open("a") as file:
        file.write('{"trial": {"cut')

    notices: list[str] = []
    bring_in_journals(store, "arena", tmp_path, notices.append)
    assert notices == [], "the process that wrote it lives"
    text = journal.path.read_text().replace('"started": "', '"started": "1')
    journal.path.write_text(text)
    bring_in_journals(store, "arena", tmp_path, notices.append)
    assert [trial.state for trial in store.trials("arena")] == [TrialState.COMPLETED, TrialState.QUEUED]
    assert repr(store.trials("arena")) == repr(opened.trials("arena"))
    assert len(notices) == 1
    assert not journal.path.exists()


def test_a_living_drivers_sweep_is_not_made_anew(opened: Store, store: Store, tmp_path: Path) -> None:
    opened.enqueue("arena", {"lr": 0.2})
    record, histories = copy_of(opened)
    journal = Journal(tmp_path, store.url, record)
    journal.keep(histories)
    bring_in_journals(store, "arena", tmp_path.parent, lambda message: None)
    assert store.sweep("arena").created_at == record.created_at
    assert journal.path is not None
    assert journal.path.exists(), "it is that driver's"
    opened.enqueue("arena", {"lr": 0.3})
    journal.keep(opened.histories("arena"))
    journal.release()
    bring_in_journals(store, "arena", tmp_path.parent, lambda message: None)
    assert len(store.trials("arena")) == 2
    assert not journal.path.exists(), "its driver ended, although its process lives"


def test_a_journal_of_another_store_stays(opened: Store, tmp_path: Path) -> None:
    record = opened.sweep("arena")
    journal = Journal(tmp_path, "sqlite:////another", record)
    opened.enqueue("arena", {"lr": 0.2})
    journal.keep(opened.histories("arena"))
    bring_in_journals(opened, "arena", tmp_path.parent, lambda message: None)
    assert journal.path is not None
    assert journal.path.exists()
    assert len(journal) == 1
    journal.drop(0)
    assert not journal.path.exists()
