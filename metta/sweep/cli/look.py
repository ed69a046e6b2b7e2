"""Commands that look at sweeps."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from metta.common.errors import UserError
from metta.sweep.cli.command import Commands, opened, positive

if TYPE_CHECKING:
    from rich.console import Console

    from metta.sweep.definition import SweepDefinition
    from metta.sweep.store.protocol import Store, SweepRecord
    from metta.sweep.trial import Trial

TITLE = "look at sweeps"

STATES = ("queued", "running", "completed", "failed", "pruned")
MANY, BEST = 50, 20
"""Of more trials than `MANY`, `show` shows the `BEST`."""


def register(commands: Commands) -> None:
    shown = commands.add(show, "show", "name")
    shown.add_argument("--top", type=positive, metavar="N", help="only the first N: the best, or as --sort says")
    shown.add_argument("--state", action="append", default=[], choices=STATES, help="only these; may be repeated")
    shown.add_argument("--pareto", action="store_true", help="only the Pareto front of score and cost")
    shown.add_argument(
        "--sort", metavar="BY", help="score, number, cost, attempts, ended, a hyperparameter or a metric"
    )
    commands.add(watch, "watch", "name")
    commands.add(trial, "trial", "name").add_argument("number", type=int, help="the trial's number")
    found = commands.add(best, "best", "name")
    found.add_argument("--max-cost", type=float, metavar="X", help="of trials that cost no more")
    found.add_argument("--measured", action="store_true", help="the best score as measured, whatever the model says")
    shape = found.add_mutually_exclusive_group()
    shape.add_argument("--overrides", action="store_true", help="print only PATH=VALUE ..., for a command line")
    shape.add_argument("--yaml", action="store_true", help="print only YAML")
    commands.add(compare, "compare", "a", "b")
    commands.add(list_sweeps, "list")


def show(options: argparse.Namespace) -> None:
    """The trials of a sweep, the best one, and what to run next.

    Of more than 50 trials the 20 best are shown, unless you say which: --top 100, --state failed, --pareto.
    """
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.report.selection import select
    from metta.sweep.report.summary import print_trials, sweep_as_json
    from metta.sweep.trial import TrialState

    with opened(options) as store:
        record = store.sweep(options.name)
        definition = SweepDefinition.model_validate(record.config)
        trials = store.trials(options.name)
    asked = options.top or options.state or options.pareto or options.sort
    top = BEST if not asked and not options.json and len(trials) > MANY else options.top
    states = [TrialState(state) for state in options.state]
    goal = definition.protein.goal
    chosen = select(trials, goal, states=states, pareto=options.pareto, sort=options.sort, top=top)
    if options.json:
        print(json.dumps(sweep_as_json(options.name, definition, trials, chosen), indent=2, allow_nan=False))
        return
    console = _console()
    if asked and not chosen:
        console.print(f"none of {len(trials):,} trials")
        return
    print_trials(console, definition, trials, chosen)
    if not asked:
        if len(chosen) < len(trials):
            console.print(f"the {len(chosen)} best of {len(trials):,} trials; --top {len(trials)} shows all")
        _print_outcome(console, store, record, definition, trials)


def watch(options: argparse.Namespace) -> None:
    """Follow a sweep as it goes on, from any machine that reaches the store.

    Ends when the sweep does; Ctrl-C ends only the watching. With --json, a line for each change.
    """
    from metta.sweep.report.followed import watch as follow
    from metta.sweep.report.followed import watch_json

    with opened(options) as store:
        if options.json:
            watch_json(store, options.name)
            return
        console = _console()
        followed = follow(console, store, options.name)
        _print_outcome(console, store, store.sweep(options.name), followed.live.definition, followed.trials)


def trial(options: argparse.Namespace) -> None:
    """One trial: hyperparameters, learning curve, evaluation, error.

    And the command that repeats it.
    """
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.report.summary import metta_sweep_command, retrain_command
    from metta.sweep.report.trial_view import print_trial, trial_with_curve_as_json
    from metta.sweep.trial import TrialState

    with opened(options) as store:
        definition = SweepDefinition.model_validate(store.sweep(options.name).config)
        trials = store.trials(options.name)
        if not 0 <= options.number < len(trials):
            raise UserError(f"sweep {options.name!r} has {_numbers(trials)}, and no trial {options.number}")
        chosen, curve = trials[options.number], store.curve(options.name, options.number)
    number = str(options.number)
    repeat = retrain_command(options.name, store.url, definition, options.number)
    commands = {"repeat it": repeat} if repeat else {}
    if chosen.state is TrialState.COMPLETED:
        confirm = metta_sweep_command(store.url, "confirm", options.name, "--trials", number, "--seeds", "5")
        commands["run it on fresh seeds"] = confirm
    elif chosen.state is TrialState.FAILED:
        commands["queue it again"] = metta_sweep_command(store.url, "retry", options.name, number)
    if options.json:
        print(json.dumps(trial_with_curve_as_json(chosen, curve, commands), indent=2, allow_nan=False))
    else:
        print_trial(_console(), definition, trials, chosen, curve, commands)


def best(options: argparse.Namespace) -> None:
    """The best hyperparameters: as overrides for a command line, YAML or JSON.

    Best are those that the model trusts most, for the highest of many scores may be luck. With --measured, those of
    the best score.
    """
    import shlex

    import yaml

    from metta.common.config import unflatten
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.observations import recommended_trial
    from metta.sweep.report.standing import ranked
    from metta.sweep.report.summary import strict_data, value_text
    from metta.sweep.report.words import cost_text

    with opened(options) as store:
        definition = SweepDefinition.model_validate(store.sweep(options.name).config)
        trials = store.trials(options.name)
    limit, metric = options.max_cost, definition.protein.metric
    order = ranked(trials, definition.protein.goal)
    order = [each for each in order if limit is None or (each.cost is not None and each.cost <= limit)]
    if not order:
        within = "" if limit is None else f" at a cost up to {limit:g}"
        raise UserError(f"no trial of {options.name!r} has a score{within}")
    recommended = None if options.measured else recommended_trial(definition, trials, limit)
    chosen = next((each for each in order if each.number == recommended), order[0])
    overrides = shlex.join(f"{path}={value_text(value)}" for path, value in chosen.params.items())
    nested = unflatten(chosen.params)
    if options.json:
        facts = {"trial": chosen.number, "score": chosen.score, "cost": chosen.cost, "metric": metric}
        facts |= {"best_measured": order[0].number, "recommended": recommended}
        print(json.dumps(facts | {"params": strict_data(nested), "overrides": overrides}, indent=2, allow_nan=False))
    elif options.overrides:
        print(overrides)
    elif options.yaml:
        print(yaml.safe_dump(nested, sort_keys=False), end="")
    else:
        print(f"trial {chosen.number}: {metric} {chosen.score:.4g} for {cost_text(chosen, definition)}")
        if chosen is not order[0]:
            luck = f"trial {order[0].number} measured {order[0].score:.4g}, but that may be luck (--measured shows it)"
            print(f"the model trusts it most; {luck}")
        print(f"\nas overrides:\n  {overrides}\n\nas YAML:")
        print(yaml.safe_dump(nested, sort_keys=False), end="")


def compare(options: argparse.Namespace) -> None:
    """Two sweeps: their best trials, Pareto fronts, and regret against cost."""
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.report import comparison

    with opened(options) as store:
        a, b = [
            comparison.ComparedSweep(name, SweepDefinition.model_validate(store.sweep(name).config), store.trials(name))
            for name in (options.a, options.b)
        ]
    compared = comparison.compare(a, b)
    if options.json:
        print(json.dumps(comparison.comparison_as_json(compared), indent=2, allow_nan=False))
    else:
        comparison.print_comparison(_console(), compared)


def list_sweeps(options: argparse.Namespace) -> None:
    """The sweeps in the store: how far they are, and their best score."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    with opened(options) as store:
        rows = [_sweep_row(store, record.name) for record in store.sweeps()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("sweep", "trials", "metric", "best", "running", "created", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(
            escape(row["sweep"]),
            f"{row['ended']}/{row['num_trials']}",
            escape(row["metric"]),
            "" if row["best"] is None else f"{row['best']:.4g}",
            "yes" if row["running"] else "",
            row["created_at"],
        )
    _console().print(table if rows else f"no sweeps in {store.url}", highlight=False)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _print_outcome(
    console: Console, store: Store, record: SweepRecord, definition: SweepDefinition, trials: list[Trial]
) -> None:
    from metta.sweep.observations import recommended_trial
    from metta.sweep.report.summary import next_commands, print_outcome

    recommended = recommended_trial(definition, trials)
    commands = next_commands(record, store.url, definition, trials, recommended)
    print_outcome(console, record.name, definition, trials, recommended, commands)


def _numbers(trials: list[Trial]) -> str:
    return f"the trials 0 to {len(trials) - 1}" if trials else "no trials yet"


def _sweep_row(store: Store, name: str) -> dict[str, Any]:
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.report.standing import ranked

    record = store.sweep(name)
    definition = SweepDefinition.model_validate(record.config)
    trials = store.trials(name)
    order = ranked(trials, definition.protein.goal)
    return {
        "sweep": name,
        "ended": sum(trial.state.ended for trial in trials),
        "num_trials": definition.num_trials,
        "metric": definition.protein.metric,
        "best": order[0].score if order else None,
        "running": any(driver.alive for driver in store.drivers(name)),
        "created_at": record.created_at.isoformat(timespec="seconds"),
    }
