"""Sweeps move between stores and files without a loss, and read well in a frame."""

from __future__ import annotations

import importlib
import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metta.common.errors import UserError
from metta.sweep import load_sweep
from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import open_store
from metta.sweep.store.protocol import (
    Outcome,
    Store,
    StoredDecision,
    StoreError,
    SweepExistsError,
    SweepNotFoundError,
)
from metta.sweep.store.transfer import TransferError, copy_sweep, export_sweep, import_trials, read_sweep
from metta.sweep.trial import Progress, Trial, TrialState


@pytest.fixture
def sweep(store: Store) -> Store:
    """A trial in every state, with values that are hard to keep."""
    store.create_sweep("arena", {"num_trials": 6, "bound": math.inf}, {"path": "experiments.x", "args": {}})
    driver = store.join("arena")
    first = store.start(driver, 0, {"lr": 0.1, "optimizer": "adam", "layers": [1, 2]}, {"source": "centre"})
    store.record_progress(first, [Progress(10, 20, 1.5, {"reward": math.nan}), Progress(20, 20, 3.0, {})])
    artefacts = {"policy": "file:///p.safetensors"}
    store.end(first, Outcome(TrialState.COMPLETED, 0.5, 3.0, 3.0, {"hearts": 0.5, "loss": -math.inf}, artefacts))
    lost = store.start(driver, 1, {"lr": 1e-5, "optimizer": "1e5", "flag": True})
    store.lose(lost, "killed", 4.0)
    again = store.claim(driver)
    assert again
    error = 'Traceback:\r\n  "quoted", café\u2028\n\x85ValueError: 5'
    store.end(again, Outcome(TrialState.FAILED, math.nan, 5.0, error=error))
    store.end(store.start(driver, 2, {"lr": 0.3, "optimizer": ""}), Outcome(TrialState.PRUNED, cost=1.0))
    store.enqueue("arena", {"lr": 0.4, "big": 2**53 + 1})
    running = store.start(driver, 4, {"lr": 0.5, "optimizer": None})
    store.record_progress(running, [Progress(1, None, 7.0, {"reward": 1.0})])
    return store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'other.sqlite'}")
    yield store
    store.close()


def ended(store: Store, sweep: str = "arena") -> list[tuple[Any, ...]]:
    return [
        (trial.state, trial.params, repr((trial.score, trial.cost, trial.metrics)), trial.artefacts, trial.error)
        for trial in store.trials(sweep)
        if trial.state.ended
    ]


def test_a_copy_is_the_same_sweep_but_that_nothing_runs(sweep: Store, other: Store) -> None:
    copy_sweep(sweep, other, "arena")
    assert other.sweep("arena") == sweep.sweep("arena")
    mine, theirs = sweep.trials("arena"), other.trials("arena")
    assert repr(theirs[:4]) == repr(mine[:4])
    assert (mine[4].state, theirs[4].state, theirs[4].attempts) == (TrialState.RUNNING, TrialState.QUEUED, 1)
    assert [other.seconds_lost("arena", number) for number in range(5)] == [0.0, 4.0, 0.0, 0.0, 7.0]
    for number in range(5):
        assert repr(other.curve("arena", number)) == repr(sweep.curve("arena", number))
    with pytest.raises(SweepExistsError):
        copy_sweep(sweep, other, "arena")
    copy_sweep(other, sweep, "arena", "back")
    assert ended(sweep, "back") == ended(sweep)
    with pytest.raises(SweepNotFoundError):
        copy_sweep(sweep, other, "arean")


def test_a_copied_sweep_goes_on(sweep: Store, other: Store) -> None:
    copy_sweep(sweep, other, "arena")
    driver = other.join("arena")
    claimed = [other.claim(driver), other.claim(driver), other.claim(driver)]
    assert [(attempt.number, attempt.attempt) for attempt in claimed if attempt] == [(3, 1), (4, 2)]
    assert other.start(driver, 5, {}).number == 5


def test_a_copy_is_the_same_sweep_for_its_mirrors_unless_it_is_renamed(sweep: Store, other: Store) -> None:
    sweep.set_mirrored("arena", "here", {"0": "a", "sweep": "b"})
    sweep.set_mirrored("arena", "there", {"1": "c"})
    copy_sweep(sweep, other, "arena")
    assert {mirror: other.mirrored("arena", mirror) for mirror in other.mirrors("arena")} == {
        "here": {"0": "a", "sweep": "b"},
        "there": {"1": "c"},
    }
    copy_sweep(sweep, other, "arena", "second")
    assert other.mirrors("second") == []


def test_json_holds_the_whole_sweep(sweep: Store, other: Store, tmp_path: Path) -> None:
    path = tmp_path / "arena.json"
    assert export_sweep(sweep, "arena", path) == 5
    other.import_sweep(*read_sweep(path))
    assert other.sweep("arena") == sweep.sweep("arena")
    assert repr(other.histories("arena")) == repr(sweep.histories("arena"))
    other.import_sweep(*read_sweep(path, "second"))
    assert ended(other, "second") == ended(sweep)
    with pytest.raises(SweepExistsError):
        other.import_sweep(*read_sweep(path, "second"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_holds_every_trial(sweep: Store, other: Store, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"arena.{suffix}"
    assert export_sweep(sweep, "arena", path) == 5
    other.create_sweep("arena", {})
    other.enqueue("arena", {"lr": 9.0})
    assert import_trials(other, "arena", path) == [1, 2, 3, 4, 5]
    assert ended(other) == ended(sweep)
    queued = [(trial.number, trial.params) for trial in other.trials("arena", states=[TrialState.QUEUED])]
    assert queued == [(0, {"lr": 9.0}), (4, {"lr": 0.4, "big": 2**53 + 1}), (5, {"lr": 0.5, "optimizer": None})]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_an_empty_sweep(store: Store, other: Store, tmp_path: Path, suffix: str) -> None:
    store.create_sweep("arena", {})
    path = tmp_path / f"arena.{suffix}"
    assert export_sweep(store, "arena", path) == 0
    if suffix == "json":
        other.import_sweep(*read_sweep(path))
    else:
        other.create_sweep("arena", {})
        assert import_trials(other, "arena", path) == []
    assert other.trials("arena") == []


any_text = st.text() | st.sampled_from(["null", "1.5", "NaN", "", '"', "true", "[1]", "\ud800", "\x00"])
scalars = st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**70) | st.floats() | any_text
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(any_text, scalars, max_size=2)
outcomes = st.builds(
    Outcome,
    state=st.sampled_from([state for state in TrialState if state.ended]),
    score=st.none() | st.floats(),
    cost=st.none() | st.floats(),
    metrics=st.dictionaries(st.sampled_from("mn"), st.floats(), max_size=2),
    artefacts=st.dictionaries(st.sampled_from("pq"), any_text, max_size=2),
    error=st.none() | any_text,
    cost_metric=st.none() | any_text,
    dropped=st.none() | any_text,
)


@given(table=st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), values), st.none() | outcomes), max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_any_value_survives_a_table(
    other: Store, tmp_path: Path, suffix: str, table: list[tuple[dict[str, Any], Outcome | None]]
) -> None:
    for sweep in ("from", "to"):
        if sweep in [record.name for record in other.sweeps()]:
            other.remove_sweep(sweep)
        other.create_sweep(sweep, {})
    other.append("from", table)
    export_sweep(other, "from", tmp_path / f"t.{suffix}")
    if suffix == "json":
        other.remove_sweep("to")
        other.import_sweep(*read_sweep(tmp_path / "t.json", "to"))
    else:
        import_trials(other, "to", tmp_path / f"t.{suffix}")
    of_floats = suffix == "parquet"
    read, written = ([_comparable(trial, of_floats) for trial in other.trials(name)] for name in ("to", "from"))
    assert read == written


def _comparable(trial: Trial, of_floats: bool) -> str:
    """All but the times and the order of names.

    In a Parquet column that has a float, integers are floats: only such that a float holds exactly.
    """
    kept = replace(trial, created_at=None, ended_at=None)
    named: dict[str, dict[str, Any]] = {"params": kept.params, "metrics": kept.metrics, "artefacts": kept.artefacts}
    shown = {field: sorted((name, repr(value)) for name, value in named[field].items()) for field in named}
    if of_floats:
        shown["params"] = sorted((name, repr(_exact(value))) for name, value in kept.params.items())
    return repr((shown, replace(kept, params={}, metrics={}, artefacts={})))


def _exact(value: Any) -> Any:
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


decisions = st.builds(
    StoredDecision,
    number=st.integers(0, 4),
    kind=st.sampled_from(["stop", "go on", "repeat"]),
    reason=any_text,
    details=st.dictionaries(any_text, values, max_size=2),
    at=st.floats(0, 2e9),
)


@given(decided=st.lists(decisions, max_size=4))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decisions_are_the_same_after_a_copy_and_in_json(
    sweep: Store, other: Store, tmp_path: Path, decided: list[StoredDecision]
) -> None:
    for decision in decided:
        sweep.record_decision("arena", decision)
    copy_sweep(sweep, other, "arena", "copied")
    export_sweep(sweep, "arena", tmp_path / "arena.json")
    other.import_sweep(*read_sweep(tmp_path / "arena.json", "read"))
    stored = sweep.decisions("arena")
    assert len(stored) >= len(decided)
    for name in ("copied", "read"):
        assert repr(other.decisions(name)) == repr(stored)
        other.remove_sweep(name)


def test_json_of_a_version_without_decisions_is_read(sweep: Store, other: Store, tmp_path: Path) -> None:
    path = tmp_path / "arena.json"
    export_sweep(sweep, "arena", path)
    whole = json.loads(path.read_text())
    del whole["decisions"]
    path.write_text(json.dumps(whole))
    other.import_sweep(*read_sweep(path))
    assert other.decisions("arena") == []
    assert ended(other) == ended(sweep)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.xlsx", None, "must end in"),
        ("t.csv", None, "No such file"),
        ("t.parquet", None, "No such file"),
        ("t.csv", b"\xff\xfea", "not a text file"),
        ("t.parquet", b"number,state", "not a Parquet file"),
        (
            "t.csv",
            b"number,params.lr\n0,1\n",
            r"t\.csv: there is no column 'state'; the table has 'number', 'params.lr'",
        ),
        ("t.csv", b"state,params.lr\ncompleted,0.1\nrun,1\n", "row 2: column state: 'run' is not one of queued"),
        ("t.csv", b"state\n''\n", "row 1: column state: .* is not one of"),
        ("t.csv", b"state,score\ncompleted,high\n", "row 1: column score: 'high' is not a number; expected"),
        ("t.csv", b"state,cost\ncompleted,true\n", "row 1: column cost: 'true' is not a number"),
        (
            "t.csv",
            b"state,metrics.m\ncompleted,1\ncompleted,[1]\n",
            r"row 2: column metrics.m: '\[1\]' is not a number",
        ),
        ("t.csv", b"state\ncompleted,0.1,3\n", "row 1: it has 3 cells, but the table has 1 columns"),
        ("t.csv", b"state,score,cost\ncompleted,0.1\n", "row 1: it has 2 cells, but the table has 3 columns"),
        ("t.csv", b"state,params.a,params.a\nqueued,1,2\n", "column params.a: it appears 2 times"),
        ("t.csv", b"", "no column 'state'; the table has none"),
    ],
)
def test_a_wrong_table_is_refused_whole(
    other: Store, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    other.create_sweep("arena", {})
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TransferError, match=reason):
        import_trials(other, "arena", tmp_path / name)
    assert other.trials("arena") == []


def test_text_of_a_table_stays_text(other: Store, tmp_path: Path) -> None:
    other.create_sweep("arena", {})
    long = "x" * 200_000
    table = tmp_path / "t.csv"
    table.write_text(f'state,error,params.a,params.b\nfailed,"""404""","""null""",null\nfailed,{long},null,\n')
    assert import_trials(other, "arena", table) == [0, 1]
    assert [(trial.error, trial.params) for trial in other.trials("arena")] == [
        ("404", {"a": "null", "b": None}),
        (long, {"a": None}),
    ]
    table.write_text("state,error,params.a\nfailed,no,1\nfailed,404,1\n")
    with pytest.raises(TransferError, match="row 2: column error: 404 is not text"):
        import_trials(other, "arena", table)


def test_a_row_that_teaches_nothing_is_refused_with_its_table(other: Store, tmp_path: Path) -> None:
    other.create_sweep("arena", {})
    table = tmp_path / "t.csv"

    def check(params: Mapping[str, Any], outcome: Outcome | None) -> str | None:
        return None if "lr" in params else f"params.lr is missing ({outcome.score if outcome else 'queued'})"

    table.write_text("state,score,params.lr,dropped\ncompleted,1,0.1,\ncompleted,2,,by hand\nqueued,,,\n")
    with pytest.raises(TransferError, match=r"t\.csv: row 3: params\.lr is missing \(queued\)$"):
        import_trials(other, "arena", table, check)
    assert other.trials("arena") == []
    table.write_text("state,score,params.lr,dropped\ncompleted,1,0.1,\ncompleted,2,,by hand\n")
    assert import_trials(other, "arena", table, check) == [0, 1]
    assert [trial.dropped for trial in other.trials("arena")] == [None, "by hand"]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("state", "done", "0.trial.state: must be 'queued'"),
        ("number", -1, "trial -1 at the start; the numbers must be 0 or more"),
        ("params", [1], "0.trial.params: must be a valid dictionary"),
    ],
)
def test_a_wrong_structure_is_refused_with_its_place(
    other: Store, tmp_path: Path, field: str, value: Any, reason: str
) -> None:
    other.create_sweep("arena", {})
    other.add("arena", {"lr": math.nan}, Outcome(TrialState.COMPLETED, -math.inf, -1.0))
    path = tmp_path / "arena.json"
    export_sweep(other, "arena", path)
    whole = json.loads(path.read_text())
    assert "damage" not in whole["sweep"] | whole["trials"][0]["trial"]
    whole["trials"][0]["trial"][field] = value
    path.write_text(json.dumps(whole))
    with pytest.raises(TransferError, match=f"arena.json: .*{reason}"):
        read_sweep(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "metta-sweep 9"}', "nonsense"])
def test_json_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(TransferError, match=r"x\.json"):
        read_sweep(tmp_path / "x.json")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address under which `tmp_path` is served."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_files_are_read_from_a_url(sweep: Store, other: Store, tmp_path: Path, site: str) -> None:
    for suffix in ("json", "csv", "parquet"):
        export_sweep(sweep, "arena", tmp_path / f"arena.{suffix}")
    other.import_sweep(*read_sweep(f"{site}/arena.json?version=3"))
    assert import_trials(other, "arena", f"{site}/arena.csv") == [5, 6, 7, 8, 9]
    assert import_trials(other, "arena", (tmp_path / "arena.parquet").as_uri()) == [10, 11, 12, 13, 14]
    for place, reason in (
        (f"{site}/none.json", "HTTP Error 404"),
        (f"{site.rpartition(':')[0]}:9/a.json", "refused"),
        ("no-such-place://a.json", "Protocol not known: no-such-place"),
    ):
        with pytest.raises(TransferError, match=f"{place}: cannot be read: .*{reason}"):
            read_sweep(place)


def test_the_command_imports_files_and_stores(
    sweep: Store, tmp_path: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/fresh.sqlite"
    assert metta_sweep(["import", "arena.json", "--store", url]) == 2
    assert "error: arena.json: cannot be read: No such file" in capsys.readouterr().err
    assert metta_sweep(["import", "arena.csv", "--name", "arena", "--store", url]) == 2
    assert not (tmp_path / "fresh.sqlite").exists(), "nothing is made for what cannot be read"

    sweep.create_sweep("second", {})
    assert metta_sweep(["import", store_url, "--name", "arena", "--store", url]) == 0
    assert metta_sweep(["import", store_url, "--store", url]) == 2
    assert "a sweep named 'arena' exists already" in capsys.readouterr().err
    with closing(open_store(url)) as fresh:
        assert [record.name for record in fresh.sweeps()] == ["arena"]
        assert ended(fresh) == ended(sweep)


def test_a_file_that_cannot_be_written(sweep: Store, tmp_path: Path) -> None:
    for suffix in ("json", "csv", "parquet"):
        with pytest.raises(TransferError, match="No such file or directory"):
            export_sweep(sweep, "arena", tmp_path / "missing" / f"x.{suffix}")
    with pytest.raises(TransferError, match="must end in"):
        export_sweep(sweep, "arena", tmp_path / "x.txt")


# ---- the Python API


def test_a_loaded_sweep_has_trials_and_a_frame(sweep: Store, store_url: str) -> None:
    loaded = load_sweep(store_url, "arena")
    assert repr(loaded.trials()) == repr(sweep.trials("arena"))
    assert repr(loaded.curve(0)) == repr(sweep.curve("arena", 0))
    frame = loaded.to_frame()
    assert list(frame.index) == [0, 1, 2, 3, 4]
    assert list(frame["state"]) == ["completed", "failed", "pruned", "queued", "running"]
    assert list(frame["params.lr"]) == [0.1, 1e-5, 0.3, 0.4, 0.5]
    assert frame.loc[0, "metrics.loss"] == -math.inf
    assert frame.loc[0, "artefacts.policy"] == "file:///p.safetensors"
    assert str(frame["ended_at"].dtype).endswith("UTC]")
    loaded.store.close()


def test_the_frame_of_an_empty_sweep(store: Store, store_url: str) -> None:
    store.create_sweep("arena", {})
    loaded = load_sweep(store_url, "arena")
    assert len(loaded.to_frame()) == 0
    loaded.store.close()


def test_load_sweep_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        load_sweep(f"sqlite:///{tmp_path / 'x.sqlite'}", "arena")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(
    sweep: Store, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing = importlib.import_module

    def refuse(name: str, package: str | None = None) -> ModuleType:
        if name.partition(".")[0] in ("pandas", "pyarrow"):
            raise ImportError(name)
        return importing(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UserError, match=r"needs (pandas|pyarrow): "):
        load_sweep(store_url, "arena").to_frame()
    with pytest.raises(UserError, match=r"needs (pandas|pyarrow): "):
        export_sweep(sweep, "arena", tmp_path / "x.parquet")


def test_importing_metta_sweep_is_light() -> None:
    import subprocess
    import sys

    heavy = ["sqlalchemy", "pandas", "pyarrow", "numpy", "torch"]
    code = f"import sys, metta.sweep; sys.exit(str([name for name in {heavy} if name in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
