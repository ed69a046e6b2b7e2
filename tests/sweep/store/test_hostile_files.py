"""Files from outside: whatever they hold, they are imported whole, or refused in one line and nothing is changed."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import exported, open_store, tables
from metta.sweep.store.protocol import CurvePoint, Outcome, SweepRecord, TrialHistory
from metta.sweep.store.transfer import TransferError, export_sweep, import_trials, read_sweep
from metta.sweep.trial import Trial, TrialState
from tests.support.hostile_files import hostile
from tests.support.made_sweep import LEARNING_RATE, make_sweep

KINDS = ("json", "csv", "parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, and its sweep in each kind of file."""
    folder = tmp_path_factory.mktemp("made")
    with closing(open_store(f"sqlite:///{folder}/store.db")) as store:
        make_sweep(store, "made", 4, curve_points=2)
        store.enqueue("made", {LEARNING_RATE: 1e-3})
        for kind in KINDS:
            export_sweep(store, "made", folder / f"made.{kind}")
    return folder


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_file_is_imported_or_refused_in_one_line(
    made: Path, tmp_path: Path, kind: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file, database = tmp_path / f"changed.{kind}", tmp_path / "store.db"
    file.write_bytes(hostile(made / f"made.{kind}", random.Random(seed)))
    url, name = f"sqlite:///{database}", "read" if kind == "json" else "made"
    if not database.exists():
        shutil.copy(made / "store.db", database)
    with closing(open_store(url)) as store:
        before = repr(store.histories("made"))
        capsys.readouterr()
        status = metta_sweep(["import", str(file), "--name", name, "--store", url])
        error = capsys.readouterr().err
        if status:
            assert (status, error.count("\n")) == (2, 1)
            assert repr(store.histories("made")) == before
            assert [record.name for record in store.sweeps()] == ["made"]
    for command in [["show", name], ["list"], ["export", name, "--to", str(tmp_path / "again.json")]]:
        assert status or metta_sweep([*command, "--store", url]) == 0
    with closing(open_store(url)) as store:
        if not status and name == "read":
            read_sweep(tmp_path / "again.json")
            store.remove_sweep(name)


def changed(made: Path, tmp_path: Path, change: Any) -> Path:
    whole = json.loads((made / "made.json").read_text())
    change(whole)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("trials.0.trial.attempts", 10**9, r"trial 0: attempts: 1000000000 is not in 0 to 10,000"),
        ("trials.0.curve.0.attempt", -1, r"attempts: -1 is not in 0 to"),
        ("trials.4.trial.number", 2**31, r"the largest number of a trial is"),
        ("trials.3.trial.number", 2, r"trial 2 after 2; the numbers must be 0 or more, and ascend"),
        ("trials.0.trial.scor", 1.0, r"trials.0.trial: 'scor' is unknown; did you mean 'score'"),
        ("trials.0.trial.ended_at", "9999-12-31T23:59:59-23:00", r"ended_at: .* is out of range"),
        ("trials", {}, r"trials: not a list"),
        ("sweep.name", "../../x", r"'../../x' is not a valid name for a sweep: only letters"),
        ("sweep.name", "a" * 101, r"101 characters"),
        ("sweep.name", 5, r"sweep.name: must be a valid string"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(made: Path, tmp_path: Path, where: str, value: Any, reason: str) -> None:
    def change(whole: Any) -> None:
        *path, last = where.split(".")
        for key in path:
            whole = whole[int(key) if key.isdecimal() else key]
        whole[last] = value

    with pytest.raises(TransferError, match=reason):
        read_sweep(changed(made, tmp_path, change))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 100_000, "it is nested too deeply"),
        ('{"format": 1, "format": 2}', "'format' appears twice in one object"),
        ('{"format": ' + "1" * 5000 + "}", "digits"),
        ('{"format": "metta-sweep 9"}', "its format is 'metta-sweep 9', not 'metta-sweep 1'"),
        ('{"format"', "it is not JSON: "),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(TransferError, match=f"x.json: not a sweep exported as JSON: .*{reason}"):
        read_sweep(path)


def test_deep_nesting_and_large_files_are_refused(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep: list[Any] = []
    for _ in range(exported.MOST_DEPTH + 1):
        deep = [deep]
    with pytest.raises(TransferError, match="trial 0: params: it is nested more than 200 levels deep"):
        read_sweep(changed(made, tmp_path, lambda whole: whole["trials"][0]["trial"]["params"].update(x=deep)))
    monkeypatch.setattr(exported, "MOST_TRIALS", 4)
    monkeypatch.setattr(tables, "MOST_ROWS", 4)
    for kind in KINDS:
        reason = "it has 5 trials; at most 4" if kind == "json" else "more than 4 rows"
        with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as store, pytest.raises(TransferError, match=reason):
            read_sweep(made / "made.json") if kind == "json" else import_trials(store, "made", made / f"made.{kind}")
    monkeypatch.setattr("metta.sweep.store.files.MOST_BYTES", 10)
    with pytest.raises(TransferError, match="the limit"):
        read_sweep(made / "made.json")


def test_a_definition_or_an_entry_point_that_cannot_be_read_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    for field, value, reason in (
        ("config", {"num_trials": 3}, "protein is missing"),
        ("entry_point", {"path": 5}, "path: must be a valid string"),
    ):
        path = changed(made, tmp_path, lambda whole, field=field, value=value: whole["sweep"].update({field: value}))
        assert metta_sweep(["import", str(path), "--store", url]) == 2
        assert re.search(f"definition cannot be read: .*{reason}", capsys.readouterr().err)
    assert not (tmp_path / "store.db").exists()


# ---- what export wrote is read back

some_moment = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
moments = st.none() | some_moment
numbers = st.none() | st.floats()
texts = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | names
nested = plain | st.lists(plain, max_size=2) | st.dictionaries(names, plain, max_size=2)
data = st.dictionaries(names, nested, max_size=3)
metrics = st.dictionaries(names, st.floats(), max_size=2)
ended_or_queued = [each for each in TrialState if each is not TrialState.RUNNING]
points = st.builds(
    CurvePoint, attempt=st.integers(1, 3), step=st.integers(0, 2**40), seconds=st.floats(), metrics=metrics
)
histories = st.builds(
    TrialHistory,
    trial=st.builds(
        Trial, number=st.just(0), state=st.sampled_from(ended_or_queued),
        params=data, suggestion=data, attempts=st.integers(1, 5), score=numbers, cost=numbers, metrics=metrics,
        artefacts=st.dictionaries(names, names, max_size=2), error=texts, created_at=moments, started_at=moments,
        ended_at=moments, dropped=texts, cost_metric=texts, stopped=texts, share=numbers, damage=st.just(()),
    ),
    curve=st.lists(points, max_size=2),
    seconds_lost=st.just(0.0),
)  # fmt: skip


@given(found=st.lists(histories, max_size=3), config=data, moment=some_moment)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_exported_sweep_is_read_back_whole(tmp_path: Path, found: Any, config: Any, moment: datetime) -> None:
    trials = [replace(each, trial=replace(each.trial, number=number)) for number, each in enumerate(found)]
    path = tmp_path / "t.json"
    with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as store:
        store.import_sweep(SweepRecord("from", config, {"path": "a.b"}, moment), trials)
        export_sweep(store, "from", path)
        store.import_sweep(*read_sweep(path, "to"))
        assert repr(replace(store.sweep("from"), name="to")) == repr(store.sweep("to"))
        assert repr(store.histories("from")) == repr(store.histories("to"))
        for name in ("from", "to"):
            store.remove_sweep(name)


@given(
    text=st.text(st.sampled_from("=+-@\t\r\n;1a \uff1d'\"")), number=st.floats(allow_nan=False, allow_infinity=False)
)
@example(text='=HYPERLINK("http://x")', number=-0.5)
@example(text="a;=1+1", number=-1e-05)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers(tmp_path: Path, text: str, number: float) -> None:
    path = tmp_path / "t.csv"
    outcome = Outcome(TrialState.FAILED, cost=number, error=text)
    with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as store:
        store.create_sweep("from", {})
        store.create_sweep("to", {})
        store.append("from", [({"text": text, "number": number}, outcome)])
        export_sweep(store, "from", path)
        with path.open(newline="", encoding="utf-8") as file:
            header, row = csv.reader(file)
        for cell in [*header, *row]:
            assert not cell.lstrip().startswith(("=", "+", "@", "\uff1d"))
            assert not cell.startswith(("\t", "\r"))
            assert not cell.lstrip().startswith("-") or float(cell) == number
            assert cell.startswith('"') or ";=" not in cell
        assert float(row[header.index("params.number")]) == number
        import_trials(store, "to", path)
        (read,), (written,) = store.trials("to"), store.trials("from")
        assert (read.params, read.error, read.cost) == (written.params, written.error, written.cost)
        for name in ("from", "to"):
            store.remove_sweep(name)
