"""Commands that control a sweep."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metta.common.command_line import read_value, split_pairs
from metta.common.counts import count_text
from metta.common.errors import UserError, nearest
from metta.sweep.cli.command import Commands, notice, opened, positive, say

if TYPE_CHECKING:
    from metta.common.entry_point import EntryPoint
    from metta.sweep.abstract_sweep import AbstractSweep
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.store.protocol import Outcome, Store

TITLE = "control sweeps"
_NO_DRIVER = "no driver is running"


def register(commands: Commands) -> None:
    for run in (pause, resume, stop):
        commands.add(run, run.__name__, "name", latest=True)
    retried = commands.add(retry, "retry", "name")
    retried.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="numbers of failed trials")
    retried.add_argument("--failed", action="store_true", help="every failed trial")
    dropped = commands.add(drop, "drop", "name")
    dropped.add_argument("numbers", nargs="+", type=int, metavar="NUMBER", help="numbers of trials")
    dropped.add_argument("--reason", default="", metavar="TEXT", help="why, shown with the trial")
    dropped.add_argument("--undo", action="store_true", help="restore them")
    worked = commands.add(work, "work", "name", latest=True)
    confirmed = commands.add(confirm, "confirm", "name", latest=True)
    confirmed.add_argument("--top", type=positive, default=3, metavar="K", help="the K best (default: %(default)s)")
    confirmed.add_argument("--trials", nargs="+", type=int, default=[], metavar="N", help="these trials instead")
    confirmed.add_argument(
        "--seeds", type=positive, default=5, metavar="S", help="seeds for each (default: %(default)s)"
    )
    for parser in (worked, confirmed):
        parser.add_argument("--trust", action="store_true", help="import code that the store names from any folder")
    queued, added = commands.add(enqueue, "enqueue", "name"), commands.add(add, "add", "name")
    for parser in (queued, added):
        parser.add_argument("params", nargs="+", metavar="PATH=VALUE", help="hyperparameters")
    added.add_argument("--score", type=float, required=True, help="the metric as measured")
    added.add_argument("--cost", type=float, required=True, help="in the unit of the sweep's cost metric")


def pause(options: argparse.Namespace) -> None:
    """Pause a sweep: start no further trial until it is resumed.

    Running trials continue to their end, and the drivers wait.
    """
    from metta.common.entry_point import metta_sweep_command

    with opened(options) as store:
        store.pause(options.name)
        drivers = _alive(store, options.name)
        command = metta_sweep_command(store.url, "resume", options.name)
    waiting = f"{count_text(drivers, 'driver')} will start no further trial" if drivers else _NO_DRIVER
    say(
        options,
        f"{options.name} is paused: {waiting}; resume with:\n  {command}",
        paused=True,
        drivers=drivers,
    )


def resume(options: argparse.Namespace) -> None:
    """Continue a paused sweep, or cancel a stop that has not taken effect.

    If a sweep has stopped and its drivers are gone, run the command that started it, or `metta-sweep work`.
    """
    with opened(options) as store:
        store.resume(options.name)
        drivers = _alive(store, options.name)
        command = _command(store, options.name)
    going = count_text(drivers, "driver") if drivers else f"{_NO_DRIVER}{command}"
    say(options, f"{options.name} continues: {going}", paused=False, drivers=drivers)


def stop(options: argparse.Namespace) -> None:
    """Stop a sweep: finish the running trials, start no new one, and end.

    Works from any terminal that reaches the store.
    """
    with opened(options) as store:
        drivers = len(store.stop(options.name))
        command = _command(store, options.name)
    asked = f"{count_text(drivers, 'driver')} will finish the running trials and end" if drivers else _NO_DRIVER
    say(options, f"{options.name}: {asked}{command}", drivers=drivers)


def retry(options: argparse.Namespace) -> None:
    """Queue failed trials again, under their numbers.

    Their cost so far still counts.
    """
    from metta.sweep.observations import numbers_text

    if bool(options.numbers) is options.failed:
        raise UserError("which trials? give their numbers, or --failed for every failed one")
    with opened(options) as store:
        numbers = _failed(store, options.name) if options.failed else sorted(set(options.numbers))
        for number in numbers:
            store.retry(options.name, number)
        drivers = _alive(store, options.name)
        command = "" if drivers or not numbers else _command(store, options.name)
    several = len(numbers) > 1
    message = f"trial{'s' * several} {numbers_text(numbers)} {'are' if several else 'is'} queued again"
    say(options, message + command if numbers else "no trial has failed", numbers=numbers, drivers=drivers)


def _failed(store: Store, name: str) -> list[int]:
    """Numbers of the failed trials that nobody dropped."""
    from metta.sweep.trial import TrialState

    failed = store.trials(name, states=[TrialState.FAILED])
    return [trial.number for trial in failed if trial.dropped is None]


def work(options: argparse.Namespace) -> int:
    """Work on a sweep together with its other drivers, on this or another machine.

    Rebuilds the sweep from its stored entry point, in the current folder. It says what it imports, and refuses code
    that is not of this folder's project, unless you --trust everybody who can write to the store.
    """
    with opened(options) as store:
        entry_point = _entry_point(store, options.name)
    sweep = _build(entry_point, options)
    if not options.json:
        return sweep.work()
    from metta.common.console import Console
    from metta.sweep.abstract_sweep import exit_status
    from metta.sweep.report.json_data import sweep_as_json

    result = sweep.run(Console(stderr=True), exclusive=False)
    print(json.dumps(sweep_as_json(result.state), indent=2, allow_nan=False))
    return exit_status(result.state)


def confirm(options: argparse.Namespace) -> None:
    """Retrain the best trials on fresh seeds, and test whether they really differ.

    The runs are the sweep NAME.confirm, which can be watched and worked on like any other. The same command resumes
    it, and with more --seeds or --top it runs only what is missing.
    """
    from metta.common.console import Console
    from metta.sweep.analysis import confirmation
    from metta.sweep.definition import open_sweep
    from metta.sweep.report.terminal.confirmation import print_confirmation
    from metta.sweep.state import confirmations, read_state

    with opened(options) as store:
        name = f"{options.name}{confirmation.SUFFIX}"
        swept = _entry_point(store, options.name)
        state = read_state(store, options.name)
        chosen = confirmation.choose(state, options.top, options.trials)
        before = [trial for trial in confirmations(store, options.name, state.definition) if trial.dropped is None]
        missing = confirmation.missing(before, chosen, options.seeds)
        entry_point = confirmation.entry_point(swept, name, len(before) + len(missing))
        tool = _build(entry_point, options)
        open_sweep(store, name, tool.definition(), entry_point.model_dump())
        confirmation.enqueue(store, name, missing)
        if missing or not all(trial.state.ended for trial in before):
            try:
                tool.run(Console(stderr=options.json), exclusive=False, outcome=False)
            except KeyboardInterrupt:
                notice("stopped; the same command resumes it")
                raise
        again = confirmations(store, options.name, state.definition)
        result = confirmation.confirmation_result(state.goal, chosen, again)
    if options.json:
        print(json.dumps({"sweep": name} | confirmation.result_as_json(result), indent=2))
    else:
        print_confirmation(Console(), state.metric, result)


def enqueue(options: argparse.Namespace) -> None:
    """Queue hyperparameters to be tried next.

    Missing hyperparameters take the Tool's own values.
    """
    with opened(options) as store:
        (number,) = _append(store, options, None)
    say(options, f"trial {number} is queued", number=number)


def add(options: argparse.Namespace) -> None:
    """Add a trial that ran elsewhere, for the optimiser to learn from.

    Missing hyperparameters take the Tool's own values.
    """
    from metta.sweep.store.protocol import Outcome
    from metta.sweep.trial import TrialState

    with opened(options) as store:
        (number,) = _append(store, options, Outcome(TrialState.COMPLETED, score=options.score, cost=options.cost))
    say(options, f"trial {number} is added", number=number)


def drop(options: argparse.Namespace) -> None:
    """Exclude trials: they are not learnt from, not ranked and not counted.

    They are kept, and shown as dropped; their cost still counts. --undo restores them.
    """
    numbers = sorted(set(options.numbers))
    with opened(options) as store:
        if options.undo:
            store.restore(options.name, numbers)
        else:
            store.drop(options.name, numbers, options.reason)
    several = len(numbers) > 1
    trials = f"trial{'s' * several} {', '.join(map(str, numbers))} {'are' if several else 'is'}"
    state = "no longer dropped" if options.undo else "dropped; --undo restores"
    say(options, f"{trials} {state}", numbers=numbers, dropped=not options.undo)


def _append(store: Store, options: argparse.Namespace, outcome: Outcome | None) -> list[int]:
    """Add a trial as typed, if the optimiser can learn from it."""
    from metta.sweep.definition import read_definition
    from metta.sweep.observations import ObservationReader

    definition = read_definition(store.sweep(options.name))
    params = _hyperparameters(definition, options.params)
    if outcome is not None:
        outcome = replace(outcome, cost_metric=definition.cost_metric)
    if refusal := ObservationReader(definition).refusal(params, outcome):
        raise UserError(f"nothing was added: {refusal}")
    return store.append(options.name, [(params, outcome)])


def _entry_point(store: Store, name: str) -> EntryPoint:
    """The entry point that rebuilds the sweep."""
    from metta.sweep.definition import read_entry_point

    record = store.sweep(name)
    entry_point = read_entry_point(record)
    if entry_point is None:
        tool = record.config.get("tool")
        function = str(tool.get("function") if isinstance(tool, dict) else "").rpartition(".")[2]
        function = function if function.isidentifier() else "train"
        raise UserError(
            f"sweep {name!r} is of a function that only the script or notebook that defines it can call. Move it to a "
            f"module, such as training.py, and run optimize('training:{function}', ..., "
            f"name={name!r}, num_trials=...) instead: that continues the sweep, and this command then works"
        )
    return entry_point


def _build(entry_point: EntryPoint, options: argparse.Namespace) -> AbstractSweep:
    from metta.common.trust import require_own

    sys.path.insert(0, str(Path.cwd()))
    imported = _imported(entry_point)
    if not options.trust:
        require_own(imported, Path.cwd(), "add --trust")
    notice(f"importing {' and '.join(imported)}, which {options.name!r} in the store names")
    if "program" in entry_point.args:
        notice(f"and running its program: {entry_point.args['program']}")
    return cast("AbstractSweep", entry_point.build().override("store", options.store))


def _imported(entry_point: EntryPoint) -> list[str]:
    """What a stored entry point has imported: itself, and the function that it sweeps."""
    named = [texts["function"] for texts in (entry_point.args, entry_point.overrides) if "function" in texts]
    return [entry_point.path, *named]


def _alive(store: Store, name: str) -> int:
    return sum(driver.alive for driver in store.drivers(name))


def _command(store: Store, name: str) -> str:
    """How to resume the sweep, if the store has its command."""
    from metta.sweep.report.commands import resume_command

    command = resume_command(store.sweep(name), store.url)
    return "" if command is None else f"\nto resume it:\n  {command}"


def _hyperparameters(definition: SweepDefinition, pairs: Sequence[str]) -> dict[str, Any]:
    """Hyperparameters as typed, by full path or unique ending; missing ones take the Tool's own values."""
    from metta.common.config import flatten
    from metta.sweep.protein_config import ParameterConfig

    space = flatten(definition.protein.parameters)
    paths = list(space)
    own = flatten(definition.tool)
    fixed = {path: leaf for path, leaf in space.items() if not isinstance(leaf, ParameterConfig)}
    params = {path: own[path] for path in paths if path in own} | fixed
    for name, text in split_pairs(pairs, "hyperparameters").items():
        meant = [path for path in paths if path == name or path.endswith(f".{name}")]
        if len(meant) != 1:
            raise UserError(f"the sweep does not search {name!r}; {nearest(name, paths)}")
        params[meant[0]] = read_value(text)
    if missing := [path for path in paths if path not in params]:
        raise UserError(f"these hyperparameters have no default and must be given: {', '.join(missing)}")
    return params
