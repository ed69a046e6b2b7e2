"""Commands that look at sweeps."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from metta.sweep.cli.command import Commands, opened

if TYPE_CHECKING:
    from metta.sweep.store.protocol import Store

TITLE = "look at sweeps"


def register(commands: Commands) -> None:
    commands.add(show, "show", "name")
    commands.add(list_sweeps, "list")


def show(options: argparse.Namespace) -> None:
    """Every trial of a sweep, the best one, and what to run next."""
    from rich.console import Console

    from metta.sweep.definition import SweepDefinition
    from metta.sweep.observations import recommended_trial
    from metta.sweep.report.summary import next_commands, print_outcome, print_trials, sweep_as_json

    with opened(options) as store:
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
    """The sweeps in the store: how far they are, and their best score."""
    from rich import box
    from rich.console import Console
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
    Console().print(table if rows else f"no sweeps in {store.url}", highlight=False)


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
