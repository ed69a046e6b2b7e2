"""The outcome of a sweep: the best trial, where its policy is, and what to run next."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from metta.sweep.ending import ending_text
from metta.sweep.report.findings import best_reason, saved_text
from metta.sweep.report.format import cost_text, score_text, value_text
from metta.sweep.retention import artefact_path
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial


def print_outcome(console: Console, state: SweepState, commands: dict[str, str]) -> None:
    """Print the best trial, why it is the best, where its policy is, and what to run next.

    Args:
        console: where to print.
        state: the sweep.
        commands: what to run next, by purpose.
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
    if saved := saved_text(state):
        console.print(saved, highlight=False, markup=False, soft_wrap=True)
    if best is not None:
        _print_found(console, "best trial", best, state)
        console.print(f"  {best_reason(state)}", highlight=False, markup=False, soft_wrap=True)
        if top is not None and top.number != best.number:
            extreme = "highest" if state.sign > 0 else "lowest"
            _print_found(console, f"top trial ({extreme} measured score)", top, state)
    for what, command in commands.items():
        console.print(f"{what}:", highlight=False)
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True, style="bold")
    if ending := ending_text(state):
        console.print(ending, highlight=False, markup=False, soft_wrap=True)


def _print_found(console: Console, title: str, trial: Trial, state: SweepState) -> None:
    console.print(
        f"[green]{title}: {trial.number}[/green]  {escape(state.metric)} [bold]{score_text(trial)}[/bold]  "
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
