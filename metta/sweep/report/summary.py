"""A sweep in words and tables: what was found, where it is, and what to run next."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.common.config import short_names
from metta.common.data_dir import default_store_url
from metta.common.entry_point import EntryPoint, installed_command
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.words import cost_text
from metta.sweep.retention import artefact_path
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import SweepRecord
from metta.sweep.trial import Trial, TrialState

SCALES: dict[str, list[str]] = {
    "uniform": [],
    "int_uniform": ["whole numbers"],
    "log_normal": ["log scale"],
    "int_log_normal": ["whole numbers", "log scale"],
    "uniform_pow2": ["powers of two"],
    "logit_normal": ["logit scale"],
}
"""What is said of a range's distribution."""

SEE_ALL = "see every trial"


def print_trials(console: Console, state: SweepState, shown: Sequence[Trial] | None = None) -> None:
    """A row for each trial: number, score, cost, standing (or the state, unless completed) and hyperparameters.

    Hyperparameters that the console has no room for are left out, and it is said which.

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
        standing = standing_text(state, trial)
        table.add_row(
            str(trial.number),
            "" if trial.score is None else f"{trial.score:.4g}",
            "" if trial.cost is None else cost_text(trial, state.definition),
            standing or ("" if state_text(trial) == TrialState.COMPLETED else state_text(trial)),
            *(escape(short_text(trial.params[path])) if path in trial.params else "" for path in paths),
            style=_row_style(trial, standing),
        )
    return table


def _row_style(trial: Trial, standing: str) -> str | None:
    if trial.dropped is not None:
        return "dim"
    return "green" if standing else "red" if trial.state is TrialState.FAILED else None


def state_text(trial: Trial) -> str:
    """The trial's state, or that it was dropped."""
    return str(trial.state) if trial.dropped is None else "dropped"


def standing_text(state: SweepState, trial: Trial) -> str:
    """What a trial is among the others: ``best``, ``top``, ``best, top`` or ``Pareto``; "" for none of these."""
    titles = {"best": state.best, "top": state.top}
    held = [title for title, holder in titles.items() if holder is not None and holder.number == trial.number]
    return ", ".join(held) or ("Pareto" if trial.number in state.on_front else "")


def print_outcome(console: Console, state: SweepState, commands: dict[str, str]) -> None:
    """The best trial, its hyperparameters, where its policy is, and the commands that go on from here.

    Args:
        console: where to.
        state: the sweep.
        commands: what to run next, by what it does.
    """
    told = ", ".join(f"{count} {name}" for name, count in state.counts.items() if count) or "no trials yet"
    told += f", {len(state.dropped)} dropped" if state.dropped else ""
    unit = "s" if state.definition.cost_metric == "seconds" else state.definition.cost_metric
    console.print(
        f"\n[bold]{escape(state.name)}[/bold]: {told} of {state.definition.num_trials}; "
        f"{state.spent:,.0f} {escape(unit)} spent",
        highlight=False,
    )
    for remark in state.remarks:
        console.print(remark, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if state.best is not None:
        _print_found(console, "best trial", state.best, state)
        console.print(f"  {best_reason(state)}", highlight=False, markup=False, soft_wrap=True)
        if state.top is not None and state.top.number != state.best.number:
            _print_found(
                console,
                "top trial (highest measured score)" if state.sign > 0 else "top trial (lowest measured score)",
                state.top,
                state,
            )
    for what, command in commands.items():
        console.print(f"{what}:", highlight=False)
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True, style="bold")


def best_reason(state: SweepState) -> str:
    """Why the best trial is the best one, in a sentence that is as sure as the evidence."""
    best, top, scored = state.best, state.top, len(state.ranked)
    if best is None or top is None:
        return "no trial has a score yet"
    if scored == 1:
        return "it is the only trial with a score"
    if state.verdict is not None and state.verdict.settings[0].trial == best.number:
        return f"it did best of {len(state.verdict.settings)} trials whose hyperparameters were run on fresh seeds"
    if best.number == top.number:
        doubt = "; a few trials say little, so confirm it" if scored < FEW else ""
        return f"it has the top measured score of {scored:,} trials, and the model agrees{doubt}"
    doubt = " (a guess, after so few trials: compare both on fresh seeds)" if scored < MANY else ""
    return f"the model expects it to score best when trained again; trial {top.number} may have been lucky{doubt}"


FEW, MANY = 5, 20
"""With fewer scored trials than the first number next to nothing is known, and than the second not much."""


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


def sweep_as_json(state: SweepState, shown: Sequence[Trial] | None = None) -> dict[str, Any]:
    """The sweep and trials of it as strict JSON data; NaN and infinities become strings.

    Args:
        state: the sweep.
        shown: the trials to show, in their order; all if left out.
    """
    return {
        "sweep": state.name,
        "num_trials": state.definition.num_trials,
        "metric": state.metric,
        "goal": state.goal,
        "cost_metric": state.definition.cost_metric,
        "seed": state.definition.seed,
        "spent": strict(state.spent),
        "best": state.best.number if state.best else None,
        "top": state.top.number if state.top else None,
        "problems": {str(number): reason for number, reason in state.problems.items()},
        "trials": [
            trial_as_json(trial) | {"pareto": trial.number in state.on_front}
            for trial in (state.trials if shown is None else shown)
        ],
    }


def trial_as_json(trial: Trial) -> dict[str, Any]:
    """A trial as strict JSON data; NaN and infinities become strings."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "params": strict_data(trial.params),
        "score": strict(trial.score),
        "cost": strict(trial.cost),
        "dropped": trial.dropped,
        "attempts": trial.attempts,
        "metrics": {metric: strict(value) for metric, value in trial.metrics.items()},
        "suggestion": strict_data(trial.suggestion),
        "policy_uri": trial.artefacts.get("policy"),
        "artefacts": trial.artefacts,
        "created_at": _time(trial.created_at),
        "started_at": _time(trial.started_at),
        "ended_at": _time(trial.ended_at),
        "error": trial.error,
    }


def next_commands(state: SweepState) -> dict[str, str]:
    """What to run next, by what it does: resume or extend the sweep, retrain its best trial, look at it."""
    record, store_url, num_trials = state.record, state.store_url, state.definition.num_trials
    commands = {}
    entry_point = runner_entry_point(record)
    if entry_point is not None:
        entry_point = with_store(entry_point, store_url)
        if not state.complete:
            commands["go on with the sweep"] = entry_point.command()
        else:
            total = 2 * num_trials
            commands[f"extend the sweep to {total} trials in all"] = with_num_trials(entry_point, total).command()
    elif record.entry_point is not None and not state.complete:
        commands["go on with the sweep"] = metta_sweep_command(store_url, "work", record.name)
    if state.best is not None:
        number = state.best.number
        retrain = retrain_command(record.name, store_url, state.definition, number, seed=1)
        commands |= {f"retrain trial {number} on another seed": retrain} if retrain else {}
    commands[SEE_ALL] = metta_sweep_command(store_url, "show", record.name)
    return commands


def runner_entry_point(record: SweepRecord) -> EntryPoint | None:
    """How `tools/run.py` starts the sweep again; None where it cannot, as for one of a function or a program."""
    if record.entry_point is None:
        return None
    entry_point = EntryPoint.model_validate(record.entry_point)
    return None if entry_point.path.startswith("metta.sweep.") else entry_point


def retrain_command(
    name: str, store_url: str, definition: SweepDefinition, number: int, seed: int | None = None
) -> str | None:
    """The command that trains once more with a trial's hyperparameters, with its own seed or another.

    None for a sweep of a function, which only its sweep can call.
    """
    if definition.tool_class.startswith("metta.sweep."):
        return None
    args = {"sweep_name": name, "trial": str(number)} | ({} if seed is None else {"seed": str(seed)})
    args |= {} if store_url == default_store_url() else {"store": store_url}
    return EntryPoint(path="metta.tools.sweep.retrain", args=args).command()


def metta_sweep_command(store_url: str, *words: str) -> str:
    """A command of metta-sweep on a store."""
    store = [] if store_url == default_store_url() else ["--store", store_url]
    return installed_command("metta-sweep", *words, *store)


def with_store(entry_point: EntryPoint, store_url: str) -> EntryPoint:
    """The entry point, which is kept without the store's URL, with it where it is not the default."""
    if store_url == default_store_url():
        return entry_point
    return entry_point.model_copy(update={"overrides": {**entry_point.overrides, "store": store_url}})


def with_num_trials(entry_point: EntryPoint, num_trials: int) -> EntryPoint:
    """The entry point of a sweep of so many trials in all."""
    if "num_trials" in entry_point.args:
        return entry_point.model_copy(update={"args": {**entry_point.args, "num_trials": str(num_trials)}})
    overrides = {**entry_point.overrides, "sweep.num_trials": str(num_trials)}
    return entry_point.model_copy(update={"overrides": overrides})


def range_text(parameter: Any) -> str:
    """Where a hyperparameter is searched: its range and scale, its choices, or its fixed value."""
    if not isinstance(parameter, ParameterConfig):
        return f"{value_text(parameter)} (fixed)"
    if parameter.choices is not None:
        return f"one of {value_text(parameter.choices)}"
    return ", ".join([f"{parameter.min:g} to {parameter.max:g}", *SCALES[parameter.distribution]])


def short_text(value: Any) -> str:
    """A hyperparameter for a table, to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else value_text(value)


def value_text(value: Any) -> str:
    """A hyperparameter in full, as the command line takes it: fewer digits would not repeat a run."""
    if type(value) is float and math.isfinite(value):
        return repr(value)  # as json.dumps, and much faster
    return value if isinstance(value, str) else json.dumps(value)


def strict(value: float | None) -> float | str | None:
    """A number as strict JSON has it: NaN and the infinities as text."""
    return value if value is None or math.isfinite(value) else str(value)


def strict_data(value: Any) -> Any:
    """JSON data of any shape with its numbers as `strict` has them."""
    if isinstance(value, Mapping):
        return {key: strict_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_data(item) for item in value]
    return strict(value) if isinstance(value, float) else value


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
