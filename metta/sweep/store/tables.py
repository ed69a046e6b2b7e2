"""Trials as tables in CSV and Parquet: a row per trial, a column per hyperparameter, metric and artefact.

A hyperparameter's cell holds JSON, or the bare text of a string that is not valid JSON. An empty cell means that the
trial has no such hyperparameter; a null value is written ``null``. The cells of `error` and of the other texts hold the
text itself, in JSON's quotes if it would otherwise read as something else or run as a formula in a spreadsheet.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.sweep.store import encoding
from metta.sweep.store.encoding import NotStorableError
from metta.sweep.store.files import MOST_BYTES, TransferError, read_bytes, read_text, refusal, suffix
from metta.sweep.store.protocol import Outcome
from metta.sweep.store.results import as_float
from metta.sweep.trial import Trial, TrialState

TableRow = tuple[dict[str, Any], Outcome | None]
"""The hyperparameters of a trial and its outcome. Without an outcome: None, or queued if the trial is dropped."""

_PREFIXES = {"params": "params.", "metrics": "metrics.", "artefacts": "artefacts."}
_COLUMNS = ("number", "state", "score", "cost", "attempts", "error", "created_at", "started_at", "ended_at")
_RARE_COLUMNS = ("dropped", "cost_metric", "stopped", "share")
_READ = frozenset(("state", "score", "cost", "share", "error", "dropped", "cost_metric", "stopped"))
"""The columns that are read, in addition to those with a prefix."""
_RUN_BY_SPREADSHEETS = re.compile(r"^[\t\r\n]|(^|[;\t])\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""Text that begins a formula (OWASP, CSV injection). Some spreadsheets treat ; and tabs as the border of a cell."""
MOST_ROWS = 1_000_000
MOST_COLUMNS = 10_000
_LONGEST_FIELD = 2**31 - 1
_EXACT_AS_FLOAT = 2**53
_LARGEST_INTEGER = 2**63 - 1


class _CellError(Exception):
    """The fault of a cell, and the values that are possible."""

    def __init__(self, column: str, value: Any, reason: str) -> None:
        super().__init__(f"column {column}: {reprlib.repr(value)} {reason}")


def rows(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Trials as rows of a table: number, state, score, ..., and a column for each ``params.NAME``, ``metrics.NAME`` and
    ``artefacts.NAME``. Every row has every column; a missing value is None.
    """
    filled = [_filled(trial) for trial in trials]
    columns = _columns(filled)
    return [{column: row.get(column) for column in columns} for row in filled]


def write_csv(path: Path, trials: Iterable[Trial]) -> None:
    filled = [_filled(trial) for trial in trials]
    columns = _columns(filled)
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in filled:
            writer.writerow([_written(row[column]) if column in row else "" for column in columns])


def write_parquet(path: Path, trials: Iterable[Trial]) -> None:
    arrow, parquet = _pyarrow()
    filled = [_filled(trial) for trial in trials]
    columns = {_encodable(column): _uniform(column, filled) for column in _columns(filled)}
    parquet.write_table(arrow.table(columns), path)


def read_table(place: str | Path) -> list[TableRow]:
    """Read the trials of a ``.csv`` or ``.parquet`` table, one for each row.

    The column `state` is required. The columns ``params.*``, `score`, `cost`, `cost_metric`, `error`, `dropped`,
    ``metrics.*`` and ``artefacts.*`` are optional, and others are ignored.

    Raises:
        TransferError: the file cannot be read, or is not such a table; the message names the row and the column.
    """
    readers: dict[str, Callable[[str | Path], Iterable[dict[str, Any]]]] = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    read = readers.get(suffix(place))
    if read is None:
        raise refusal(place, f"the file's name must end in {', '.join(readers)}")
    table = []
    for line, cells in enumerate(read(place), start=1):
        try:
            table.append(_parsed(cells))
        except _CellError as error:
            raise refusal(place, f"row {line}: {error}") from None
    return table


# ---- the columns of a trial


def _filled(trial: Trial) -> dict[str, Any]:
    """The cells of a trial that are not empty. A hyperparameter whose value is None is not empty."""
    row = {name: getattr(trial, name) for name in (*_COLUMNS, *_RARE_COLUMNS)} | {"state": trial.state.value}
    row = {name: value for name, value in row.items() if value is not None}
    for field, prefix in _PREFIXES.items():
        row |= {f"{prefix}{name}": _plain(value) for name, value in getattr(trial, field).items()}
    return row


def _columns(filled: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(chain(_COLUMNS, *filled)))
    order = {prefix: place for place, prefix in enumerate(_PREFIXES.values())}
    return sorted(columns, key=lambda column: order.get(column.partition(".")[0] + ".", -1))


def _plain(value: Any) -> Any:
    """Converts a tuple to a list, and a NumPy number to a Python number."""
    is_plain = value is None or type(value) in (str, int, float, bool)
    return value if is_plain else encoding.loads(encoding.dumps(value))


# ---- writing cells


def _written(value: Any) -> str:
    """Text that is read back as the same value."""
    if isinstance(value, datetime):
        return value.isoformat()
    is_bare = isinstance(value, str) and value and not _RUN_BY_SPREADSHEETS.search(value)
    if is_bare and _encodable(value) == value and _parse(value) == value:
        return str(value)
    return json.dumps(value)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _uniform(column: str, filled: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A Parquet column has one type: numbers, booleans and times are kept, other columns become the text of CSV."""
    if _has_one_type([row[column] for row in filled if column in row]):
        return [row.get(column) for row in filled]
    return [_written(row[column]) if column in row else None for row in filled]


def _has_one_type(values: Sequence[Any]) -> bool:
    kinds = set(map(type, values))
    if int in kinds:  # in a column with floats they are written as floats
        largest = _LARGEST_INTEGER if kinds == {int} else _EXACT_AS_FLOAT
        return kinds <= {int, float} and all(abs(value) <= largest for value in values if type(value) is int)
    return kinds in ({float}, {bool}, {datetime})


# ---- reading cells


def _parsed(cells: Mapping[str, Any]) -> TableRow:
    """A row's hyperparameters, and its outcome if the trial ended. Empty cells are None."""
    state, dropped = _state(cells), _text("dropped", cells.get("dropped"))
    params = {name: _value(column, cell) for name, column, cell in _under("params", cells)}
    if not state.ended:
        return params, None if dropped is None else Outcome(TrialState.QUEUED, dropped=dropped)
    outcome = Outcome(
        state=state,
        score=_optional_number("score", cells),
        cost=_optional_number("cost", cells),
        metrics={name: _number(column, cell) for name, column, cell in _under("metrics", cells)},
        artefacts={name: _text(column, cell) or "" for name, column, cell in _under("artefacts", cells)},
        error=_text("error", cells.get("error")),
        cost_metric=_text("cost_metric", cells.get("cost_metric")),
        dropped=dropped,
        stopped=_text("stopped", cells.get("stopped")),
        share=_optional_number("share", cells),
    )
    return params, outcome


def _under(field: str, cells: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Name, column and cell of a row's values under `field`."""
    prefix = _PREFIXES[field]
    for column, cell in cells.items():
        if column.startswith(prefix) and cell is not None:
            yield column[len(prefix) :], column, cell


def _state(cells: Mapping[str, Any]) -> TrialState:
    value = _text("state", cells["state"]) or ""
    try:
        return TrialState(value.strip())
    except ValueError:
        raise _CellError("state", value, f"is not one of {', '.join(TrialState)}") from None


def _optional_number(column: str, cells: Mapping[str, Any]) -> float | None:
    cell = cells.get(column)
    return None if cell is None else _number(column, cell)


def _number(column: str, cell: Any) -> float:
    reason = "is not a number; expected a number, nan, inf, -inf or an empty cell"
    if isinstance(cell, str):
        try:
            return float(cell)
        except ValueError:
            raise _CellError(column, cell, reason) from None
    if isinstance(cell, bool | list | dict | tuple | bytes | datetime) or not hasattr(cell, "__float__"):
        raise _CellError(column, cell, reason)
    return as_float(cell)


def _value(column: str, cell: Any) -> Any:
    if isinstance(cell, str):
        return _parse(cell)
    try:
        return _plain(cell)
    except NotStorableError:
        raise _CellError(
            column, cell, "is not JSON data: text, a number, true, false, null, a list or an object"
        ) from None


def _parse(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _text(column: str, cell: Any) -> str | None:
    """A text, which is in JSON's quotes if it would otherwise read as something else."""
    if cell is None:
        return None
    text = _parse(cell) if isinstance(cell, str) else cell
    if not isinstance(text, str):
        raise _CellError(column, text, 'is not text; put text that looks like a number in quotes, as in "404"')
    return text


# ---- CSV


def _read_csv(place: str | Path) -> Iterator[dict[str, Any]]:
    text = io.StringIO(read_text(place), newline="")
    with _fields_of_any_length():
        try:
            lines = (line for line in csv.reader(text, strict=True) if line)
            header, found = next(lines, []), list(islice(lines, MOST_ROWS + 1))
        except csv.Error as error:
            raise refusal(place, f"not a table: {error}") from None
    _check_columns(place, header)
    _check_rows(place, len(found))
    for number, line in enumerate(found, start=1):
        if len(line) != len(header):
            raise refusal(place, f"row {number}: it has {len(line)} cells, but the table has {len(header)} columns")
        yield {column: cell or None for column, cell in zip(header, line, strict=True)}


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_columns(place: str | Path, names: Sequence[str]) -> None:
    if "state" not in names:
        shown = ", ".join(map(repr, names[:12]))
        raise refusal(place, f"there is no column 'state'; the table has {shown or 'none'}")
    if len(names) > MOST_COLUMNS:
        raise refusal(place, f"it has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    (name, count), *_ = Counter(filter(None, names)).most_common(1)
    if count > 1:
        raise refusal(place, f"column {name}: it appears {count} times; keep one")


def _check_rows(place: str | Path, count: int) -> None:
    if count > MOST_ROWS:
        raise refusal(place, f"it has more than {MOST_ROWS:,} rows, the limit")


# ---- Parquet


def _read_parquet(place: str | Path) -> list[dict[str, Any]]:
    _, parquet = _pyarrow()
    content = io.BytesIO(read_bytes(place))
    try:
        file = parquet.ParquetFile(content)
        _check_size(place, file.metadata)
        _check_columns(place, file.schema_arrow.names)
        read = [name for name in file.schema_arrow.names if name in _READ or _is_prefixed(name)]
        cells: list[dict[str, Any]] = file.read(columns=read).to_pylist()
    except UserError:
        raise
    except (Exception, MemoryError):  # errors of Arrow, and of Python for a value that it cannot represent
        raise refusal(place, "not a Parquet file") from None
    return cells


def _check_size(place: str | Path, metadata: Any) -> None:
    """Refuse a small file that expands to very much data."""
    _check_rows(place, metadata.num_rows)
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if size > MOST_BYTES:
        raise refusal(place, f"it holds more than {MOST_BYTES / 2**30:g} GiB, the limit")


def _is_prefixed(column: str) -> bool:
    return column.startswith(tuple(_PREFIXES.values()))


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise TransferError(f"Parquet needs pyarrow: {install_command('pandas')}") from None
