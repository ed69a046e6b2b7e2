"""CSV files of loggers: a line of names and lines of numbers. Stable-Baselines3's monitor files are included."""

from __future__ import annotations

import csv
import io

from metta.common.text import decoded
from metta.sweep.program.metrics.row import Row, number

_MONITOR = ["r", "l", "t"]


def parse(data: bytes) -> list[Row]:
    """A row for each complete line below the names; empty cells and text are skipped.

    A line without numbers that begins as the names do has new names for the lines after it.

    The step is a column named as in `STEPS`, otherwise the number of the line. In a monitor file, whose columns are
    reward, length and time of each episode, it is the sum of the lengths.

    Args:
        data: the whole file. Its last line counts only if it ends with a newline.
    """
    text = decoded(data, "replace").replace("\0", "")
    text = text[: text.rfind("\n") + 1]
    lines = [line for line in io.StringIO(text, newline="") if not line.startswith("#")]
    if not lines:
        return []
    delimiter = max(",\t;", key=lines[0].count)
    try:
        names, *cells = csv.reader(lines, delimiter=delimiter)
    except (csv.Error, ValueError):
        return []
    first, names = names[:1], [name.strip() for name in names]
    rows: list[Row] = []
    length = 0.0
    for count, line in enumerate(cells, start=1):
        if line[:1] == first and not any(map(_is_number, line)):
            names = [name.strip() for name in line]
            continue
        values = {name: read for name, cell in zip(names, line, strict=False) if (read := _cell(cell)) is not None}
        row = Row.of(values)
        length += values.get("l", 0.0)
        step = length if names[:3] == _MONITOR else row.step if row.step is not None else float(count)
        if values:
            rows.append(Row(values, step, row.total))
    return rows


def _is_number(cell: str) -> bool:
    return _cell(cell) is not None


def _cell(text: str) -> float | None:
    """The number in a cell, including NaN and infinities, which loggers write as text."""
    if (read := number(text)) is not None:
        return read
    plain = text.strip().lower().lstrip("+-")
    return float(text) if plain in ("nan", "inf", "infinity") else None
