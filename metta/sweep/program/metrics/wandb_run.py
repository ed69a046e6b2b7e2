"""What a W&B run logged, out of the file that it leaves on disk, online or offline."""

from __future__ import annotations

from metta.sweep.program.metrics.row import Row, numbers
from metta.sweep.wandb.run_file import parse_history, parse_summary


def parse(data: bytes) -> list[Row]:
    """A row for each step of the history, and at its end one of what is different in the summary."""
    rows = [Row.of(numbers(values)) for values in parse_history(data)]
    last = {name: value for row in rows for name, value in row.values.items()}
    summary = {name: value for name, value in numbers(parse_summary(data)).items() if last.get(name) != value}
    if summary:
        rows.append(Row(summary, rows[-1].step if rows else None))
    return [row for row in rows if row.values]
