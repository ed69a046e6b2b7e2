"""Move sweeps: whole sweeps between stores and as JSON, their trials as tables in CSV and Parquet.

Files are read from a path or a URL: ``https://...``, or any URL that fsspec supports if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from metta.sweep.store import encoding, exported
from metta.sweep.store.files import TransferError, is_store, is_url, refusal, suffix
from metta.sweep.store.protocol import Outcome, Store, StoredDecision, SweepRecord, TrialHistory
from metta.sweep.store.tables import TableRow, read_table, rows, write_csv, write_parquet
from metta.sweep.sweep_name import name_problem, normalised, shown_name

__all__ = [
    "Check",
    "ExportedSweep",
    "TableRow",
    "TransferError",
    "copy_sweep",
    "export_sweep",
    "import_trials",
    "is_store",
    "is_url",
    "read_sweep",
    "read_table",
    "rows",
    "suffix",
]

Check = Callable[[Mapping[str, Any], Outcome | None], str | None]
"""Returns why nothing can be learnt from these hyperparameters and this outcome (None: the trial is queued)."""

ExportedSweep = tuple[SweepRecord, list[TrialHistory], list[StoredDecision]]
"""A sweep, its trials and the decisions about them, as `Store.import_sweep` takes them."""


def copy_sweep(source: Store, target: Store, name: str, new_name: str | None = None) -> None:
    """Copy a sweep with everything stored about it. A trial that runs in `source` is queued in `target`.

    Under its own name its mirrors treat it as the same sweep, and items that they hold are not sent again.

    Raises:
        SweepNotFoundError: `source` has no such sweep.
        SweepExistsError: `target` has a sweep of that name.
        TransferError: the name is not valid.
    """
    record, decisions = source.sweep(name), source.decisions(name)  # before the curves that they were made from
    target.import_sweep(_renamed(record, new_name), source.histories(name), decisions)
    if new_name in (None, name):
        for mirror in source.mirrors(name):
            target.set_mirrored(name, mirror, source.mirrored(name, mirror))


def export_sweep(store: Store, name: str, path: Path) -> int:
    """Write a sweep to a file and return the number of its trials. The suffix selects the format.

    ``.json`` holds the whole sweep with curves and decisions, from which `import_sweep` can rebuild it.
    ``.csv`` and ``.parquet`` hold the table of `rows`, for other programs and for `import_trials`.

    Raises:
        TransferError: another suffix, a package that is missing, or a file that cannot be written.
    """
    tables = {".csv": write_csv, ".parquet": write_parquet}
    kind = path.suffix.lower()
    if kind != ".json" and kind not in tables:
        raise TransferError(f"{path}: the file's name must end in {', '.join(('.json', *tables))}")
    record, decisions, histories = store.sweep(name), store.decisions(name), store.histories(name)
    try:
        if kind == ".json":
            _write_json(path, record, histories, decisions)
        else:
            tables[kind](path, [history.trial for history in histories])
    except OSError as error:
        raise TransferError(f"{path}: cannot be written: {error.strerror}") from None
    return len(histories)


def read_sweep(place: str | Path, new_name: str | None = None) -> ExportedSweep:
    """Read a sweep from a ``.json`` file of `export_sweep`, for `Store.import_sweep`, under its own or a new name.

    Files of earlier versions, which have no decisions, are read as well.

    Raises:
        TransferError: the file cannot be read, or was not written by `export_sweep`.
    """
    whole = exported.load(place)
    record, histories = exported.record(place, whole.get("sweep")), exported.histories(place, whole.get("trials"))
    return _renamed(record, new_name), histories, exported.decisions(place, whole.get("decisions", []))


def import_trials(
    store: Store, sweep: str, place: str | Path, check: Check = lambda params, outcome: None
) -> list[int]:
    """Add the trials of a table, see `read_table`, to a sweep under its next numbers; return these numbers.

    Trials that have ended are added with their outcome, others are queued. A dropped trial stays dropped, and is not
    passed to `check`.

    Raises:
        TransferError: the table cannot be read, or `check` refuses a row. In that case nothing is added.
    """
    table = read_table(place)
    for line, (params, outcome) in enumerate(table, start=1):
        reason = check(params, outcome) if outcome is None or outcome.dropped is None else None
        if reason is not None:
            raise refusal(place, f"row {line}: {reason}")
    return store.append(sweep, table)


def _renamed(record: SweepRecord, new_name: str | None) -> SweepRecord:
    """The record under its new name, if one is given.

    Raises:
        TransferError: the name is not valid, so no sweep could be started with it.
    """
    name = normalised(record.name if new_name is None else new_name)
    if problem := name_problem(name):
        raise TransferError(f"{shown_name(name)} is not a valid name for a sweep: {problem}; choose another one")
    return replace(record, name=name)


# ---- JSON

_record_adapter = TypeAdapter(SweepRecord)
_histories_adapter = TypeAdapter(list[TrialHistory])
_decisions_adapter = TypeAdapter(list[StoredDecision])


def _write_json(
    path: Path, record: SweepRecord, histories: list[TrialHistory], decisions: list[StoredDecision]
) -> None:
    whole = {
        "format": exported.FORMAT,
        "sweep": _record_adapter.dump_python(record, exclude={"damage"}),
        "trials": _histories_adapter.dump_python(
            [exported.exportable(each) for each in histories],
            exclude={"__all__": {"trial": {"damage"}, "holder": True}},
        ),
        "decisions": _decisions_adapter.dump_python(decisions),
    }
    path.write_text(encoding.dumps(with_text_dates(whole)) + "\n")


def with_text_dates(value: Any) -> Any:
    """Nested data with each date as text, for JSON."""
    if isinstance(value, Mapping):
        return {key: with_text_dates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_text_dates(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
