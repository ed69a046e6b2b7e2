"""Whatever stands in a store, every reader of a sweep works, and a driver goes on with it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.sweep import SweepResult, optimize
from metta.sweep.cli import main
from metta.sweep.report.curves import with_curves
from metta.sweep.report.dashboard.live import LiveStore, overview
from metta.sweep.report.html.html_export import report_html
from metta.sweep.state import read_state
from metta.sweep.store import open_store
from metta.sweep.trial import TrialState
from metta.sweep.wandb import records

SPACE = {
    "lr": {"min": 1e-4, "max": 1.0, "distribution": "log_normal"},
    "kind": {"choices": ["adam", None, [1, 2]]},
    "layers": {"min": 1, "max": 8, "distribution": "int_uniform"},
}
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["adam", "sgd", "0.O1", 0.1, 3, -1])
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
PARAMS = st.fixed_dictionaries({}, optional={"lr": ANYTHING, "kind": ANYTHING, "layers": ANYTHING}) | ANYTHING
METRICS = (
    st.fixed_dictionaries({}, optional={"score": ANYTHING, "tokens": ANYTHING, "score.stderr": ANYTHING}) | ANYTHING
)
SUGGESTED = ("source", "score", "score_std", "cost", "success", "pareto_point", "model", "trial")
SUGGESTION = (
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("source", "score", "score_std", "cost", "success", "pareto_point", "model", "trial"), ANYTHING
        ),
    )
    | ANYTHING
)


@st.composite
def json_text(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    """JSON as Python writes it, sometimes cut."""
    text = json.dumps(draw(values))
    return text if draw(st.integers(0, 4)) else text[: draw(st.integers(0, len(text)))]


ROWS = st.fixed_dictionaries(
    {
        "state": st.sampled_from([*TrialState, TrialState.COMPLETED, TrialState.COMPLETED]).map(str)
        | st.text(max_size=5),
        "params": json_text(PARAMS),
        "suggestion": json_text(SUGGESTION),
        "metrics": json_text(METRICS),
        "artefacts": json_text(ANYTHING),
        "score": st.none() | st.floats() | st.sampled_from(["nan", "high", 1e308, -1e308]),
        "cost": st.none() | st.floats() | st.sampled_from(["nan", "much", 1e308, 0.0]),
        "error": st.none() | st.text(max_size=8),
        "dropped": st.none() | st.none() | st.text(max_size=4),
        "ended_at": st.none() | st.floats() | st.sampled_from(["yesterday", 1e300, 1.7e9]),
    }
)


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    return {"score": -abs(math.log10(config["lr"]) + 2) + config["layers"], "tokens": 5.0}


def run(name: str, num_trials: int, **fields: Any) -> SweepResult:
    return optimize(
        train, SPACE, "score", num_trials, cost_metric="tokens", name=name, seed=1, write_report=False, **fields
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METTA_DATA_DIR", str(folder))
        with contextlib.redirect_stdout(io.StringIO()):
            run("whole", 3)
            run("edited", 6)
        (folder / "sweeps.db").rename(folder / "before.db")
        yield folder


def quiet(*words: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        status = main(list(words))
    return status, out.getvalue()


def edit(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The sweep with some of its rows edited by hand."""
    (folder / "sweeps.db").unlink(missing_ok=True)
    shutil.copy(folder / "before.db", folder / "sweeps.db")
    with contextlib.closing(sqlite3.connect(folder / "sweeps.db")) as database:
        sweep = "(SELECT id FROM metta_sweeps WHERE name = 'edited')"
        for number, row in enumerate(rows):
            values = ", ".join(f"{column} = ?" for column in row)
            where = f"WHERE sweep_id = {sweep} AND number = ?"
            database.execute(f"UPDATE metta_trials SET {values} {where}", [*map(_storable, row.values()), number])
        database.execute(f"UPDATE metta_sweeps SET revision = revision + 1 WHERE id = {sweep}")
        database.commit()


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@settings(max_examples=12)
@given(st.lists(ROWS, min_size=1, max_size=5))
def test_every_reader_and_the_driver_take_any_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    edit(folder, rows)
    assert quiet("show", "edited")[0] == 0
    strict = json.loads(quiet("show", "edited", "--json")[1], parse_constant=_refuse)
    assert quiet("best", "edited")[0] in (0, 2)
    for number in range(6):
        assert quiet("trial", "edited", str(number))[0] == 0
    status, listed = quiet("list")
    assert status == 0
    assert "whole" in listed
    for kind in ("json", "csv", "parquet"):
        assert quiet("export", "edited", "--to", str(folder / f"out.{kind}"))[0] == 0
    assert quiet("import", str(folder / "out.json"), "--name", "again")[0] == 0
    assert quiet("show", "again")[0] == 0

    with contextlib.closing(open_store(f"sqlite:///{folder}/sweeps.db")) as store:
        state = read_state(store, "edited")
        scores = [trial.score for trial in state.ranked]
        assert scores == sorted(scores, key=lambda score: -(score or 0.0))
        assert {str(number) for number in state.problems} == set(strict["problems"])
        assert "edited" in report_html(with_curves(store, state.analysed()))
        for trial in store.trials("edited"):
            records.decode_trial(records.encode_trial(trial))
            records.trial_summary(trial, "")
        live = LiveStore(store)
        live.sweep("edited").warm_up()
        json.dumps(overview(live.sweep("edited")), allow_nan=False)
        live.close()

    with contextlib.redirect_stdout(io.StringIO()) as out:
        result = run("edited", 8)
    assert sum(trial.counted for trial in result.trials) == 8
    for number in state.problems:
        assert str(number) in out.getvalue()


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_a_sweep_whose_trials_were_deleted_starts_with_the_next_number(folder: Path) -> None:
    edit(folder, [])
    with contextlib.closing(sqlite3.connect(folder / "sweeps.db")) as database:
        database.execute("DELETE FROM metta_trials")
        database.commit()
    with contextlib.redirect_stdout(io.StringIO()):
        assert [trial.number for trial in run("edited", 2).trials] == [6, 7]


@pytest.mark.parametrize(
    "uri",
    [
        "file://VICTIM",
        "file:///%00",
        "file://[::1/x",
        "file:///" + "a" * 5000,
        "https://user:sesame@host/\x1b[2Jx",
        "javascript:alert(1)",
        "<script>alert(1)</script>",
    ],
)
def test_a_hostile_uri_is_neither_read_nor_deleted_nor_run(folder: Path, tmp_path: Path, uri: str) -> None:
    victim = tmp_path / "victim.gif"
    victim.write_bytes(b"kept")
    uri = uri.replace("VICTIM", str(victim))
    edit(folder, [{"artefacts": json.dumps({"policy": uri, "episode": uri})}] * 6)
    for words in (["show", "edited"], ["trial", "edited", "1"]):
        status, said = quiet(*words)
        assert status == 0
        assert "sesame" not in said
        assert "\x1b[2J" not in said
    with contextlib.closing(open_store(f"sqlite:///{folder}/sweeps.db")) as store:
        page = report_html(with_curves(store, read_state(store, "edited")))
    assert "<script>alert" not in page
    assert "a2VwdA==" not in page  # the content of the victim
    with contextlib.redirect_stdout(io.StringIO()):
        assert len(run("edited", 7, keep_policies="best").trials) == 7
    assert victim.exists()


def test_very_long_and_very_many_values_are_shown_in_part(folder: Path) -> None:
    many = {"params": json.dumps({"lr": 0.1} | {f"p{number}": number for number in range(3000)})}
    edit(folder, [many, {"error": "x" * 2_000_000, "state": "failed"}, {"dropped": "y" * 2_000_000}])
    for words in (["show", "edited"], ["trial", "edited", "1"], ["trial", "edited", "2"]):
        status, said = quiet(*words)
        assert status == 0
        assert len(said) < 300_000


@pytest.mark.parametrize("entry_point", ["{", "3", '{"a": 1}'])
def test_an_entry_point_that_cannot_be_read_stops_only_what_needs_it(folder: Path, entry_point: str) -> None:
    edit_sweep(folder, "entry_point", entry_point)
    assert quiet("show", "edited")[0] == 0
    status, said = quiet("work", "edited")
    assert status == 2
    assert "'edited': its stored entry point cannot be read" in said
    with contextlib.redirect_stdout(io.StringIO()):
        assert len(run("edited", 7).trials) == 7


@pytest.mark.parametrize("revision", ["abc", -5, 2**63 - 1, 1e300, math.inf])
def test_a_revision_that_was_edited_hides_no_change(folder: Path, revision: Any) -> None:
    edit_sweep(folder, "revision", revision)
    with contextlib.closing(open_store(f"sqlite:///{folder}/sweeps.db")) as store:
        live = LiveStore(store)
        live.sweep("edited").warm_up()
        with contextlib.redirect_stdout(io.StringIO()):
            assert len(run("edited", 8).trials) == 8
        assert len(live.sweep("edited").snapshot().trials) == 8
        live.close()


def edit_sweep(folder: Path, column: str, value: Any) -> None:
    edit(folder, [])
    with contextlib.closing(sqlite3.connect(folder / "sweeps.db")) as database:
        database.execute(f"UPDATE metta_sweeps SET {column} = ? WHERE name = 'edited'", [value])
        database.commit()


@pytest.mark.parametrize("config", ["{", "[]", '{"protein": 3}', "null"])
def test_a_damaged_definition_hides_no_other_sweep(folder: Path, config: str) -> None:
    edit_sweep(folder, "config", config)
    with contextlib.closing(open_store(f"sqlite:///{folder}/sweeps.db")) as store:
        LiveStore(store).warm_up(None)  # the latest sweep is the damaged one
    status, listed = quiet("list")
    assert status == 0
    assert "whole" in listed
    assert "'edited': its stored definition cannot be read" in listed
    status, shown = quiet("show", "edited")
    assert status == 2
    assert "its stored definition cannot be read" in shown
    assert quiet("export", "edited", "--to", str(folder / "out.json"))[0] == 0
    with contextlib.redirect_stdout(io.StringIO()):
        assert len(run("edited", 7, on_change="extend").trials) == 7
    assert quiet("show", "edited")[0] == 0
