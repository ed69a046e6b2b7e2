"""What a W&B run logged, out of the file that it leaves on disk, online or offline."""

from __future__ import annotations

from metta.sweep.program.metrics.row import Row, numbers
from metta.sweep.wandb.run_file import parse_records

STEP = "_step"
"""W&B's own step, which every row of the history has."""


def parse(data: bytes) -> list[Row]:
    """A row for each step of the history, and one for each change of the summary that the history did not make.

    W&B writes what a step changes in the summary just before the step itself. So a summary at the end of a growing file
    waits for what follows it: rows that were given do not change.
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
    """The numbers of a summary that are news, without W&B's own."""
    return {name: value for name, value in values.items() if not name.startswith("_") and known.get(name) != value}
