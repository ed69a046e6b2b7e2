"""The `metta-sweep` command: look at sweeps, move them, and work on them, from any terminal that reaches the store."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, cast

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.common.command_line import read_value, split_pairs
from metta.common.config import flatten
from metta.common.data_dir import default_store_url
from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError, nearest
from metta.common.logging import quiet_terminal
from metta.sweep.definition import SweepDefinition
from metta.sweep.observations import hyperparameter_paths, recommended_trial
from metta.sweep.report.standing import ranked
from metta.sweep.report.summary import next_commands, print_outcome, print_trials, sweep_as_json
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store
from metta.sweep.store.wandb_mirror.config import WandbConfig
from metta.sweep.trial import TrialState


class SweepDriver(Protocol):
    """What an entry point of a sweep builds: a Tool of a room that this one does not know."""

    def work(self) -> int: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a mistake in the command, or a sweep's own."""
    options = _parser().parse_args(arguments)
    quiet_terminal()
    try:
        return int(options.command(options) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def show(options: argparse.Namespace) -> None:
    """Every trial of a sweep, the best one, and what to run next."""
    with _store(options) as store:
        record = store.sweep(options.name)
        definition = SweepDefinition.model_validate(record.config)
        trials = store.trials(options.name)
    if options.json:
        print(json.dumps(sweep_as_json(options.name, definition, trials), indent=2, allow_nan=False))
        return
    console = Console()
    print_trials(console, definition, trials)
    recommended = recommended_trial(definition, trials)
    commands = next_commands(record, store.url, definition, trials, recommended)
    print_outcome(console, options.name, definition, trials, recommended, commands)


def list_sweeps(options: argparse.Namespace) -> None:
    """The sweeps in the store, with how far they are and their best score."""
    with _store(options) as store:
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
    Console().print(table if rows else f"no sweeps in {store.url}", highlight=False)


def work(options: argparse.Namespace) -> int:
    """Work on a sweep beside its other drivers, on any machine that reaches the store."""
    with _store(options) as store:
        record = store.sweep(options.name)
    if record.entry_point is None:
        raise UserError(
            f"sweep {options.name!r} was not started by tools/run.py, so nothing says how to rebuild it; "
            "run the Python code that started it"
        )
    sys.path.insert(0, str(Path.cwd()))
    tool = EntryPoint.model_validate(record.entry_point).build().override("store", options.store)
    return cast(SweepDriver, tool).work()


def enqueue(options: argparse.Namespace) -> None:
    """Queue a point to be tried next; hyperparameters that are left out have the Tool's own values."""
    with _store(options) as store:
        definition = SweepDefinition.model_validate(store.sweep(options.name).config)
        number = store.enqueue(options.name, _hyperparameters(definition, options.params))
    _say(options, f"trial {number} is queued", number=number)


def add(options: argparse.Namespace) -> None:
    """Add an observation that was made elsewhere, for the optimiser to learn from; see enqueue for what is left out."""
    with _store(options) as store:
        definition = SweepDefinition.model_validate(store.sweep(options.name).config)
        outcome = Outcome(TrialState.COMPLETED, score=options.score, cost=options.cost)
        number = store.add(options.name, _hyperparameters(definition, options.params), outcome)
    _say(options, f"trial {number} is added", number=number)


def export(options: argparse.Namespace) -> None:
    """Write a sweep to a .json file (whole), or its trials to a .csv or .parquet table."""
    from metta.sweep.store.transfer import export_sweep

    with _store(options) as store:
        count = export_sweep(store, options.name, options.to)
    _say(options, f"{count} trials written to {options.to}", trials=count)


def import_(options: argparse.Namespace) -> None:
    """Make a sweep from an exported .json file, or add the trials of a .csv or .parquet table to one."""
    from metta.sweep.store.transfer import import_sweep, import_trials

    with _store(options, create=True) as store:
        if options.file.suffix.lower() == ".json":
            name = import_sweep(store, options.file, options.name).name
            _say(options, f"sweep {name!r} is in {store.url}", sweep=name)
        elif options.name is None:
            raise UserError(f"{options.file} is a table of trials; say which sweep gets them: --name NAME")
        else:
            numbers = import_trials(store, options.name, options.file)
            _say(options, f"{len(numbers)} trials added to {options.name!r}", numbers=numbers)


def copy(options: argparse.Namespace) -> None:
    """Copy a sweep with all that is kept of it from one store to another."""
    from metta.sweep.store.transfer import copy_sweep

    with closing(open_store(options.source, create=False)) as source, closing(open_store(options.target)) as target:
        copy_sweep(source, target, options.name, options.new_name)
        _say(options, f"sweep {options.new_name or options.name!r} is in {target.url}", store=target.url)


def rm(options: argparse.Namespace) -> None:
    """Remove a sweep and its trials from the store; the files of its runs stay."""
    with _store(options) as store:
        alive = [driver for driver in store.drivers(options.name) if driver.alive]
        if alive:
            raise UserError(f"sweep {options.name!r} is being run, by process {alive[0].pid} on {alive[0].host}")
        trials = len(store.trials(options.name))
        if not options.yes:
            raise UserError(f"this removes the {trials} trials of {options.name!r} for good; if you mean it, add --yes")
        store.remove_sweep(options.name)
    _say(options, f"sweep {options.name!r} and its {trials} trials are removed", trials=trials)


def sync(options: argparse.Namespace) -> None:
    """Send to Weights & Biases what it lacks of a sweep."""
    from metta.sweep.store.wandb_mirror.mirror import sync as send

    with _store(options) as store:
        stored = SweepDefinition.model_validate(store.sweep(options.name).config).wandb
    sent = send(options.store, options.name, _wandb(options, stored), _notice)
    _say(options, f"{sent} trials sent", sent=sent)


def pull(options: argparse.Namespace) -> None:
    """Read a sweep that the store lacks from Weights & Biases."""
    from metta.sweep.store.wandb_mirror.mirror import pull as read

    ended = read(options.store, options.name, _wandb(options, WandbConfig()), _notice)
    if ended is None:
        raise UserError(f"Weights & Biases has no sweep {options.name!r} in that project")
    _say(options, f"sweep {options.name!r} is read, with {ended} trials that ended", ended=ended)


def _store(options: argparse.Namespace, create: bool = False) -> closing[Store]:
    return closing(open_store(options.store, create=create))


def _say(options: argparse.Namespace, message: str, **facts: Any) -> None:
    print(json.dumps(facts) if options.json else message)


def _notice(message: str) -> None:
    print(message, file=sys.stderr)


def _wandb(options: argparse.Namespace, stored: WandbConfig) -> WandbConfig:
    chosen = {"enabled": True, "entity": options.entity, "project": options.project}
    return stored.update({name: value for name, value in chosen.items() if value is not None})


def _hyperparameters(definition: SweepDefinition, pairs: Sequence[str]) -> dict[str, Any]:
    """Hyperparameters as typed, by their full paths or any unique ending of these; the rest from the Tool."""
    paths = hyperparameter_paths(definition.protein)
    own = flatten(definition.tool)
    params = {path: own[path] for path in paths if path in own}
    for name, text in split_pairs(pairs, "hyperparameters").items():
        meant = [path for path in paths if path == name or path.endswith(f".{name}")]
        if len(meant) != 1:
            raise UserError(f"the sweep does not search {name!r}; {nearest(name, paths)}")
        params[meant[0]] = read_value(text)
    return params


def _sweep_row(store: Store, name: str) -> dict[str, Any]:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="metta-sweep", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int | None], name: str, *arguments: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        for argument in arguments:
            added.add_argument(argument, help="the sweep's name" if argument == "name" else None)
        if run is not copy:
            added.add_argument("--store", default=default_store_url(), help="URL of the store (default: %(default)s)")
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(command=run)
        return added

    command(show, "show", "name")
    command(list_sweeps, "list")
    command(work, "work", "name")
    queued, added = command(enqueue, "enqueue", "name"), command(add, "add", "name")
    for each in (queued, added):
        each.add_argument("params", nargs="+", metavar="PATH=VALUE", help="hyperparameters")
    added.add_argument("--score", type=float, required=True, help="the metric as measured")
    added.add_argument("--cost", type=float, required=True, help="in the unit of the sweep's cost metric")
    command(export, "export", "name").add_argument("--to", type=Path, required=True, metavar="FILE")
    imported = command(import_, "import")
    imported.add_argument("file", type=Path)
    imported.add_argument("--name", help="a new name for the sweep, or the sweep that gets a table's trials")
    copied = command(copy, "copy", "name")
    copied.add_argument("--from", dest="source", required=True, metavar="URL")
    copied.add_argument("--to", dest="target", required=True, metavar="URL")
    copied.add_argument("--new-name", help="the copy's name")
    command(rm, "rm", "name").add_argument("--yes", action="store_true", help="really remove it")
    for each in (command(sync, "sync", "name"), command(pull, "pull", "name")):
        each.add_argument("--entity", help="W&B user or team")
        each.add_argument("--project", help="W&B project")
    return parser
