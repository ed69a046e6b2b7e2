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

from metta.common.data_dir import default_store_url
from metta.common.entry_point import EntryPoint, installed_command
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.report.words import cost_text
from metta.sweep.retention import artefact_path, kept_trials
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


def print_trials(
    console: Console, definition: SweepDefinition, trials: Sequence[Trial], shown: Sequence[Trial] | None = None
) -> None:
    """A row for each trial: number, score, cost, standing (or the state, unless completed) and hyperparameters.

    Hyperparameters that the console has no room for are left out, and it is said which.

    Args:
        console: where to.
        definition: of the sweep.
        trials: all of the sweep, for who is best among them.
        shown: those to show, in their order; all if left out.
    """
    shown = trials if shown is None else shown
    paths = short_names([path for trial in shown for path in trial.params])
    room = len(paths)
    table = _table(definition, trials, shown, paths)
    while room > 1 and console.measure(table, options=console.options.update(width=10_000)).minimum > console.width:
        room -= 1
        table = _table(definition, trials, shown, dict(list(paths.items())[:room]))
    console.print(table)
    left_out = list(paths.values())[room:]
    if left_out:
        console.print(f"no room for {', '.join(left_out)}", style="dim", highlight=False, markup=False)


def _table(
    definition: SweepDefinition, trials: Sequence[Trial], shown: Sequence[Trial], paths: Mapping[str, str]
) -> Table:
    goal = definition.protein.goal
    order = ranked(trials, goal)
    best = order[0].number if order else None
    front = pareto_front(trials, goal)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("trial", definition.protein.metric, "cost"):
        table.add_column(escape(heading), justify="right", vertical="bottom", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in paths.values():
        table.add_column(escape(name.replace("_", "\n")), justify="right", no_wrap=True)
    for trial in shown:
        standing = "best" if trial.number == best else "Pareto" if trial.number in front else ""
        state = "" if trial.state is TrialState.COMPLETED else str(trial.state)
        table.add_row(
            str(trial.number),
            "" if trial.score is None else f"{trial.score:.4g}",
            "" if trial.cost is None else cost_text(trial, definition),
            standing or state,
            *(escape(short_text(trial.params.get(path))) for path in paths),
            style="green" if standing else "red" if trial.state is TrialState.FAILED else None,
        )
    return table


def print_outcome(
    console: Console,
    name: str,
    definition: SweepDefinition,
    trials: Sequence[Trial],
    recommended: int | None,
    commands: dict[str, str],
) -> None:
    """The best trial, its hyperparameters, where its policy is, and the commands that go on from here.

    Args:
        recommended: number of the trial whose hyperparameters the optimiser's model trusts most, if it has one.
        commands: what to run next, by what it does.
    """
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trials yet"
    spent = math.fsum(trial.cost or 0.0 for trial in trials)
    unit = "s" if definition.cost_metric == "seconds" else definition.cost_metric
    console.print(
        f"\n[bold]{escape(name)}[/bold]: {told} of {definition.num_trials}; {spent:,.0f} {unit} spent", highlight=False
    )
    order = ranked(trials, definition.protein.goal)
    kept = kept_trials(trials, definition.keep_policies, definition.protein.goal)
    if order:
        _print_winner(console, "best trial", order[0], definition, kept)
        chosen = next((trial for trial in order if trial.number == recommended), None)
        if chosen is not None and chosen.number != order[0].number:
            title = "recommended by the model (the best score may be luck)"
            _print_winner(console, title, chosen, definition, kept)
    for what, command in commands.items():
        console.print(f"{what}:", highlight=False)
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True, style="bold")


def _print_winner(console: Console, title: str, trial: Trial, definition: SweepDefinition, kept: set[int]) -> None:
    metric = definition.protein.metric
    console.print(
        f"[green]{title}: {trial.number}[/green]  {escape(metric)} [bold]{trial.score:.4g}[/bold]  "
        f"{cost_text(trial, definition)}",
        highlight=False,
    )
    for path, value in trial.params.items():
        console.print(f"  {path}={value_text(value)}", highlight=False, markup=False)
    if "policy" in trial.artefacts:
        policy = trial.artefacts["policy"]
        file = artefact_path(policy)
        if trial.number not in kept or (definition.keep_policies != "all" and file is not None and not file.exists()):
            policy = f"not kept, for keep_policies={definition.keep_policies}"
        console.print(f"  policy: {policy}", highlight=False, markup=False, soft_wrap=True)


def sweep_as_json(
    name: str, definition: SweepDefinition, trials: Sequence[Trial], shown: Sequence[Trial] | None = None
) -> dict[str, Any]:
    """The sweep and trials of it as strict JSON data; NaN and infinities become strings.

    Args:
        name: of the sweep.
        definition: of the sweep.
        trials: all of the sweep.
        shown: those to tell, in their order; all if left out.
    """
    order = ranked(trials, definition.protein.goal)
    front = pareto_front(trials, definition.protein.goal)
    return {
        "sweep": name,
        "num_trials": definition.num_trials,
        "metric": definition.protein.metric,
        "goal": definition.protein.goal,
        "cost_metric": definition.cost_metric,
        "seed": definition.seed,
        "best": order[0].number if order else None,
        "trials": [
            trial_as_json(trial) | {"pareto": trial.number in front} for trial in (trials if shown is None else shown)
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


def next_commands(
    record: SweepRecord, store_url: str, definition: SweepDefinition, trials: Sequence[Trial], recommended: int | None
) -> dict[str, str]:
    """What to run next, by what it does: resume or extend the sweep, retrain its winner, look at it."""
    commands = {}
    entry_point = runner_entry_point(record)
    if entry_point is not None:
        entry_point = with_store(entry_point, store_url)
        if sum(trial.state.ended for trial in trials) < definition.num_trials:
            commands["go on with the sweep"] = entry_point.command()
        else:
            total = 2 * definition.num_trials
            commands[f"extend the sweep to {total} trials in all"] = with_num_trials(entry_point, total).command()
    elif record.entry_point is not None and sum(trial.state.ended for trial in trials) < definition.num_trials:
        commands["go on with the sweep"] = metta_sweep_command(store_url, "work", record.name)
    winner = recommended
    if winner is None:
        order = ranked(trials, definition.protein.goal)
        winner = order[0].number if order else None
    if winner is not None:
        retrain = retrain_command(record.name, store_url, definition, winner, seed=1)
        commands |= {f"retrain trial {winner} on another seed": retrain} if retrain else {}
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


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each dotted path that no other path shares."""
    unique = list(dict.fromkeys(paths))

    def shorten(path: str) -> str:
        keys = path.split(".")
        endings = (".".join(keys[-length:]) for length in range(1, len(keys) + 1))
        return next(
            ending
            for ending in endings
            if sum(other == ending or other.endswith(f".{ending}") for other in unique) == 1
        )

    return {path: shorten(path) for path in unique}


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
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


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
