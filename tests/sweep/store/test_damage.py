"""Whatever somebody wrote into the tables by hand, every reader works and says what it cannot read."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from metta.sweep import optimize
from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import encoding, open_store
from metta.sweep.store.protocol import (
    Driver,
    Outcome,
    Store,
    StoredDecision,
    StoreWithoutKeysError,
    SweepNotFoundError,
)
from metta.sweep.store.transfer import copy_sweep, export_sweep, import_trials, read_sweep
from metta.sweep.trial import Progress, Trial, TrialState

Edit = Callable[[str], None]


@pytest.fixture
def edit(store_url: str) -> Iterator[Edit]:
    """Run a statement as somebody would who edits the tables by hand."""
    engine = create_engine(store_url)

    def run(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement.replace(":", "\\:")))

    yield run
    engine.dispose()


@pytest.fixture
def driver(store: Store) -> Driver:
    store.create_sweep("arena", {"seed": 1}, {"path": "a.b"})
    return store.join("arena")


def ended(store: Store, driver: Driver) -> Trial:
    attempt = store.start(driver, len(store.trials("arena")), {"lr": 0.1}, {"source": "x"})
    store.record_progress(attempt, [Progress(1, 2, 3.0, {"m": 1.0})])
    return store.end(attempt, Outcome(TrialState.COMPLETED, 0.5, 2.0, 2.0, {"m": 0.5}, {"policy": "p"}))


@pytest.mark.parametrize(
    ("column", "value", "read", "damage"),
    [
        ("params", "[1]", {}, "params: [1] is not a JSON object"),
        ("params", "null", {}, "params: None is not a JSON object"),
        ("suggestion", "3", {}, "suggestion: 3 is not a JSON object"),
        ("metrics", '"x"', {}, "metrics: 'x' is not a JSON object"),
        ("metrics", '{"a": "x", "b": 2, "c": null, "d": true}', {"b": 2.0}, "metrics: a: 'x' is not a number; metrics"),
        ("metrics", '{"a": {"$float": "nan"}, "b": {"$float": "x"}}', {"a": math.nan}, "metrics: b: {'$float': 'x'}"),
        ("artefacts", '{"a": "x", "b": 2}', {"a": "x"}, "artefacts: b: 2 is not text"),
        ("state", "done", TrialState.FAILED, "state: 'done' is not one of queued, running, completed, failed, pruned"),
    ],
)  # fmt: skip
def test_a_row_is_read_as_far_as_it_can_be(
    store: Store, driver: Driver, edit: Edit, column: str, value: str, read: Any, damage: str
) -> None:
    sound = ended(store, driver)
    ended(store, driver)
    edit(f"UPDATE metta_trials SET {column} = '{value}' WHERE number = 0")
    trial, other = store.trials("arena")
    assert "; ".join(trial.damage).startswith(damage)
    assert repr(getattr(trial, column)) == repr(read)
    for name in ("params", "state", "score", "cost", "metrics", "artefacts", "suggestion", "ended_at"):
        assert name == column or getattr(trial, name) == getattr(sound, name)
    assert not other.damage


@pytest.mark.parametrize("config", ["null", "[]", "7"])
def test_a_damaged_sweep_does_not_hide_the_others(store: Store, driver: Driver, edit: Edit, config: str) -> None:
    store.create_sweep("other", {"seed": 2})
    edit(f"UPDATE metta_sweeps SET config = '{config}', entry_point = '3' WHERE name = 'arena'")
    damaged, other = store.sweeps()
    assert (damaged.config, damaged.entry_point) == ({}, {})
    assert "config: " in (damaged.damage or "")
    assert store.sweep("arena") == damaged
    assert (other.config, other.damage) == ({"seed": 2}, None)


def test_a_date_that_cannot_be_read_stops_nothing(store: Store, driver: Driver, edit: Edit) -> None:
    edit("UPDATE metta_sweeps SET created_at = -1e300")
    assert store.sweep("arena").created_at == datetime.fromtimestamp(0, UTC)
    assert store.sweep("arena").damage is None


def test_a_name_that_is_not_text_hides_no_other_sweep(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with closing(open_store(f"sqlite:///{path}")) as store:
        for name in ("arena", "other"):
            store.create_sweep(name, {})
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE metta_sweeps SET name = x'ff00' WHERE name = 'arena'")
            connection.commit()
        assert [record.name for record in store.sweeps()] == ["other"]
        with pytest.raises(SweepNotFoundError, match="no sweep is named 'arena'"):
            store.sweep("arena")


def test_an_unknown_state_has_failed_and_is_not_claimed(store: Store, driver: Driver, edit: Edit) -> None:
    store.enqueue("arena", {})
    edit("UPDATE metta_trials SET state = 'QUEUED'")
    assert store.claim(driver) is None
    assert [trial.number for trial in store.trials("arena", states=[TrialState.FAILED])] == [0]
    assert store.trials("arena", states=[TrialState.QUEUED]) == []
    assert store.retry("arena", 0).damage == ()


def test_a_queued_trial_whose_params_cannot_be_read_is_failed(store: Store, driver: Driver, edit: Edit) -> None:
    store.enqueue("arena", {"lr": 0.1})
    store.enqueue("arena", {"lr": 0.2})
    edit("UPDATE metta_trials SET params = '[1]' WHERE number = 0")
    attempt = store.claim(driver)
    assert attempt
    assert (attempt.number, attempt.params) == (1, {"lr": 0.2})
    failed = store.trials("arena")[0]
    assert (failed.state, failed.error) == (
        TrialState.FAILED,
        "its hyperparameters cannot be read: params: [1] is not a JSON object",
    )


def test_a_count_of_attempts_that_was_edited_stops_nothing(
    store: Store, driver: Driver, edit: Edit, tmp_path: Path
) -> None:
    store.lose(store.start(driver, 0, {}), "killed", 3.0)
    for count in (0, -5, 2**31 - 1):
        edit(f"UPDATE metta_trials SET attempts = {count}")
        with closing(open_store(f"sqlite:///{tmp_path}/{count}.sqlite")) as other:
            copy_sweep(store, other, "arena")
            assert other.seconds_lost("arena", 0) == (3.0 if count > 0 else 0.0)
    edit("UPDATE metta_trials SET attempts = 0")
    again = store.claim(driver)
    assert again
    assert again.attempt == 2


@pytest.mark.parametrize("number", [2**31 - 1, 2**63 - 1, -1, 0.5, "'one'"])
def test_a_trial_with_an_impossible_number_is_skipped(
    store: Store, driver: Driver, edit: Edit, number: Any, tmp_path: Path
) -> None:
    if store.url.startswith("postgresql") and number not in (2**31 - 1, -1):
        pytest.skip("the column refuses it")
    ended(store, driver)
    for _ in range(2):
        store.enqueue("arena", {})
    edit(f"UPDATE metta_trials SET number = {number} WHERE number = 1")
    assert [trial.number for trial in store.trials("arena")] == [0, 2]
    with closing(open_store(f"sqlite:///{tmp_path}/copy.sqlite")) as copy:
        copy_sweep(store, copy, "arena")
    attempt = store.claim(driver)
    assert attempt
    assert attempt.number == 2
    assert store.claim(driver) is None
    edit(f"UPDATE metta_trials SET state = 'running' WHERE number = {number}")
    assert store.release_lost("arena") == []
    assert store.start(driver, 3, {}).number == 3


def test_a_row_that_was_deleted_leaves_a_gap(store: Store, driver: Driver, edit: Edit, tmp_path: Path) -> None:
    for _ in range(4):
        ended(store, driver)
    edit("DELETE FROM metta_trials WHERE number IN (0, 2)")
    assert [trial.number for trial in store.trials("arena")] == [1, 3]
    assert store.enqueue("arena", {}) == 4
    with closing(open_store(f"sqlite:///{tmp_path}/copy.sqlite")) as copy:
        copy_sweep(store, copy, "arena")
        export_sweep(store, "arena", tmp_path / "arena.json")
        copy.import_sweep(*read_sweep(tmp_path / "arena.json", "read"))
        for name in ("arena", "read"):
            assert repr(copy.trials(name)) == repr(store.trials("arena"))
            assert copy.curve(name, 3) == store.curve("arena", 3)
            assert copy.enqueue(name, {}) == 5


def test_a_decision_that_was_edited_is_copied_as_it_reads(
    store: Store, driver: Driver, edit: Edit, tmp_path: Path
) -> None:
    ended(store, driver)
    store.record_decision("arena", StoredDecision(0, "stop", "3rd of 3"))
    edit("UPDATE metta_decisions SET details = '[1]', number = -7, at = -1")
    with closing(open_store(f"sqlite:///{tmp_path}/copy.sqlite")) as copy:
        copy_sweep(store, copy, "arena")
        assert copy.decisions("arena") == store.decisions("arena") == [StoredDecision(-7, "stop", "3rd of 3", {}, -1.0)]


def test_a_trial_that_is_deleted_while_it_runs_ends_as_stale(store: Store, driver: Driver, edit: Edit) -> None:
    attempt = store.start(driver, 0, {})
    edit("DELETE FROM metta_trials")
    assert store.release_lost("arena") == []
    assert store.progress("arena") == {}
    with pytest.raises(Exception, match="has ended"):
        store.end(attempt, Outcome(TrialState.COMPLETED, 1.0))


def test_what_sqlite_leaves_of_a_deleted_trial_stops_nothing(tmp_path: Path) -> None:
    """Its command line does not check foreign keys."""
    path = tmp_path / "store.sqlite"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.create_sweep("arena", {})
        driver = store.join("arena")
        ended(store, driver)
        running = store.start(driver, 1, {})
        store.record_progress(running, [Progress(1, 2, 3.0)])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM metta_trials WHERE number = 1")
            connection.execute("UPDATE metta_attempts SET driver_id = NULL")
            connection.commit()
        assert [history.trial.number for history in store.histories("arena")] == [0]
        assert store.release_lost("arena") == [1]
        assert store.start(driver, 2, {}).number == 2


def test_a_new_sweep_has_no_rows_of_one_that_was_deleted(tmp_path: Path) -> None:
    """SQLite's command line does not remove them, and uses the id again."""
    path = tmp_path / "store.sqlite"
    with closing(open_store(f"sqlite:///{path}")) as store:
        exported = tmp_path / "arena.json"
        store.create_sweep("arena", {})
        ended(store, store.join("arena"))
        store.record_decision("arena", StoredDecision(0, "stop", "3rd of 3"))
        export_sweep(store, "arena", exported)
        record, histories, _ = read_sweep(exported)
        ways: list[Callable[[], object]] = [
            lambda: store.create_sweep("arena", {}),
            lambda: store.import_sweep(record, []),
            lambda: store.bring_in(record, histories),
        ]
        for way in ways:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DELETE FROM metta_sweeps")
                connection.commit()
            way()
            assert len(store.trials("arena")) == (way is ways[-1])
            assert store.decisions("arena") == []
            assert len(store.drivers("arena")) == 0


def make_again(path: Path, table: str, twice: str) -> None:
    """Make a table again without its keys, with the rows that meet a condition twice."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"CREATE TABLE again AS SELECT * FROM {table}; INSERT INTO again SELECT * FROM again WHERE {twice}; "
            f"DROP TABLE {table}; ALTER TABLE again RENAME TO {table}"
        )


def test_a_driver_ends_when_a_table_loses_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"

    def train(config: dict[str, Any], trial: Any) -> float:
        make_again(path, "metta_attempts", "0")
        trial.report(1, {"score": 1.0})
        return 1.0

    search = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}
    with pytest.raises(StoreWithoutKeysError, match="its tables were made again without their keys"):
        optimize(train, search, "score", 2, store=f"sqlite:///{path}")


@pytest.mark.parametrize("table", ["metta_sweeps", "metta_trials"])
def test_tables_without_their_keys_are_named(tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store.sqlite"
    with closing(open_store(f"sqlite:///{path}")) as store:
        for name in ("arena", "whole"):
            store.create_sweep(name, {})
        store.enqueue("arena", {"x": 0.5})
        driver = store.join("whole")
        make_again(path, table, "name = 'arena'" if table == "metta_sweeps" else "1")
        with pytest.raises(StoreWithoutKeysError, match="its tables were made again without their keys"):
            store.trials("arena")
        with closing(open_store(f"sqlite:///{tmp_path}/copy.sqlite")) as copy, pytest.raises(StoreWithoutKeysError):
            copy_sweep(store, copy, "arena")
        with pytest.raises(StoreWithoutKeysError, match="its tables were made again without their keys"):
            store.start(driver, 0, {})
    assert metta_sweep(["list", "--store", f"sqlite:///{path}"]) == 0
    assert "whole" in capsys.readouterr().out


# ---- anything in any column

SOUND: dict[str, Any] = {
    "state": "completed",
    "params": '{"lr": 0.1, "big": 123456789012345678901234567890}',
    "suggestion": '{"source": "x"}',
    "attempts": 1,
    "score": 0.5,
    "cost": 2.0,
    "metrics": '{"m": 0.5, "n": {"$float": "nan"}}',
    "artefacts": '{"policy": "p"}',
    "error": "no",
    "created_at": 1.0,
    "started_at": 2.0,
    "ended_at": 3.0,
    "dropped": "why",
    "cost_metric": "tokens",
    "share": 0.5,
}
READ: dict[str, Any] = {
    name: datetime.fromtimestamp(SOUND[name], UTC) for name in ("created_at", "started_at", "ended_at")
}
READ["state"] = TrialState.COMPLETED
READ |= {name: encoding.loads(SOUND[name]) for name in ("params", "suggestion", "metrics", "artefacts")}
REQUIRED = ("state", "params", "suggestion", "attempts", "metrics", "artefacts")
STATES = [state.value for state in TrialState]

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
cut_json = st.tuples(any_json, st.integers(0, 20)).map(lambda cut: cut[0][: cut[1]])
in_utf8 = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
anything = (
    any_json | cut_json | in_utf8 | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary(max_size=5)
    | st.sampled_from([*STATES, "[" * 3000, "1" * 5000, "nan", "1e999", '{"$float": "x"}', 1e300, -1e300])
)  # fmt: skip
any_edits = st.dictionaries(st.sampled_from(list(SOUND)), anything, max_size=4)


@given(edits=st.lists(any_edits, min_size=1, max_size=3), other=st.dictionaries(st.sampled_from("abcdefghi"), anything))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_row_is_read(tmp_path: Path, edits: list[dict[str, Any]], other: dict[str, Any]) -> None:
    path = tmp_path / "store.sqlite"
    if not path.exists():
        begin(path)
    with closing(sqlite3.connect(path)) as connection:
        write(connection, edits, other)
    with closing(open_store(f"sqlite:///{path}")) as store:
        for trial, edited in zip(store.trials("arena"), edits, strict=True):
            check_read(trial, edited)
        read_everything(store, tmp_path)


def begin(path: Path) -> None:
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.create_sweep("arena", {"seed": 1})
        driver = store.join("arena")
        store.record_progress(store.start(driver, 0, {}), [Progress(1, 2, 3.0, {"m": 1.0})])


def write(connection: sqlite3.Connection, edits: list[dict[str, Any]], other: dict[str, Any]) -> None:
    """Put edited trials, and anything into columns of the other tables."""
    connection.execute("DELETE FROM metta_trials")
    names = ["sweep_id", "revision", "origin", "number", *SOUND]
    holes = ", ".join("?" * len(names))
    for number, edited in enumerate(edits):
        values = SOUND | {name: value for name, value in edited.items() if not_null(name, value)}
        row = [1, 1, "x", number, *values.values()]
        connection.execute(f"INSERT INTO metta_trials ({', '.join(names)}) VALUES ({holes})", row)
    places = ["curve_points.step", "curve_points.seconds", "curve_points.metrics", "attempts.seconds", "attempts.total"]
    places += ["sweeps.config", "sweeps.entry_point", "sweeps.created_at", "drivers.seen_at"]
    for place, value in zip(places, (other.get(letter) for letter in "abcdefghi"), strict=True):
        table, _, column = place.partition(".")
        if value is not None and not_null("state", value):
            connection.execute(f"UPDATE metta_{table} SET {column} = ?", [value])
    connection.commit()


def not_null(name: str, value: Any) -> bool:
    """SQLite takes NaN for NULL, which it refuses where a column needs a value."""
    return name not in REQUIRED or not (isinstance(value, float) and math.isnan(value))


def check_read(trial: Trial, edited: dict[str, Any]) -> None:
    for name, value in SOUND.items():
        if name not in edited:
            assert repr(getattr(trial, name)) == repr(READ.get(name, value))
            assert f"{name}: " not in "; ".join(trial.damage).replace("none of", "")
    if edited.get("state", "completed") not in STATES and not_null("state", edited["state"]):
        assert trial.state is TrialState.FAILED
        assert "state: " in "; ".join(trial.damage)


def read_everything(store: Store, tmp_path: Path) -> None:
    assert [record.name for record in store.sweeps()] == ["arena"]
    store.sweep("arena")
    for state in TrialState:
        assert {trial.state for trial in store.trials("arena", states=[state])} <= {state}
    numbers = [trial.number for trial in store.trials("arena", changed_since=0)]
    for number in numbers:
        store.curve("arena", number)
        store.seconds_lost("arena", number)
    for read in (store.revision, store.progress, store.drivers, store.histories, store.paused, store.mirrors):
        read("arena")
    for suffix in ("json", "csv", "parquet"):
        export_sweep(store, "arena", tmp_path / f"arena.{suffix}")
    with closing(open_store(f"sqlite:///{tmp_path}/copy.sqlite")) as copy:
        copy_sweep(store, copy, "arena")
        copy.import_sweep(*read_sweep(tmp_path / "arena.json", "read"))
        for suffix in ("csv", "parquet"):
            assert len(import_trials(copy, "read", tmp_path / f"arena.{suffix}")) == len(numbers)
        assert [trial.number for trial in copy.trials("arena")] == numbers
        for name in ("arena", "read"):
            copy.remove_sweep(name)
    driver = store.join("arena")
    store.release_lost("arena")
    while store.claim(driver):
        pass
    store.leave(driver)
