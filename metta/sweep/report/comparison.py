"""Two sweeps side by side: their best trials, their Pareto fronts, and what each reached for what it had spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.common.errors import UserError
from metta.sweep.definition import differences
from metta.sweep.report.chart import chart
from metta.sweep.report.summary import strict
from metta.sweep.report.words import cost_text, total_text
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState

STEPS = 10
"""At how many amounts of money spent the two are compared."""

CHART_HEIGHT = 14


@dataclass(frozen=True)
class Comparison:
    """What two sweeps reached.

    Attributes:
        a, b: the sweeps.
        rows: amounts spent, from little to all, with the regret of each by then: how far its best score was from
            the best of both; None before its first score or after its end.
    """

    a: SweepState
    b: SweepState
    rows: list[tuple[float, float | None, float | None]]


def top_by_spent(sweep: SweepState) -> list[tuple[float, float]]:
    """Whenever a better score was measured: what had been spent by then, and that score."""
    scored = {trial.number for trial in sweep.ranked}
    steps: list[tuple[float, float]] = []
    spent = 0.0
    for trial in sweep.ended:
        spent += sweep.charges.get(trial.number, 0.0)
        if trial.number in scored and trial.score is not None:
            better = not steps or sweep.sign * trial.score > sweep.sign * steps[-1][1]
            steps += [(spent, trial.score)] if better else []
    return steps


def compare(a: SweepState, b: SweepState) -> Comparison:
    """Compare two sweeps.

    Raises:
        UserError: their scores or costs do not mean the same.
    """
    for what, one, other in (
        ("metric", a.definition.protein.metric, b.definition.protein.metric),
        ("goal", a.definition.protein.goal, b.definition.protein.goal),
        ("cost metric", a.definition.cost_metric, b.definition.cost_metric),
    ):
        if one != other:
            raise UserError(f"{a.name} and {b.name} cannot be compared: the {what} is {one!r} and {other!r}")
    curves = top_by_spent(a), top_by_spent(b)
    scores = [score for curve in curves for _, score in curve]
    if not scores:
        raise UserError(f"neither {a.name} nor {b.name} has a trial with a score yet")
    best = max(scores, key=lambda score: a.sign * score)
    totals = a.spent, b.spent
    most = max(totals)
    spents = [most * step / STEPS for step in range(1, STEPS + 1)]
    rows = [
        (spent, _regret(curves[0], spent, totals[0], best), _regret(curves[1], spent, totals[1], best))
        for spent in spents
    ]
    return Comparison(a, b, rows)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The comparison as tables and a plot."""
    a, b = comparison.a, comparison.b
    table = Table("", escape(a.name), escape(b.name), box=box.SIMPLE_HEAD, pad_edge=False)
    for label, *facts in zip(("trials", "spent", "best", "top"), _facts(a), _facts(b), strict=True):
        table.add_row(label, *map(escape, facts))
    fronts = [[_point(sweep, trial) for trial in sweep.front] for sweep in (a, b)]
    for row in range(max(map(len, fronts))):
        cells = [escape(front[row]) if row < len(front) else "" for front in fronts]
        table.add_row("Pareto" if row == 0 else "", *cells)
    console.print(table)
    metric, definition = a.definition.protein.metric, a.definition
    console.print(f"regret: how far the top {escape(metric)} was from the top of both, by what was spent")
    table = Table("spent", "A", "B", "ahead", box=box.SIMPLE_HEAD, pad_edge=False)
    for spent, one, other in comparison.rows:
        table.add_row(
            total_text(spent, definition), _number(one), _number(other), escape(_ahead(comparison, one, other))
        )
    console.print(table, highlight=False)
    for line in _plot(comparison, min(console.width, 80)):
        console.print(line, highlight=False, markup=False)
    console.print(f"A: {a.name}, B: {b.name}, #: both", highlight=False, markup=False)
    changes = differences(a.definition, b.definition)
    if changes:
        console.print("they did not ask the same, so compare with care:", style="yellow")
        for change in changes[:STEPS]:
            console.print(f"  {change}", highlight=False, markup=False, style="yellow", soft_wrap=True)


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as strict JSON data."""

    def sweep(each: SweepState) -> dict[str, Any]:
        return {
            "sweep": each.name,
            "ended": each.counted,
            "failed": each.counts[TrialState.FAILED],
            "spent": strict(each.spent),
            "best": each.best.number if each.best else None,
            "best_score": each.best.score if each.best else None,
            "best_cost": each.best.cost if each.best else None,
            "top": each.top.number if each.top else None,
            "top_score": each.top.score if each.top else None,
            "top_cost": each.top.cost if each.top else None,
            "pareto": [{"number": t.number, "score": t.score, "cost": t.cost} for t in each.front],
        }

    return {
        "metric": comparison.a.definition.protein.metric,
        "goal": comparison.a.definition.protein.goal,
        "cost_metric": comparison.a.definition.cost_metric,
        "a": sweep(comparison.a),
        "b": sweep(comparison.b),
        "regret": [{"spent": spent, "a": one, "b": other} for spent, one, other in comparison.rows],
        "differences": differences(comparison.a.definition, comparison.b.definition),
    }


def _regret(curve: list[tuple[float, float]], spent: float, total: float, best: float) -> float | None:
    known = [score for at, score in curve if at <= spent * (1 + 1e-9)]
    return abs(best - known[-1]) if known and spent <= total * (1 + 1e-9) else None


def _facts(sweep: SweepState) -> tuple[str, str, str, str]:
    failures = sweep.counts[TrialState.FAILED]
    failed = f", {failures} failed" if failures else ""
    best, top = ("none yet" if trial is None else _point(sweep, trial) for trial in (sweep.best, sweep.top))
    ended = f"{sweep.counted} of {sweep.definition.num_trials}{failed}"
    return ended, total_text(sweep.spent, sweep.definition), best, top


def _point(sweep: SweepState, trial: Trial) -> str:
    return f"{trial.score:.4g} for {cost_text(trial, sweep.definition)} ({trial.number})"


def _number(regret: float | None) -> str:
    return "" if regret is None else f"{regret:.4g}"


def _ahead(comparison: Comparison, one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return ""
    return "equal" if one == other else comparison.a.name if one < other else comparison.b.name


def _plot(comparison: Comparison, width: int) -> list[str]:
    """Regret over money, both as steps, with a point for each column."""
    curves = top_by_spent(comparison.a), top_by_spent(comparison.b)
    totals = comparison.a.spent, comparison.b.spent
    scores = [score for curve in curves for _, score in curve]
    best = max(scores, key=lambda score: comparison.a.sign * score)
    spents = [max(totals) * column / width for column in range(1, width + 1)]
    series: dict[str, list[tuple[float, float]]] = {"A": [], "B": [], "#": []}
    lines = [[(spent, _regret(c, spent, t, best)) for spent in spents] for c, t in zip(curves, totals, strict=True)]
    for (spent, one), (_, other) in zip(*lines, strict=True):
        if one is not None and one == other:
            series["#"].append((spent, one))
            continue
        series["A"] += [(spent, one)] if one is not None else []
        series["B"] += [(spent, other)] if other is not None else []
    unit = "seconds" if comparison.a.definition.cost_metric == "seconds" else comparison.a.definition.cost_metric
    return chart(series, width, CHART_HEIGHT, f"{unit} spent")
