"""The `metta-sweep` command: look at sweeps, from any terminal that reaches the store."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.common.data_dir import default_store_url
from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError
from metta.sweep.definition import SweepDefinition
from metta.sweep.observations import recommended_trial
from metta.sweep.report.standing import ranked
from metta.sweep.report.summary import next_commands, print_outcome, print_trials, sweep_as_json
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Store


class SweepDriver(Protocol):
    """What an entry point of a sweep builds: a Tool of a room that this one does not know."""

    def work(self) -> int: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for a mistake in the command."""
    options = _parser().parse_args(arguments)
    try:
        store = open_store(options.store)
        try:
            return options.command(store, options) or 0
        finally:
            store.close()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def show(store: Store, options: argparse.Namespace) -> None:
    """Every trial of a sweep, the best one, and what to run next."""
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


def work(store: Store, options: argparse.Namespace) -> int:
    """Work on a sweep beside its other drivers, on any machine that reaches the store."""
    record = store.sweep(options.name)
    if record.entry_point is None:
        raise UserError(
            f"sweep {options.name!r} was not started by tools/run.py, so nothing says how to rebuild it; "
            "run the Python code that started it"
        )
    sys.path.insert(0, str(Path.cwd()))
    tool = EntryPoint.model_validate(record.entry_point).build().override("store", options.store)
    return cast(SweepDriver, tool).work()


def list_sweeps(store: Store, options: argparse.Namespace) -> None:
    """The sweeps in the store, with how far they are and their best score."""
    rows = []
    for record in store.sweeps():
        definition = SweepDefinition.model_validate(record.config)
        trials = store.trials(record.name)
        order = ranked(trials, definition.protein.goal)
        rows.append(
            {
                "sweep": record.name,
                "ended": sum(trial.state.ended for trial in trials),
                "num_trials": definition.num_trials,
                "metric": definition.protein.metric,
                "best": order[0].score if order else None,
                "running": any(driver.alive for driver in store.drivers(record.name)),
                "created_at": record.created_at.isoformat(timespec="seconds"),
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("sweep", "trials", "metric", "best", "running", "created", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        best = "" if row["best"] is None else f"{row['best']:.4g}"
        table.add_row(
            escape(str(row["sweep"])),
            f"{row['ended']}/{row['num_trials']}",
            escape(str(row["metric"])),
            best,
            "yes" if row["running"] else "",
            str(row["created_at"]),
        )
    Console().print(table if rows else f"no sweeps in {store.url}", highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="metta-sweep", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", default=default_store_url(), help="URL of the store (default: %(default)s)")
    common.add_argument("--json", action="store_true", help="print JSON instead of tables")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("show", parents=[common], help=show.__doc__, description=show.__doc__)
    command.add_argument("name", help="the sweep's name")
    command.set_defaults(command=show)
    command = commands.add_parser("work", parents=[common], help=work.__doc__, description=work.__doc__)
    command.add_argument("name", help="the sweep's name")
    command.set_defaults(command=work)
    command = commands.add_parser("list", parents=[common], help=list_sweeps.__doc__, description=list_sweeps.__doc__)
    command.set_defaults(command=list_sweeps)
    return parser
