"""JSON files: one object, a list of objects, or an object on each line, or an object of lists (Keras)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from metta.common.text import decoded
from metta.sweep.program.metrics.json_text import parse_line, row_of
from metta.sweep.program.metrics.row import Row, number

_HISTORY = "log_history"  # of trainer_state.json, which Hugging Face's Trainer writes


def parse(data: bytes) -> list[Row]:
    """A row for each object; for an object with a list ``log_history``, a row for each object in the list."""
    text = decoded(data, "replace")
    try:
        value: Any = json.JSONDecoder(parse_int=float).decode(text.strip())
    except (ValueError, RecursionError):
        objects = [parse_line(line) for line in text.encode("utf-8", "replace").splitlines()]
        return [row for each in objects if each is not None and (row := row_of(each)).values]
    total = None
    if isinstance(value, Mapping) and isinstance(value.get(_HISTORY), list):
        total, value = number(value.get("max_steps")), value[_HISTORY]
    given: list[Any] = value if isinstance(value, list) else _rows_of_lists(value) or [value]
    rows = [row_of(each) for each in given if isinstance(each, Mapping)]
    return [Row(row.values, row.step, row.total if row.total is not None else total) for row in rows if row.values]


def _rows_of_lists(value: Any) -> list[dict[str, Any]]:
    """The rows of an object that has only lists, all as long; none of any other."""
    columns = list(value.values()) if isinstance(value, Mapping) else []
    if not columns or not all(isinstance(each, list) and len(each) == len(columns[0]) for each in columns):
        return []
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
