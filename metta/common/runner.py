"""The runner behind ``tools/run.py`` and ``metta-run``: from a command line to an exit status."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from metta.common.command_line import split_pairs
from metta.common.describe import describe_paths, describe_target, dump_yaml
from metta.common.distribution import extra_with, install_command, runner, version
from metta.common.entry_point import EXAMPLE, EntryPoint, load_target, origin, parameters
from metta.common.errors import UserError
from metta.common.logging import quiet_terminal
from metta.common.terminal import discard_output, say


def usage() -> str:
    run = " ".join(runner())
    return f"""Run a Tool.

  {run} MODULE.FUNCTION [--args NAME=VALUE ...] [--overrides PATH=VALUE ...] [--dry-run] [--help]

MODULE.FUNCTION names a function that returns a Tool, or a Tool itself.

  --args NAME=VALUE ...       arguments of the function
  --overrides PATH=VALUE ...  fields of the Tool, by dotted path
  --dry-run                   print the resolved configuration as YAML, and stop
  --version                   print the version, and stop
  --help [PATH]               after MODULE.FUNCTION: list its arguments and the Tool's paths, or those below PATH

Values are YAML: 1e-4, true, null, text, [1, 2], {{a: 1}}.

Example:
  {run} {EXAMPLE} --args sweep_name=my_arena_sweep num_trials=20"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\nsee {' '.join(runner())} --help")


def run_program() -> NoReturn:
    """``metta-run`` and ``python -m metta``: run the command line of this process, and exit with its status."""
    # Imported modules are never freed. Without this, Python would search them for garbage repeatedly and at exit.
    gc.set_threshold(50_000)
    if str(Path.cwd()) not in sys.path:  # an installed program does not see the modules of the current folder
        sys.path.insert(0, str(Path.cwd()))
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    gc.freeze()
    sys.exit(status)


def main(argv: Sequence[str]) -> int:
    """Run a command line and return the exit status: the Tool's own, 2 for a user's error, 130 for Ctrl-C."""
    try:
        return _run(argv)
    except UserError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if (message := _missing_package(error)) is None:
            raise
        return _fail(message)
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str]) -> int:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("path", nargs="?")
    parser.add_argument("--args", nargs="*", action="extend", default=[])
    parser.add_argument("--overrides", nargs="*", action="extend", default=[])
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("-h", "--help", nargs="?", const="")
    parser.add_argument("--version", action="version", version=version())
    options = parser.parse_args(argv)
    if options.path is None and options.help:
        options.path, options.help = options.help, ""
    if options.path is None:
        if options.help is None:
            raise UserError(f"MODULE.FUNCTION is missing; for example {EXAMPLE}\nsee {' '.join(runner())} --help")
        return _print(usage())
    quiet_terminal()
    entry_point = EntryPoint(
        path=options.path,
        args=split_pairs(options.args, "--args"),
        overrides=split_pairs(options.overrides, "--overrides"),
    )
    if options.help is not None:
        return _help(entry_point, options.help)
    tool = entry_point.build()
    return _print(dump_yaml(tool)) if options.dry_run else tool.invoke()


def _help(entry_point: EntryPoint, part: str) -> int:
    if part:
        return _print(describe_paths(entry_point.build(), part))
    target = load_target(entry_point.path)
    needed = [
        name for name, parameter in parameters(target).items() if parameter.required and name not in entry_point.args
    ]
    if needed:
        example = " ".join(f"{name}=..." for name in needed)
        paths = f"To list the Tool's paths too, give the required arguments: --args {example} --help"
    else:
        paths = describe_paths(entry_point.build())
    return _print(f"{describe_target(entry_point.path, target)}\n\n{paths}")


def _print(text: str) -> int:
    try:
        say(text.rstrip())
        sys.stdout.flush()
    except BrokenPipeError:  # The reader, such as `head`, has ended; Python's own flush at exit must not fail.
        discard_output()
    return 0


def _fail(message: str) -> int:
    say(f"error: {message}", sys.stderr)
    return 2


def _missing_package(error: ModuleNotFoundError) -> str | None:
    """A message about the missing package and how to install it; None if it is installed but lacks a module."""
    package = (error.name or "").split(".")[0]
    if not package or importlib.util.find_spec(package):
        return None
    message = f"{origin(error)} needs the package {package!r}, which is not installed"
    extra = extra_with(package)
    return f"{message}\ninstall it with: {install_command(extra)}" if extra else message
