"""Trials as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.common.config import short_names
from metta.sweep.report.format import cost_text, ranking_text, score_text, short_text, state_text
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState

_NARROWEST = 2
"""The width of the narrowest column, with the space before it."""
_MOST_NAMED = 50


def print_trials(console: Console, state: SweepState, shown: Sequence[Trial] | None = None) -> None:
    """Print a row for each trial: number, score, cost, ranking (or the state, unless completed) and hyperparameters.

    Hyperparameters that do not fit on the console are left out, and named below the table.

    Args:
        console: where to print.
        state: the sweep.
        shown: the trials to show, in their order; by default all.
    """
    shown = state.trials if shown is None else shown
    paths = short_names([path for trial in shown for path in trial.params])
    room = min(len(paths), max(1, console.width // _NARROWEST))
    table = _table(state, shown, dict(list(paths.items())[:room]))
    while room > 1 and console.measure(table, options=console.options.update(width=10_000)).minimum > console.width:
        room -= 1
        table = _table(state, shown, dict(list(paths.items())[:room]))
    console.print(table)
    left_out = list(paths.values())[room:]
    if left_out:
        more = f" and {len(left_out) - _MOST_NAMED:,} more" if len(left_out) > _MOST_NAMED else ""
        named = f"no room for {', '.join(left_out[:_MOST_NAMED])}{more}"
        console.print(named, style="dim", highlight=False, markup=False)


def _table(state: SweepState, shown: Sequence[Trial], paths: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("trial", state.metric, "cost"):
        table.add_column(escape(heading), justify="right", vertical="bottom", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in paths.values():
        table.add_column(escape(name.replace("_", "\n")), justify="right", no_wrap=True)
    for trial in shown:
        ranking = ranking_text(state, trial)
        table.add_row(
            str(trial.number),
            "" if trial.score is None else score_text(trial),
            "" if trial.cost is None else cost_text(trial, state.definition),
            ranking or ("" if state_text(trial) == TrialState.COMPLETED else state_text(trial)),
            *(escape(short_text(trial.params[path])) if path in trial.params else "" for path in paths),
            style=_row_style(trial, ranking),
        )
    return table


def _row_style(trial: Trial, ranking: str) -> str | None:
    if trial.dropped is not None:
        return "dim"
    return "green" if ranking else "red" if trial.state is TrialState.FAILED else None
