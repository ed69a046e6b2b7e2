"""Commands that show sweeps."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metta.common.counts import count_text
from metta.common.errors import UserError
from metta.common.terminal import safe, say
from metta.sweep.cli.command import NO_SWEEP, Commands, notice, opened, positive

if TYPE_CHECKING:
    from metta.common.console import Console
    from metta.sweep.protein.types import OtherLength
    from metta.sweep.state import SweepState
    from metta.sweep.store.protocol import Store, SweepRecord

TITLE = "look at sweeps"

STATES = ("queued", "running", "completed", "failed", "pruned")
MANY, BEST = 50, 20
"""With more than `MANY` trials, `show` shows only the `BEST`."""


def register(commands: Commands) -> None:
    shown = commands.add(show, "show", "name", latest=True)
    shown.add_argument("--top", type=positive, metavar="N", help="only the first N, in the order of --sort or the best")
    shown.add_argument("--state", action="append", default=[], choices=STATES, help="only this state; may be repeated")
    shown.add_argument("--pareto", action="store_true", help="only the Pareto front of score and cost")
    shown.add_argument(
        "--sort", metavar="BY", help="score, number, cost, attempts, ended, a hyperparameter or a metric"
    )
    commands.add(watch, "watch", "name", latest=True)
    commands.add(trial, "trial", "name", latest=True).add_argument(
        "number", type=_trial_number, help="the trial's number"
    )
    found = commands.add(best, "best", "name", latest=True)
    found.add_argument("--max-cost", type=float, metavar="X", help="only among trials that cost at most this")
    found.add_argument("--measured", action="store_true", help="the top trial: the best score as measured")
    shape = found.add_mutually_exclusive_group()
    shape.add_argument("--overrides", action="store_true", help="print only PATH=VALUE ..., for a command line")
    shape.add_argument("--yaml", action="store_true", help="print only YAML")
    commands.add(compare, "compare", "a", "b")
    commands.add(list_sweeps, "list")


def _trial_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a trial, such as 0")
    return int(text)


def show(options: argparse.Namespace) -> None:
    """Show the trials of a sweep, the best one, and what to run next.

    With more than 50 trials the 20 best are shown, unless you select some: --top 100, --state failed, --pareto.
    """
    from metta.sweep.analysis.selection import select
    from metta.sweep.report.json_data import sweep_as_json
    from metta.sweep.report.terminal.trials_table import print_trials
    from metta.sweep.state import read_state, with_details
    from metta.sweep.trial import TrialState

    asked = options.top or options.state or options.pareto or options.sort
    with opened(options) as store:
        state = read_state(store, options.name, brief=not options.json and not options.sort)
        count = len(state.trials)
        top = BEST if not asked and not options.json and count > MANY else options.top
        states = [TrialState(name) for name in options.state]
        chosen = select(state, states=states, pareto=options.pareto, sort=options.sort, top=top)
        state = with_details(store, state)
    if options.json:
        print(json.dumps(sweep_as_json(state, chosen), indent=2, allow_nan=False))
        return
    console = _console()
    if asked and not chosen:
        console.print(f"none of {count_text(count, 'trial')}")
        return
    print_trials(console, state, chosen)
    if not asked:
        if len(chosen) < count:
            top_scores, trials = count_text(chosen, "top score"), count_text(count, "trial")
            console.print(f"the {top_scores} of {trials}; --top {count} shows all")
        _print_outcome(console, state)


def watch(options: argparse.Namespace) -> None:
    """Watch a running sweep, from any machine that reaches the store.

    Ends with the sweep, or when no driver runs it; Ctrl-C ends only the watching. With --json, prints a line for
    each change.
    """
    from metta.sweep.report.terminal.watch import watch as watch_sweep
    from metta.sweep.report.terminal.watch import watch_json

    with opened(options) as store:
        if options.json:
            watch_json(store, options.name)
            return
        console = _console()
        watched = watch_sweep(console, store, options.name)
        if not watched.over:
            notice(f"no driver runs {options.name} now, so there is nothing to watch")
        _print_outcome(console, watched.state)


def trial(options: argparse.Namespace) -> None:
    """Show one trial: hyperparameters, learning curve, evaluation, error.

    Also the command that repeats it.
    """
    from metta.common.entry_point import metta_sweep_command
    from metta.sweep.report.commands import confirm_words, retrain_command, retry_commands
    from metta.sweep.report.json_data import trial_with_curve_as_json
    from metta.sweep.report.terminal.trial_view import print_trial
    from metta.sweep.state import read_state
    from metta.sweep.trial import TrialState

    with opened(options) as store:
        state = read_state(store, options.name)
        chosen, curve = state.trial(options.number), store.curve(options.name, options.number)
    number = str(options.number)
    repeat = retrain_command(options.name, state.store_url, state.definition, options.number)
    commands = {"repeat it": repeat} if repeat else {}
    if chosen.state is TrialState.COMPLETED:
        confirm = confirm_words(state, "--trials", number, "--seeds", "5")
        commands |= {"run it on fresh seeds": confirm} if confirm else {}
    elif chosen.state is TrialState.FAILED:
        commands["queue it again"] = metta_sweep_command(state.store_url, "retry", options.name, number)
        commands |= retry_commands(state)
    if options.json:
        print(json.dumps(trial_with_curve_as_json(chosen, curve, commands), indent=2, allow_nan=False))
    else:
        print_trial(_console(), state, chosen, curve, commands)


def best(options: argparse.Namespace) -> None:
    """Print the best hyperparameters, as overrides for a command line, YAML or JSON.

    These are the recommended trial's: the one that did best on fresh seeds, or else the model's choice, because the
    highest of many scores may be luck. With --measured, those of the trial with the top score. Within a cost, also
    hyperparameters with another length of training, if the model is fairly sure that they are better.
    """
    import dataclasses

    import yaml

    from metta.common.config import flatten, unflatten
    from metta.common.plain import strict
    from metta.sweep.report.findings import best_reason, other_length_sentence, standing_sentences
    from metta.sweep.report.format import cost_text, score_text
    from metta.sweep.state import read_state

    with opened(options) as store:
        state = read_state(store, options.name)
    limit = options.max_cost
    order = [each for each in state.ranked if limit is None or (each.cost is not None and each.cost <= limit)]
    if not order:
        raise UserError(_nothing_within(state, limit))
    top, best_one = order[0], state.conclusions.best if limit is None else state.best_within(limit)
    chosen = top if options.measured or best_one is None else best_one
    other = None if limit is None or options.measured else state.other_length_within(limit)
    params = state.params_of(chosen)
    overrides = _as_overrides(params)
    nested = unflatten(params)
    if options.json:
        facts: dict[str, Any] = {"trial": chosen.number, "score": chosen.score, "cost": chosen.cost}
        facts |= {"metric": state.metric, "best": best_one.number if best_one else None, "top": top.number}
        belief = state.analysed().conclusions.belief(chosen)
        facts["belief"] = None if belief is None else dataclasses.asdict(belief)
        facts["other_length"] = None if other is None else _other_length_facts(other)
        print(json.dumps(facts | {"params": strict(nested), "overrides": overrides}, indent=2, allow_nan=False))
    elif options.overrides:
        print(safe(overrides))
    elif options.yaml:
        print(yaml.safe_dump(nested, sort_keys=False), end="")
    else:
        say(f"trial {chosen.number}: {state.metric} {score_text(chosen)} for {cost_text(chosen, state.definition)}")
        if limit is None and not options.measured:
            say(best_reason(state))
        for sentence in standing_sentences(state.analysed().conclusions, chosen):
            say(sentence)
        if chosen.number != top.number:
            say(f"top measured score: {score_text(top)}, by trial {top.number} (--measured shows it)")
        say(f"\nas overrides:\n  {overrides}\n\nas YAML:")
        print(yaml.safe_dump(nested, sort_keys=False), end="")
        if other is not None:
            say(f"\n{other_length_sentence(other, state)}\n\nas overrides:\n  {_as_overrides(flatten(other.params))}")


def _nothing_within(state: SweepState, limit: float | None) -> str:
    """Why no trial can be shown, and what comes nearest to a limit of cost."""
    from metta.sweep.report.findings import other_length_sentence
    from metta.sweep.report.format import cost_text, score_text

    if limit is None or not state.ranked:
        return f"no trial of {state.name!r} has a score"
    said = [f"no trial of {state.name!r} has a score at a cost up to {limit:g}."]
    costed = [trial for trial in state.ranked if trial.cost is not None]
    if costed:
        cheapest = min(costed, key=lambda trial: trial.cost or 0.0)
        cost = cost_text(cheapest, state.definition)
        said.append(f"The cheapest is trial {cheapest.number}: {score_text(cheapest)} for {cost}.")
    if (other := state.other_length_within(limit)) is not None:
        said.append(other_length_sentence(other, state))
    return " ".join(said)


def _as_overrides(params: Mapping[str, Any]) -> str:
    """Hyperparameters as words of a command line."""
    import shlex

    from metta.sweep.report.format import value_text

    return shlex.join(f"{path}={value_text(value)}" for path, value in params.items())


def _other_length_facts(other: OtherLength) -> dict[str, Any]:
    """A configuration with a length that was not tried, as JSON."""
    import dataclasses

    from metta.common.config import flatten
    from metta.common.plain import strict

    facts = dataclasses.asdict(other)
    trial, params = facts.pop("number"), strict(facts.pop("params"))
    return {"trial": trial, **facts, "params": params, "overrides": _as_overrides(flatten(other.params))}


def compare(options: argparse.Namespace) -> None:
    """Compare two sweeps: their best trials, Pareto fronts, and regret against cost."""
    from metta.sweep.analysis.comparison import compare as compare_sweeps
    from metta.sweep.report.json_data import comparison_as_json
    from metta.sweep.report.terminal.comparison import print_comparison
    from metta.sweep.state import read_state

    with opened(options) as store:
        a, b = [read_state(store, name) for name in (options.a, options.b)]
    compared = compare_sweeps(a, b)
    if options.json:
        print(json.dumps(comparison_as_json(compared), indent=2, allow_nan=False))
    else:
        print_comparison(_console(), compared)


def list_sweeps(options: argparse.Namespace) -> None:
    """List the sweeps in the store, with their progress and top score."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    with opened(options) as store:
        rows = [_sweep_row(store, record) for record in store.sweeps()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("sweep", "trials", "metric", "top", "running", "created", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(
            escape(row["sweep"]),
            "/".join("?" if row[name] is None else str(row[name]) for name in ("ended", "num_trials")),
            escape(row["metric"] or "unreadable"),
            "" if row["top"] is None else f"{row['top']:.4g}",
            "yes" if row["running"] else "",
            row["created_at"],
        )
    console = _console()
    console.print(table if rows else f"no sweeps in {store.url}; {NO_SWEEP}", highlight=False, soft_wrap=not rows)
    for row in rows:
        if row["problem"]:
            console.print(row["problem"], style="yellow", markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    from metta.common.console import Console

    return Console()


def _print_outcome(console: Console, state: SweepState) -> None:
    from metta.sweep.report.commands import next_commands
    from metta.sweep.report.terminal.outcome import print_outcome

    print_outcome(console, state, next_commands(state))


def _sweep_row(store: Store, record: SweepRecord) -> dict[str, Any]:
    """A sweep as a row of the list, with the reason if it cannot be read."""
    from metta.sweep.definition import DefinitionError, read_definition
    from metta.sweep.state import SweepState
    from metta.sweep.store.protocol import StoreWithoutKeysError

    row: dict[str, Any] = {
        "sweep": record.name,
        "ended": None,
        "num_trials": None,
        "metric": None,
        "top": None,
        "running": None,
        "created_at": record.created_at.isoformat(timespec="seconds"),
        "problem": None,
    }
    try:
        trials = store.trials(record.name)
        row["ended"] = sum(trial.counted for trial in trials)
        row["running"] = any(driver.alive for driver in store.drivers(record.name))
        state = SweepState.of(record, read_definition(record), trials)
    except (DefinitionError, StoreWithoutKeysError) as error:
        return row | {"problem": str(error)}
    found = {"num_trials": state.definition.num_trials, "metric": state.metric}
    return row | found | {"top": state.top.score if state.top else None}
