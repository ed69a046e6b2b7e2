"""The command that writes a working example into a folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from metta.common.distribution import CLONE, is_clone, program, runner
from metta.common.errors import UserError
from metta.sweep.cli.command import Commands, say

TITLE = "begin"

TEMPLATES = Path(__file__).parents[2] / "templates"

KINDS = ("function", "program", "arena")


def register(commands: Commands) -> None:
    parser = commands.add(init, "init", store=False)
    parser.add_argument("kind", choices=KINDS, help="what is swept")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: the present folder")


def init(options: argparse.Namespace) -> None:
    """Write a commented, working example to begin with: a function, a program, or reinforcement learning on the arena.

    Existing files are never overwritten.
    """
    files = _files(options.kind)
    taken = [str(options.folder / name) for name in files if (options.folder / name).exists()]
    if taken:
        raise UserError(f"nothing was written, because these files exist: {', '.join(taken)}; choose another folder")
    for name, source in files.items():
        path = options.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    written = [str(options.folder / name) for name in files]
    there = "" if options.folder == Path() else f"cd {options.folder} && "
    command = there + " ".join(_command(options.kind))
    say(options, f"wrote {', '.join(written)}\nrun it with:\n  {command}", files=written, command=command)


def _files(kind: str) -> dict[str, Path]:
    """The files of a template: where each goes, relative to the folder, and where it comes from."""
    if kind == "arena":  # the experiments of the repository; a wheel has them among its templates
        folder = CLONE if is_clone() else TEMPLATES / "arena"
        return {f"experiments/{path.name}": path for path in sorted((folder / "experiments").glob("*.py"))}
    return {path.name: path for path in sorted((TEMPLATES / kind).iterdir()) if path.is_file()}


def _command(kind: str) -> list[str]:
    if kind == "function":
        return [*program("python"), "sweep.py"]
    if kind == "program":
        return [*program("metta-sweep"), "run", "sweep.yaml"]
    arguments = ["--args", "sweep_name=my_arena_sweep", "num_trials=20"]
    return [*runner(), "experiments.sweep_arena.sweep_optimizer", *arguments]
