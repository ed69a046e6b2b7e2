"""The `metta-sweep` command: look at sweeps, control them and move them, from any terminal that reaches the store.

Each module here is a group of commands and registers them itself. Only the parsers are imported before a command runs,
so that help and completion are fast.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

from metta.common.distribution import version
from metta.common.errors import UserError
from metta.common.logging import quiet_terminal
from metta.common.terminal import Output, discard_output, lasting_output, say
from metta.sweep.cli import browse, completion, control, init, look, move, run
from metta.sweep.cli.command import SWEEPS, Commands
from metta.sweep.cli.parser import Parser
from metta.sweep.sweep_name import normalised

GROUPS = (init, run, look, browse, control, move, completion)
"""Modules with a TITLE and a `register(commands)`, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; docs/command.md has the table."""
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    quiet_terminal()
    for argument in SWEEPS:
        if isinstance(name := getattr(options, argument, None), str):
            setattr(options, argument, normalised(name))
    gc.set_threshold(50_000)  # what is read is kept until the end, so garbage collection would be useless
    try:
        with lasting_output():
            status = options.command(options)
        return int(status or 0) if Output.lost is None or status is not None else 2  # a sweep has its own status
    except UserError as error:
        say(f"error: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        discard_output()
        return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = Parser(
        prog="metta-sweep",
        usage="metta-sweep COMMAND ...",
        description="Look at, control and move sweeps, from any terminal that reaches the store.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version())
    commands = Commands(parser)
    for group in GROUPS:
        commands.begin(group.TITLE)
        group.register(commands)
    parser.epilog = f"{commands.overview()}\n\n`metta-sweep COMMAND --help` explains each."
    return parser
