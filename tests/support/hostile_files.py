"""Files like those that `export` writes, changed as somebody might who makes mistakes or means harm."""

from __future__ import annotations

import copy
import csv
import importlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 10**9, 2**63, 10**400, 1e308, -1e308, float("nan"), float("inf"), "", "x" * 300,
    "../../x", "\x00\x1b[2J\u202e\ud800",
    "nan", "1e9", [], {}, [[]], [None], {"": None}, {"$float": "x"}, {"$float": "inf"}, "0001-01-01T00:00:00+23:00",
    "9999-12-31T23:59:59-23:00", "2026-01-01", 1e18, "completed", "running", {"a.b": 1, "a": 2},
]  # fmt: skip


def hostile_json(text: str, choose: random.Random) -> bytes:
    """The text of an export in JSON with one to three changes."""
    whole = json.loads(text)
    for _ in range(choose.randint(1, 3)):
        parts = [part for part in whole.values() if isinstance(part, dict | list)] if choose.random() < 0.9 else [whole]
        places = list(_places(choose.choice(parts or [whole])))
        if not places:
            continue
        holder, key = choose.choice(places)
        change = choose.choice(("set", "set", "set", "delete", "deep", "add", "repeat"))
        if change == "set":
            holder[key] = copy.deepcopy(choose.choice(VALUES))
        elif change == "delete":
            del holder[key]
        elif change == "deep":
            holder[key] = _nested(choose.choice((50, 300, 900)))
        elif change == "add" and isinstance(holder, dict):
            holder[choose.choice(["", "scor", "damage", "a.b", "\x1b[2J"])] = choose.choice(VALUES)
        elif change == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    written = json.dumps(whole)
    if choose.random() < 0.1:
        written = written.replace('"params":', '"params": {}, "params":', 1)
    return hostile_bytes(written.encode(), choose) if choose.random() < 0.2 else written.encode()


def hostile_csv(text: str, choose: random.Random) -> bytes:
    """A table in CSV with some cells changed."""
    lines = list(csv.reader(io.StringIO(text)))
    for _ in range(choose.randint(1, 3)):
        row = choose.choice(lines)
        change = choose.choice(("set", "set", "set", "delete", "add", "column"))
        place = choose.randrange(len(row)) if row else 0
        if change == "set" and row:
            value = choose.choice(VALUES)
            row[place] = value if isinstance(value, str) and "\ud800" not in value else json.dumps(value)
        elif change == "delete" and row:
            del row[place]
        elif change == "add":
            row.append("1")
        else:
            for each in lines:
                del each[place : place + 1]
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return hostile_bytes(out.getvalue().encode(), choose) if choose.random() < 0.2 else out.getvalue().encode()


def hostile_parquet(content: bytes, choose: random.Random) -> bytes:
    """A table in Parquet with a column of another type, or with some bytes changed."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")

    if choose.random() < 0.4:
        return hostile_bytes(content, choose)
    table = parquet.read_table(io.BytesIO(content))
    place = choose.randrange(table.num_columns)
    columns: list[Callable[[int], Any]] = [
        lambda n: arrow.array([b"\xff"] * n),
        lambda n: arrow.array([[1]] * n),
        lambda n: arrow.array([{"a": 1}] * n),
        lambda n: arrow.array([2**62] * n, arrow.timestamp("us")),
        lambda n: arrow.array([None] * n),
        lambda n: arrow.array([10**9] * n),
        lambda n: arrow.array(["\x1b[2J"] * n),
        lambda n: arrow.array([1] * n, arrow.duration("ns")),
        lambda n: arrow.array(["x"] * n).dictionary_encode(),
    ]
    table = table.set_column(place, table.column_names[place], choose.choice(columns)(table.num_rows))
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def hostile_bytes(content: bytes, choose: random.Random) -> bytes:
    """Cut, in another encoding, or with some bytes changed."""
    kind = choose.choice(("cut", "utf-16", "flip", "empty"))
    if kind == "cut":
        return content[: choose.randrange(len(content) + 1)]
    if kind == "utf-16":
        return content.decode("latin-1").encode("utf-16")
    if kind == "empty":
        return b""
    changed = bytearray(content)
    for _ in range(choose.randint(1, 20)):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed)


def hostile(path: Path, choose: random.Random) -> bytes:
    """The content of an export, changed in a way that its kind suggests."""
    if path.suffix == ".json":
        return hostile_json(path.read_text(), choose)
    if path.suffix == ".csv":
        return hostile_csv(path.read_text(), choose)
    return hostile_parquet(path.read_bytes(), choose)


def _places(value: Any) -> Any:
    """Every place in JSON data: what holds it, and its key or index."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(inner):
        yield value, key
        yield from _places(each)


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value
