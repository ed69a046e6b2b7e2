"""What all commands share: registration, opening the store, and output."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from metta.common import terminal
from metta.common.data_dir import STORE_VARIABLE, default_store_url
from metta.common.errors import UserError
from metta.common.urls import public_url

if TYPE_CHECKING:
    from metta.sweep.store.protocol import Store

Run = Callable[[argparse.Namespace], int | None]
"""Runs a command; returns its exit status, or None for 0."""


NO_SWEEP = "run a sweep first, or name your store: --store URL, or METTA_DATA_DIR, the folder that contains sweeps.db"

_LAST_PORT = 65535

SWEEPS = ("name", "a", "b")
"""Positional arguments that are names of sweeps."""


class Commands:
    """The sub-parsers of `metta-sweep`, in groups."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parsers = parser.add_subparsers(
            prog=parser.prog, required=True, metavar="COMMAND", help=argparse.SUPPRESS
        )
        self._groups: list[tuple[str, dict[str, str]]] = []

    def begin(self, title: str) -> None:
        """Start a group: the help lists the commands added after this under `title`."""
        self._groups.append((title, {}))

    def add(
        self, run: Run, name: str, *arguments: str, store: bool = True, latest: bool = False
    ) -> argparse.ArgumentParser:
        """Add a command.

        Args:
            run: the function. The first paragraph of its docstring is shown in the overview, the whole one as its help.
            name: of the command.
            arguments: names of its positional arguments.
            store: whether it has the option --store.
            latest: whether its sweep may be left out, and is then the latest one; see `opened`.

        Returns:
            Its parser, for further arguments. --json is there already.
        """
        paragraphs = [" ".join(part.split()) for part in (inspect.getdoc(run) or "").split("\n\n")]
        description = "\n\n".join(textwrap.fill(paragraph, 80) for paragraph in paragraphs)
        self._groups[-1][1][name] = paragraphs[0]
        parser = self._parsers.add_parser(
            name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for argument in arguments:
            optional: dict[str, Any] = {"nargs": "?"} if latest else {}
            text = "the sweep's name" + (" (default: the latest sweep)" if latest else "")
            action = parser.add_argument(argument, help=text if argument in SWEEPS else None, **optional)
            if argument in SWEEPS:
                action.completer = _sweep_names  # type: ignore[attr-defined]  # argcomplete looks for it
        if store:
            parser.add_argument("--store", metavar="URL", default=default_store_url(), help=_default_store_text())
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(command=run, latest=latest)
        return parser

    def overview(self) -> str:
        """Every command with its description, by group."""
        names = max(len(name) for _, group in self._groups for name in group)
        blocks = []
        for title, group in self._groups:
            lines = [
                textwrap.fill(line, 80, initial_indent=f"  {name:<{names}}  ", subsequent_indent=" " * (names + 4))
                for name, line in group.items()
            ]
            blocks.append("\n".join([f"{title}:", *lines]))
        return "\n\n".join(blocks)


def _default_store_text() -> str:
    return f"default: {public_url(default_store_url())}; ${STORE_VARIABLE} sets it".replace("%", "%%")


def _sweep_names(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Complete a sweep's name in a shell. Errors are ignored, because they could not be read there."""
    try:
        with opened(parsed_args) as store:
            return [record.name for record in store.sweeps()]
    except UserError:
        return []


def opened(options: argparse.Namespace, create: bool = False) -> closing[Store]:
    """The store that --store names, closed at the end of the block.

    Where the command may take the latest sweep and no name was typed, `options.name` is then its name.
    """
    from metta.sweep.store import open_store

    store = open_store(options.store, create=create)
    if getattr(options, "latest", False) and options.name is None:
        options.name = _latest(store)
        notice(f"the latest sweep: {options.name}")
    return closing(store)


def _latest(store: Store) -> str:
    """The sweep that was begun last, and not to confirm another one."""
    from metta.sweep.analysis.confirmation import SUFFIX

    records = store.sweeps()
    own = [record for record in records if not record.name.endswith(SUFFIX)] or records
    if not own:
        raise UserError(f"store {store.url} has no sweep yet; {NO_SWEEP}")
    return max(own, key=lambda record: record.created_at).name


def port(text: str) -> int:
    """Read the number of a port, or 0 for any that is free."""
    number = int(text)
    if not 0 <= number <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{number} is not in 0 to {_LAST_PORT}")
    return number


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def say(options: argparse.Namespace, message: str, **facts: Any) -> None:
    """Print `message`, or with --json the facts."""
    if options.json:
        print(json.dumps(facts))
    else:
        terminal.say(message)


def notice(message: str) -> None:
    """Print a remark to standard error."""
    terminal.say(message, sys.stderr)
