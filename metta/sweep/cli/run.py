"""The command that sweeps a program."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from metta.common.command_line import split_pairs
from metta.sweep.cli.command import Commands

if TYPE_CHECKING:
    from metta.sweep.program.command_sweep import CommandSweep

TITLE = "sweep any program"


def register(commands: Commands) -> None:
    parser = commands.add(run, "run")
    parser.add_argument("file", help="YAML: the program, its metric and its parameters; W&B's form will do")
    parser.add_argument("--name", help="the sweep's name; the same name goes on with it (default: the file's)")
    parser.add_argument("--num-trials", metavar="N", help="in place of the file's; more than before extend the sweep")
    parser.add_argument(
        "--overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="anything else, as in: executor=local num_workers=4 sweep.trial_timeout=60",
    )


def run(options: argparse.Namespace) -> int:
    """Sweep a program in any language, as described by a YAML file.

    The program gets its hyperparameters by arguments, variables or a file, and prints its metrics as JSON, writes them
    to a file or logs them to W&B. A sweep file of W&B is read as it is.
    """
    from metta.common.entry_point import EntryPoint

    chosen = {"name": options.name, "num_trials": options.num_trials}
    entry_point = EntryPoint(
        path="metta.sweep.program.command_sweep.from_file",
        args={"file": options.file} | {name: text for name, text in chosen.items() if text is not None},
        overrides=split_pairs(options.overrides, "--overrides") | {"store": options.store},
    )
    sys.path.insert(0, str(Path.cwd()))
    sweep = cast("CommandSweep", entry_point.build())
    if not options.json:
        return sweep.invoke()
    from rich.console import Console

    from metta.sweep.report.json_data import sweep_as_json

    result = sweep.run(Console(stderr=True))
    print(json.dumps(sweep_as_json(result.state), indent=2, allow_nan=False))
    return 0
