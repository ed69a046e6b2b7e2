"""Write every kind of bad value into every column of a store; then run each command and the sweep on it.

    uv run python -m benchmarks.faults.rows [--only metta_trials.share]

It prints every command that ends with a traceback or an escape sequence, and every sweep that does not go on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from metta.common.errors import UserError
from metta.sweep import SweepResult, optimize
from metta.sweep.cli import main as metta_sweep
from metta.sweep.report.dashboard.server import make_app
from metta.sweep.store import open_store
from metta.sweep.trial import Progress

SPACE = {
    "lr": {"min": 1e-4, "max": 1.0, "distribution": "log_normal"},
    "kind": {"choices": ["adam", "sgd"]},
    "layers": {"min": 1, "max": 8, "distribution": "int_uniform"},
}
_HOSTILE = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>'\";--"
VALUES: dict[str, Any] = {
    "null": None,
    "text": "abc",
    "empty": "",
    "long": "x" * 1_000_000,
    "bytes": b"\xff\x00\xfe",
    "cut JSON": '{"a": [1',
    "deep JSON": "[" * 20_000,
    "list": "[1, 2]",
    "NaN in JSON": '{"score": NaN, "tokens": Infinity, "lr": NaN}',
    "large in JSON": f'{{"score": 1{"0" * 5000}, "lr": 1{"0" * 400}}}',
    "hostile": _HOSTILE,
    "hostile JSON": json.dumps({_HOSTILE: _HOSTILE, "policy": _HOSTILE, "score": 1.0, "lr": _HOSTILE}),
    "another file": '{"policy": "file:///etc/passwd"}',
    "no URL": '{"policy": "file://[::1/x"}',
    "zero byte": '{"policy": "file:///%00", "lr": "\\u0000"}',
    "many names": json.dumps({f"p{number}": number for number in range(3000)}),
    "infinity": math.inf,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "negative": -5,
    "half": 0.5,
    "1e300": 1e300,
    "date": "2026-01-01",
}
_COMMANDS = [
    *(["list"], ["show", "edited"], ["show", "edited", "--json"], ["show", "edited", "--sort", "layers"]),
    *(["trial", "edited", str(number)] for number in range(12)),
    *(["best", "edited"], ["best", "edited", "--json"], ["compare", "edited", "whole"], ["watch", "edited", "--json"]),
    *(["export", "edited", "--to", f"out.{kind}"] for kind in ("json", "csv", "parquet")),
    *(["report", "edited", "--to", "out.html"], ["pause", "edited"], ["resume", "edited"]),
    *(["drop", "edited", "1"], ["drop", "edited", "1", "--undo"], ["retry", "edited", "--failed"]),
    ["enqueue", "edited", "lr=0.1", "kind=adam", "layers=3"],
]


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    score = config["layers"] - abs(math.log10(config["lr"]) + 2)
    for step in range(1, 6):
        if not trial.report(step, {"score": score * step / 5}, total=5):
            break
    return {"score": score, "tokens": 5.0}


def run(name: str, num_trials: int, **fields: Any) -> SweepResult:
    fields |= {"early_stopping": "protein", "keep_policies": "best", "write_report": False}
    return optimize(train, SPACE, "score", num_trials, cost_metric="tokens", name=name, seed=1, **fields)


def make(path: Path) -> None:
    """A store with a whole sweep, and one that has also running, queued and mirrored trials."""
    with contextlib.redirect_stdout(io.StringIO()):
        run("whole", 3)
        run("edited", 10)
    params = {"lr": 0.1, "kind": "adam", "layers": 2}
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.record_progress(store.start(store.join("edited"), 10, params), [Progress(1, 5, 1.0, {"score": 1.0})])
        store.enqueue("edited", params)
        store.set_mirrored("edited", "wandb:x", {"trial.0": "abc"})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE metta_drivers SET pid = 1999999999")  # they are dead


def columns(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'metta%'")
        names = [name for (name,) in tables if name != "metta_schema_version"]
        return [(name, row[1]) for name in names for row in connection.execute(f"PRAGMA table_info({name})")]


def edit(path: Path, table: str, column: str, value: Any) -> None:
    """Write a value into a column of each row of the edited sweep, as far as the column takes it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        by = "name = 'edited'" if table == "metta_sweeps" else "sweep_id = 2"
        where = "1" if table == "metta_curve_points" else by
        for (row,) in connection.execute(f"SELECT rowid FROM {table} WHERE {where}").fetchall():
            with contextlib.suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [value, row])
        connection.execute("UPDATE metta_sweeps SET revision = revision + 1 WHERE name = 'edited'")


def faults(store: str) -> Iterator[str]:
    """What goes wrong with a store."""
    for command in _COMMANDS:
        yield from _fault(" ".join(command[:3]), partial(metta_sweep, [*command, "--store", store]))
    copy = ["copy", "edited", "--from", store, "--to", f"{store}.copy"]
    yield from _fault("copy", lambda: metta_sweep(copy))
    yield from _fault("dashboard", lambda: _visit(store))
    try:
        yield from _fault("run", lambda: run("edited", 14), (UserError,))
    except UserError:  # its definition or its name cannot be read, and the message says what to do
        yield from _fault("run with on_change=extend", lambda: run("edited", 14, on_change="extend"))
    yield from _fault("rm", lambda: metta_sweep(["rm", "edited", "--yes", "--store", store]))


def _fault(what: str, do: Callable[[], object], expected: tuple[type[Exception], ...] = ()) -> Iterator[str]:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            do()
            error = ""
        except expected:
            raise
        except Exception as raised:
            frame = traceback.extract_tb(raised.__traceback__)[-1]
            error = f"{type(raised).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(raised)[:200]}"
    if error:
        yield f"{what}: {error}"
    if re.search(r"\x1b\[2J|\x1b\]", said.getvalue()):
        yield f"{what}: an escape sequence is printed"


def _visit(store: str) -> None:
    with TestClient(make_app(open_store(store), None), base_url="http://127.0.0.1") as client:
        for page in ("sweeps", "overview?name=whole", "overview?name=edited", "rows?name=edited&since=0"):
            text = client.get(f"/api/{page}").text
            if "<script>alert" in text:
                raise AssertionError(f"{page} contains a script")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="columns with this in their name, such as metta_trials.share")
    only, wrong = parser.parse_args().only, 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["METTA_DATA_DIR"] = folder
        path, before = Path(folder) / "sweeps.db", Path(folder) / "before.db"
        make(path)
        path.rename(before)
        for table, column in columns(before):
            for name, value in VALUES.items() if only in f"{table}.{column}" else ():
                shutil.copy(before, path)
                edit(path, table, column, value)
                for fault in faults(f"sqlite:///{path}"):
                    print(f"{table}.{column}, {name}: {fault}", flush=True)
                    wrong += 1
                for each in Path(folder).glob("sweeps.db*"):
                    each.unlink()
    print(f"{wrong} faults")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
