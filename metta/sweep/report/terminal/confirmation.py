"""The results of fresh seeds as a table and sentences."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.sweep.analysis.confirmation import ConfirmationResult
from metta.sweep.report.confirmation import sentences


def print_confirmation(console: Console, metric: str, result: ConfirmationResult) -> None:
    """Print a row for each setting, and a sentence for each pair of them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("trial", f"mean {escape(metric)}", "95% sure of", "seeds", "failed", "in the sweep"):
        table.add_column(heading, justify="right")
    for setting in result.settings:
        table.add_row(
            str(setting.trial),
            _number(setting.mean),
            "" if setting.low is None else f"{_number(setting.low)} .. {_number(setting.high)}",
            str(len(setting.scores)),
            str(setting.failures or ""),
            _number(setting.swept_score),
        )
    console.print(table, highlight=False)
    for sentence in sentences(result):
        console.print(sentence, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
