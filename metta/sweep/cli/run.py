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
    parser.add_argument("file", help="a sweep's file in YAML, ours or W&B's; or a script or command, with --search")
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="NAME=RANGE",
        help="of a program without a file: lr=1e-5..1e-1:log, batch=16..512:pow2, layers=1..8, opt=adam,sgd, epochs=10",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME[:GOAL]",
        help="the score: loss:min, accuracy:max; overrides the file's, whose goal stays if none is given",
    )
    parser.add_argument("--name", help="name of the sweep; the same name resumes it (default: the file's)")
    parser.add_argument(
        "--num-trials", "--trials", metavar="N", help="overrides the file's; a larger number extends the sweep"
    )
    parser.add_argument("--program", metavar="FILE", help="the training script; overrides the file's")
    parser.add_argument(
        "--early-stopping",
        metavar="RULE",
        help="overrides the file's, and W&B's early_terminate: protein, asha, median, hyperband or off",
    )
    parser.add_argument(
        "--overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="any other setting, such as: executor=local num_workers=4 sweep.trial_timeout=60",
    )


def run(options: argparse.Namespace) -> int:
    """Sweep a program in any language, as described by a YAML file or by options.

    The program receives its hyperparameters as arguments, variables or a file, and prints its metrics, or writes them
    to files of TensorBoard, CSV, NumPy, JSON or W&B. A sweep file of W&B works unchanged.

    Without a file: metta-sweep run train.py --search lr=1e-5..1e-1:log --metric loss:min --trials 30. The
    equivalent file is written to the current folder.
    """
    from metta.common.entry_point import EntryPoint

    _write_file(options)

    chosen = {name: getattr(options, name) for name in ("name", "num_trials", "program", "metric", "early_stopping")}
    entry_point = EntryPoint(
        path="metta.sweep.program.command_sweep.from_file",
        args={"file": options.file} | {name: text for name, text in chosen.items() if text is not None},
        overrides=split_pairs(options.overrides, "--overrides") | {"store": options.store},
    )
    sys.path.insert(0, str(Path.cwd()))
    sweep = cast("CommandSweep", entry_point.build())
    if not options.json:
        return sweep.invoke()
    from metta.common.console import Console
    from metta.sweep.abstract_sweep import exit_status
    from metta.sweep.report.json_data import sweep_as_json

    result = sweep.run(Console(stderr=True))
    print(json.dumps(sweep_as_json(result.state), indent=2, allow_nan=False))
    return exit_status(result.state)


def _write_file(options: argparse.Namespace) -> None:
    """Where a program was given in place of a sweep's file, write the file and take it."""
    from metta.common.errors import UserError
    from metta.sweep.cli.command import notice
    from metta.sweep.cli.search import is_sweep_file, sweep_fields, write_sweep_file

    if is_sweep_file(options.file):
        if options.search:
            raise UserError(f"--search goes with a program; {options.file} has its own parameters")
        return
    if options.program:
        raise UserError(f"--program goes with a sweep's file, and {options.file} is a program itself")
    fields = sweep_fields(options.file, options.search, options.metric, options.num_trials)
    if options.early_stopping is not None:
        fields["early_stopping"] = options.early_stopping
    overrides = split_pairs(options.overrides, "--overrides")
    once = {name: overrides.pop(name) for name in ("store", "on_change") if name in overrides}
    path = write_sweep_file(fields, overrides, options.file, options.name, options.store)
    notice(f"the sweep is written to {path}. To resume it, also after an edit: metta-sweep run {path}")
    options.file = str(path)
    options.overrides = [f"{name}={text}" for name, text in once.items()]
    options.name = options.num_trials = options.metric = options.early_stopping = None
