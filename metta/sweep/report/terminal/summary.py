"""A sweep as a table of trials, and its outcome: what was found, where it is, and what to run next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.common.config import short_names
from metta.sweep.report.findings import best_reason
from metta.sweep.report.format import cost_text, ranking_text, score_text, short_text, state_text, value_text
from metta.sweep.retention import artefact_path
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState


def print_trials(console: Console, state: SweepState, shown: Sequence[Trial] | None = None) -> None:
    """Print a row for each trial: number, score, cost, ranking (or the state, unless completed) and hyperparameters.

    Hyperparameters that do not fit on the console are left out, and named below the table.

    Args:
        console: where to.
        state: the sweep.
        shown: the trials to show, in their order; all if left out.
    """
    shown = state.trials if shown is None else shown
    paths = short_names([path for trial in shown for path in trial.params])
    room = len(paths)
    table = _table(state, shown, paths)
    while room > 1 and console.measure(table, options=console.options.update(width=10_000)).minimum > console.width:
        room -= 1
        table = _table(state, shown, dict(list(paths.items())[:room]))
    console.print(table)
    left_out = list(paths.values())[room:]
    if left_out:
        console.print(f"no room for {', '.join(left_out)}", style="dim", highlight=False, markup=False)


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


def print_outcome(console: Console, state: SweepState, commands: dict[str, str]) -> None:
    """Print the best trial, why it is the best, where its policy is, and what to run next.

    Args:
        console: where to.
        state: the sweep.
        commands: what to run next, by what it does.
    """
    best, top = state.conclusions.best, state.conclusions.top
    counts = ", ".join(f"{count} {name}" for name, count in state.counts.items() if count) or "no trials yet"
    counts += f", {len(state.dropped)} dropped" if state.dropped else ""
    unit = "s" if state.definition.cost_metric == "seconds" else state.definition.cost_metric
    console.print(
        f"\n[bold]{escape(state.name)}[/bold]: {counts} of {state.definition.num_trials}; "
        f"{state.spent:,.0f} {escape(unit)} spent",
        highlight=False,
    )
    for remark in state.remarks:
        console.print(remark, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if best is not None:
        _print_found(console, "best trial", best, state)
        console.print(f"  {best_reason(state)}", highlight=False, markup=False, soft_wrap=True)
        if top is not None and top.number != best.number:
            extreme = "highest" if state.sign > 0 else "lowest"
            _print_found(console, f"top trial ({extreme} measured score)", top, state)
    for what, command in commands.items():
        console.print(f"{what}:", highlight=False)
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True, style="bold")


def _print_found(console: Console, title: str, trial: Trial, state: SweepState) -> None:
    console.print(
        f"[green]{title}: {trial.number}[/green]  {escape(state.metric)} [bold]{trial.score:.4g}[/bold]  "
        f"{escape(cost_text(trial, state.definition))}",
        highlight=False,
    )
    for path, value in state.params_of(trial).items():
        console.print(f"  {path}={value_text(value)}", highlight=False, markup=False)
    artefacts = state.detailed(trial).artefacts
    if "policy" in artefacts:
        policy, keep = artefacts["policy"], state.definition.keep_policies
        file = artefact_path(policy)
        deleted = state.complete and trial.number not in state.policies_kept(keep)
        if deleted or (keep != "all" and file is not None and not file.exists()):
            policy = f"not kept, because keep_policies={keep}"
        console.print(f"  policy: {policy}", highlight=False, markup=False, soft_wrap=True)
