"""Two sweeps side by side, as tables and a chart."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.sweep.analysis.comparison import STEPS, Comparison, RegretRow
from metta.sweep.report.format import cost_text, total_text
from metta.sweep.report.terminal.chart import chart
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState

CHART_HEIGHT = 14


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the comparison."""
    a, b = comparison.a, comparison.b
    console.print(_facts_table(a, b))
    console.print(f"regret: how far the top {escape(a.metric)} was from the top of both, by what was spent")
    table = Table("spent", "A", "B", "ahead", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in comparison.rows:
        spent = total_text(row.spent, a.definition)
        table.add_row(spent, _number(row.a), _number(row.b), escape(_ahead(comparison, row)))
    console.print(table, highlight=False)
    for line in _chart(comparison, min(console.width, 80)):
        console.print(line, highlight=False, markup=False)
    console.print(f"A: {a.name}, B: {b.name}, #: both", highlight=False, markup=False)
    if comparison.differences:
        console.print("their definitions differ, so compare with care:", style="yellow")
        for change in comparison.differences[:STEPS]:
            console.print(f"  {change}", highlight=False, markup=False, style="yellow", soft_wrap=True)


def _facts_table(a: SweepState, b: SweepState) -> Table:
    table = Table("", escape(a.name), escape(b.name), box=box.SIMPLE_HEAD, pad_edge=False)
    for label, *facts in zip(("trials", "spent", "best", "top"), _facts(a), _facts(b), strict=True):
        table.add_row(label, *map(escape, facts))
    fronts = [[_point(sweep, trial) for trial in sweep.front] for sweep in (a, b)]
    for row in range(max(map(len, fronts))):
        cells = [escape(front[row]) if row < len(front) else "" for front in fronts]
        table.add_row("Pareto" if row == 0 else "", *cells)
    return table


def _facts(sweep: SweepState) -> tuple[str, str, str, str]:
    failures = sweep.counts[TrialState.FAILED]
    failed = f", {failures} failed" if failures else ""
    leading = (sweep.conclusions.best, sweep.conclusions.top)
    best, top = ("none yet" if trial is None else _point(sweep, trial) for trial in leading)
    ended = f"{sweep.counted} of {sweep.definition.num_trials}{failed}"
    return ended, total_text(sweep.spent, sweep.definition), best, top


def _point(sweep: SweepState, trial: Trial) -> str:
    return f"{trial.score:.4g} for {cost_text(trial, sweep.definition)} ({trial.number})"


def _number(regret: float | None) -> str:
    return "" if regret is None else f"{regret:.4g}"


def _ahead(comparison: Comparison, row: RegretRow) -> str:
    if row.a is None or row.b is None:
        return ""
    return "equal" if row.a == row.b else comparison.a.name if row.a < row.b else comparison.b.name


def _chart(comparison: Comparison, width: int) -> list[str]:
    """Regret over cost, with a point for each column."""
    series: dict[str, list[tuple[float, float]]] = {"A": [], "B": [], "#": []}
    for row in comparison.regrets([comparison.most_spent * column / width for column in range(1, width + 1)]):
        if row.a is not None and row.a == row.b:
            series["#"].append((row.spent, row.a))
            continue
        series["A"] += [(row.spent, row.a)] if row.a is not None else []
        series["B"] += [(row.spent, row.b)] if row.b is not None else []
    return chart(series, width, CHART_HEIGHT, f"{comparison.a.definition.cost_metric} spent")
