"""Commands that move sweeps between stores, files and Weights & Biases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from metta.common.counts import count_text
from metta.common.errors import UserError
from metta.common.urls import public_url
from metta.sweep.cli.command import Commands, notice, opened, say

if TYPE_CHECKING:
    from metta.sweep.store.protocol import Store
    from metta.sweep.wandb.config import WandbConfig

TITLE = "move sweeps"


def register(commands: Commands) -> None:
    commands.add(export, "export", "name", latest=True).add_argument("--to", type=Path, required=True, metavar="FILE")
    imported = commands.add(import_, "import")
    imported.add_argument("file", metavar="FILE|URL", help="a path, https://..., s3://..., or the URL of a store")
    imported.add_argument("--name", help="a new name for the sweep, or the sweep to add a table's trials to")
    copied = commands.add(copy, "copy", "name", store=False)
    copied.add_argument("--from", dest="source", required=True, metavar="URL")
    copied.add_argument("--to", dest="target", required=True, metavar="URL")
    copied.add_argument("--new-name", help="the copy's name")
    commands.add(rm, "rm", "name").add_argument("--yes", action="store_true", help="confirm the removal")
    for parser in (commands.add(sync, "sync", "name"), commands.add(pull, "pull", "name")):
        parser.add_argument("--entity", help="W&B user or team")
        parser.add_argument("--project", help="W&B project")


def export(options: argparse.Namespace) -> None:
    """Write a sweep to a file: .json, or a .csv or .parquet table.

    A .json contains the whole sweep; a table contains its trials.
    """
    from metta.sweep.store.transfer import export_sweep

    with opened(options) as store:
        count = export_sweep(store, options.name, options.to)
    say(options, f"{count_text(count, 'trial')} written to {options.to}", trials=count)


def import_(options: argparse.Namespace) -> None:
    """Create a sweep from an exported .json, or add a table's trials to a sweep.

    From another store, every sweep is copied, or only the one given by --name.
    """
    from metta.sweep.definition import definition_problem, read_definition
    from metta.sweep.observations import ObservationReader
    from metta.sweep.store.transfer import import_trials, is_store, read_sweep, suffix

    if is_store(options.file):
        names = _import_store(options)
        say(options, f"{count_text(names, 'sweep')} copied: {', '.join(names)}", sweeps=names)
    elif suffix(options.file) == ".json":
        exported = read_sweep(options.file, options.name)  # before a store is created
        if problem := definition_problem(exported[0]):
            raise UserError(f"{public_url(options.file)}: the sweep's definition cannot be read: {problem}")
        with opened(options, create=True) as store:
            store.import_sweep(*exported)
            name = exported[0].name
            say(options, f"sweep {name!r} is in {store.url}", sweep=name)
    elif options.name is None:
        raise UserError(f"{public_url(options.file)} is a table of trials; name the sweep to add them to: --name NAME")
    else:
        with opened(options) as store:
            check = ObservationReader(read_definition(store.sweep(options.name))).refusal
            numbers = import_trials(store, options.name, options.file, check)
        say(options, f"{count_text(numbers, 'trial')} added to {options.name!r}", numbers=numbers)


def _import_store(options: argparse.Namespace) -> list[str]:
    from metta.sweep.store import open_store

    with closing(open_store(options.file, create=False)) as source:
        names = [record.name for record in source.sweeps()] if options.name is None else [options.name]
        with opened(options, create=True) as target:
            if taken := {record.name for record in target.sweeps()} & set(names):
                raise UserError(f"store {target.url}: a sweep named {min(taken)!r} exists already; nothing was copied")
            _copy_all(source, target, names)
    return names


def _copy_all(source: Store, target: Store, names: Sequence[str]) -> None:
    """Copy sweeps, all of them or none."""
    from metta.sweep.store.transfer import copy_sweep

    done: list[str] = []
    try:
        for name in names:
            copy_sweep(source, target, name)
            done.append(name)
    except BaseException:
        for name in done:
            target.remove_sweep(name)
        raise


def copy(options: argparse.Namespace) -> None:
    """Copy a sweep from one store to another, with its whole history."""
    from metta.sweep.store import open_store
    from metta.sweep.store.transfer import copy_sweep

    with closing(open_store(options.source, create=False)) as source, closing(open_store(options.target)) as target:
        copy_sweep(source, target, options.name, options.new_name)
        say(options, f"sweep {options.new_name or options.name!r} is in {target.url}", store=target.url)


def rm(options: argparse.Namespace) -> None:
    """Remove a sweep and its trials from the store.

    The files of its runs are kept.
    """
    with opened(options) as store:
        alive = [driver for driver in store.drivers(options.name) if driver.alive]
        if alive:
            raise UserError(f"sweep {options.name!r} is running, in process {alive[0].pid} on {alive[0].host}")
        trials = len(store.trials(options.name))
        counted = count_text(trials, "trial")
        if not options.yes:
            raise UserError(f"this removes {options.name!r} and its {counted} permanently; to confirm, add --yes")
        store.remove_sweep(options.name)
    say(options, f"sweep {options.name!r} and its {counted} were removed", trials=trials)


def sync(options: argparse.Namespace) -> None:
    """Send the missing trials of a sweep to Weights & Biases."""
    from metta.sweep.definition import read_definition
    from metta.sweep.wandb.mirror import sync as send

    with opened(options) as store:
        stored = read_definition(store.sweep(options.name)).wandb
    sent = send(options.store, options.name, _wandb(options, stored), notice)
    say(options, f"{count_text(sent, 'trial')} sent", sent=sent)


def pull(options: argparse.Namespace) -> None:
    """Read a sweep from Weights & Biases into the store."""
    from metta.sweep.wandb.config import WandbConfig
    from metta.sweep.wandb.mirror import pull as read

    ended = read(options.store, options.name, _wandb(options, WandbConfig()), notice)
    if ended is None:
        raise UserError(f"Weights & Biases has no sweep {options.name!r} in that project")
    say(options, f"sweep {options.name!r} was read, with {count_text(ended, 'trial')} that ended", ended=ended)


def _wandb(options: argparse.Namespace, stored: WandbConfig) -> WandbConfig:
    chosen = {"enabled": True, "entity": options.entity, "project": options.project}
    return stored.update({name: value for name, value in chosen.items() if value is not None})
