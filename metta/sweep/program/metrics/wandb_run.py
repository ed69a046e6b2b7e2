"""The log of a W&B run, from the file that it writes to disk, online or offline."""

from __future__ import annotations

from metta.sweep.program.metrics.row import Row, numbers
from metta.sweep.wandb.run_file import parse_records

STEP = "_step"
"""W&B's own step, which is in every row of the history."""


def parse(data: bytes) -> list[Row]:
    """A row for each step of the history, and one for each change of the summary that is not due to the history.

    W&B writes a step's changes of the summary just before the step itself. So a summary at the end of a growing file
    is held back until the next record, because rows that were returned must not change.
    """
    rows: list[Row] = []
    known: dict[str, float] = {}
    summary: dict[str, float] = {}
    for kind, values in parse_records(data):
        if kind == "history":
            rows.append(Row.of({**summary, **numbers(values)}))
        elif summary:
            rows.append(Row(summary, rows[-1].step if rows else None))
        if kind == "history" or summary:
            known.update(rows[-1].values)
        summary = _changed(numbers(values), known) if kind == "summary" else {}
    return rows


def _changed(values: dict[str, float], known: dict[str, float]) -> dict[str, float]:
    """The numbers of a summary that changed, without W&B's own."""
    return {name: value for name, value in values.items() if not name.startswith("_") and known.get(name) != value}
