"""Move sweeps: whole between stores and as JSON, their trials as tables in CSV and Parquet.

What is read is a path or a URL: ``https://...``, or any that fsspec knows where that is installed.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit
from urllib.request import urlopen

from pydantic import TypeAdapter, ValidationError

from metta.common.errors import UserError
from metta.sweep.store import encoding
from metta.sweep.store.protocol import Outcome, Store, SweepRecord, TrialHistory
from metta.sweep.trial import Trial, TrialState

_FORMAT = "metta-sweep 1"
_ANSWER_SECONDS = 60.0
_PREFIXES = {"params": "params.", "metrics": "metrics.", "artefacts": "artefacts."}
_PLAIN_COLUMNS = ("number", "state", "score", "cost", "attempts", "error", "created_at", "started_at", "ended_at")


class TransferError(UserError):
    """A file that cannot be read or written as asked."""


def copy_sweep(source: Store, target: Store, name: str, new_name: str | None = None) -> None:
    """Copy a sweep with all that is kept of it. A trial that runs in `source` is queued in `target`.

    Under its own name it is the same sweep for its mirrors as well, and what they hold is not sent again.

    Raises:
        SweepNotFoundError: `source` has no such sweep.
        SweepExistsError: `target` has a sweep of that name.
    """
    record = source.sweep(name)
    target.import_sweep(_renamed(record, new_name), source.histories(name))
    if new_name in (None, name):
        for mirror in source.mirrors(name):
            target.set_mirrored(name, mirror, source.mirrored(name, mirror))


def export_sweep(store: Store, name: str, path: Path) -> int:
    """Write a sweep to a file and return the number of its trials. The suffix tells the format.

    ``.json`` holds the whole sweep, learning curves included, and `import_sweep` makes the sweep from it again.
    ``.csv`` and ``.parquet`` hold the table of `rows`, for other programs and for `import_trials`.

    Raises:
        TransferError: another suffix, a package that is missing, or a file that cannot be written.
    """
    writers = {".json": _write_json, ".csv": _write_csv, ".parquet": _write_parquet}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise TransferError(f"{path}: the file's name must end in {', '.join(writers)}")
    record, histories = store.sweep(name), store.histories(name)
    try:
        write(path, record, histories)
    except OSError as error:
        raise TransferError(f"{path}: cannot be written: {error.strerror}") from None
    return len(histories)


def read_sweep(place: str | Path, new_name: str | None = None) -> tuple[SweepRecord, list[TrialHistory]]:
    """Read a sweep from a ``.json`` file of `export_sweep`, for `Store.import_sweep`, under its own or a new name.

    Raises:
        TransferError: the file cannot be read, or is no such file.
    """
    try:
        whole = encoding.loads(_read_text(place))
        if whole["format"] != _FORMAT:
            raise TransferError(f"{place}: its format is {whole['format']!r}, not {_FORMAT!r}")
        record = _record_adapter.validate_python(whole["sweep"])
        return _renamed(record, new_name), _histories_adapter.validate_python(whole["trials"])
    except (json.JSONDecodeError, LookupError, TypeError, ValidationError):
        raise TransferError(f"{place}: not a sweep exported as JSON") from None


def import_trials(store: Store, sweep: str, place: str | Path) -> list[int]:
    """Add the trials of a ``.csv`` or ``.parquet`` table to a sweep under its next numbers; return these.

    Trials that have ended are added as such, others are enqueued. Needed are the columns `state` and ``params.*``;
    `score`, `cost`, `error`, ``metrics.*`` and ``artefacts.*`` may be there, and others are passed over.

    Raises:
        TransferError: the table cannot be read, with the row that is wrong. Then nothing has been added.
    """
    readers: dict[str, Callable[[str | Path], list[dict[str, Any]]]] = {".csv": _read_csv, ".parquet": _read_parquet}
    read = readers.get(suffix(place))
    if read is None:
        raise TransferError(f"{place}: the file's name must end in {', '.join(readers)}")
    table = read(place)
    parsed = []
    for line, cells in enumerate(table, start=1):
        try:
            parsed.append(_outcome(cells))
        except (ValueError, KeyError) as error:
            reason = f"no column {error}" if isinstance(error, KeyError) else str(error)
            raise TransferError(f"{place}: row {line}: {reason}") from None
    return [
        store.add(sweep, params, outcome) if outcome else store.enqueue(sweep, params) for params, outcome in parsed
    ]


def suffix(place: str | Path) -> str:
    """How the name of a file ends, be it a path or a URL, in lower case."""
    path = urlsplit(place).path if is_url(place) else str(place)
    return Path(path).suffix.lower()


def is_store(place: str) -> bool:
    """Whether a URL is that of a store, not of a file."""
    return is_url(place) and urlsplit(place).scheme.partition("+")[0] in ("sqlite", "postgresql")


def is_url(place: str | Path) -> TypeGuard[str]:
    return isinstance(place, str) and "://" in place


def rows(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Trials as rows of a table: number, state, score, ..., and a column for each ``params.NAME``, ``metrics.NAME`` and
    ``artefacts.NAME``. Every row has every column; what a trial lacks is None.
    """
    flat = [_row(trial) for trial in trials]
    columns = list(dict.fromkeys(chain(_PLAIN_COLUMNS, *flat)))
    order = {prefix: place for place, prefix in enumerate(_PREFIXES.values())}
    columns.sort(key=lambda column: order.get(column.partition(".")[0] + ".", -1))
    return [{column: row.get(column) for column in columns} for row in flat]


def _row(trial: Trial) -> dict[str, Any]:
    row = {name: getattr(trial, name) for name in _PLAIN_COLUMNS} | {"state": trial.state.value}
    for field, prefix in _PREFIXES.items():
        row |= {f"{prefix}{name}": value for name, value in getattr(trial, field).items()}
    return row


def _outcome(cells: Mapping[str, Any]) -> tuple[dict[str, Any], Outcome | None]:
    """A row's params, and how the trial ended if it has."""
    parts = {
        field: {name[len(prefix) :]: value for name, value in cells.items() if name.startswith(prefix)}
        for field, prefix in _PREFIXES.items()
    }
    present = {
        field: {name: value for name, value in part.items() if value is not None} for field, part in parts.items()
    }
    state = TrialState(cells["state"])
    if not state.ended:
        return present["params"], None
    outcome = Outcome(
        state=state,
        score=_optional_float(cells.get("score")),
        cost=_optional_float(cells.get("cost")),
        metrics={name: float(value) for name, value in present["metrics"].items()},
        artefacts={name: str(value) for name, value in present["artefacts"].items()},
        error=cells.get("error"),
    )
    return present["params"], outcome


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _renamed(record: SweepRecord, new_name: str | None) -> SweepRecord:
    return SweepRecord(new_name or record.name, record.config, record.entry_point, record.created_at)


# ---- JSON

_record_adapter = TypeAdapter(SweepRecord)
_histories_adapter = TypeAdapter(list[TrialHistory])


def _write_json(path: Path, record: SweepRecord, histories: list[TrialHistory]) -> None:
    whole = {
        "format": _FORMAT,
        "sweep": _record_adapter.dump_python(record),
        "trials": _histories_adapter.dump_python(histories),
    }
    path.write_text(encoding.dumps(_with_text_dates(whole)) + "\n")


def _with_text_dates(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_text_dates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_dates(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


# ---- CSV


def _write_csv(path: Path, record: SweepRecord, histories: list[TrialHistory]) -> None:
    table = rows(history.trial for history in histories)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table[0] if table else _PLAIN_COLUMNS)
        writer.writerows([_cell(value) for value in row.values()] for row in table)


def _read_csv(place: str | Path) -> list[dict[str, Any]]:
    table = list(csv.DictReader(io.StringIO(_read_text(place), newline=""), restkey=""))
    if any("" in row for row in table):
        raise TransferError(f"{place}: not a table: a row has more cells than there are columns")
    return [{name: _parse(cell) for name, cell in row.items()} for row in table]


def _cell(value: Any) -> str:
    """Text that `_parse` reads as the same value: JSON, or the bare text of a string that no JSON reader would take."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value and _parse(value) == value:
        return value
    return json.dumps(value)


def _parse(cell: str | None) -> Any:
    if not cell:
        return None
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


# ---- reading


def _read_text(place: str | Path) -> str:
    try:
        return _read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TransferError(f"{place}: not a text file") from None


def _read_bytes(place: str | Path) -> bytes:
    try:
        if not is_url(place):
            return Path(place).read_bytes()
        if urlsplit(place).scheme in ("http", "https", "file"):
            with urlopen(place, timeout=_ANSWER_SECONDS) as answer:
                return bytes(answer.read())
        fsspec = importlib.import_module("fsspec")
        with fsspec.open(place) as file:
            return bytes(file.read())
    except OSError as error:
        raise TransferError(f"{place}: cannot be read: {error.strerror or error}") from None
    except ImportError as error:
        raise TransferError(f"{place}: cannot be read without the package {error.name}; pip install it") from None
    except ValueError as error:
        raise TransferError(f"{place}: cannot be read: {error}") from None


# ---- Parquet


def _write_parquet(path: Path, record: SweepRecord, histories: list[TrialHistory]) -> None:
    arrow, parquet = _pyarrow()
    table = rows(history.trial for history in histories)
    names = table[0] if table else _PLAIN_COLUMNS
    columns = {name: _uniform([row[name] for row in table]) for name in names}
    parquet.write_table(arrow.table(columns), path)


def _read_parquet(place: str | Path) -> list[dict[str, Any]]:
    arrow, parquet = _pyarrow()
    try:
        table: list[dict[str, Any]] = parquet.read_table(io.BytesIO(_read_bytes(place))).to_pylist()
    except arrow.ArrowInvalid:
        raise TransferError(f"{place}: not a Parquet file") from None
    return [{name: _parse(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in table]


def _uniform(values: list[Any]) -> list[Any]:
    """A Parquet column has one type: numbers, truth values and moments stay, all else becomes the text of CSV."""
    kinds = {_kind(value) for value in values if value is not None}
    if kinds in ({"number"}, {"bool"}, {"moment"}):
        return values
    return [None if value is None else _cell(value) for value in values]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "moment" if isinstance(value, datetime) else "text"


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise TransferError("Parquet needs pyarrow; install metta-sweep[pandas]") from None
