"""The runner behind ``tools/run.py``: from a command line to an exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from metta.common.command_line import split_pairs
from metta.common.describe import describe_paths, describe_target, dump_yaml
from metta.common.entry_point import EXAMPLE, EntryPoint, load_target, origin, parameters
from metta.common.errors import UserError
from metta.common.logging import quiet_terminal

USAGE = f"""Run a Tool.

  uv run ./tools/run.py MODULE.FUNCTION [--args NAME=VALUE ...] [--overrides PATH=VALUE ...] [--dry-run] [--help]

MODULE.FUNCTION names a function that returns a Tool, or a Tool itself.

  --args NAME=VALUE ...       arguments of the function
  --overrides PATH=VALUE ...  fields of the Tool, by dotted path
  --dry-run                   print the resolved configuration as YAML, and stop
  --help [PATH]               after MODULE.FUNCTION: list its arguments and the Tool's paths, or those below PATH

Values are YAML: 1e-4, true, null, text, [1, 2], {{a: 1}}.

Example:
  uv run ./tools/run.py {EXAMPLE} --args sweep_name=my_arena_sweep num_trials=20"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\nsee ./tools/run.py --help")


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
    options = parser.parse_args(argv)
    if options.path is None and options.help:
        options.path, options.help = options.help, ""
    if options.path is None:
        if options.help is None:
            raise UserError(f"MODULE.FUNCTION is missing; for example {EXAMPLE}\nsee ./tools/run.py --help")
        return _print(USAGE)
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
        print(text.rstrip(), flush=True)
    except BrokenPipeError:  # The reader, such as `head`, has ended; Python's own flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _missing_package(error: ModuleNotFoundError) -> str | None:
    """Say which package is missing and how to install it; None if it is installed but lacks a module."""
    package = (error.name or "").split(".")[0]
    if not package or importlib.util.find_spec(package):
        return None
    message = f"{origin(error)} needs the package {package!r}, which is not installed"
    extra = _extra_with(package)
    return (
        f"{message}\ninstall it with: uv sync --extra {extra}   (or: pip install -e '.[{extra}]')" if extra else message
    )


def _extra_with(package: str) -> str | None:
    """The extra of this distribution that requires `package`."""
    try:
        requirements = importlib.metadata.requires("metta-sweep") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        match = re.match(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]", requirement)
        if match and match[1].replace("-", "_").lower() == package.lower():
            return match[2]
    return None
