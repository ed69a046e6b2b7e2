"""A sweep of a program without a file: converts the options of `metta-sweep run` to a sweep file."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from metta.common.command_line import read_value
from metta.common.errors import UserError, nearest
from metta.common.files import write_whole
from metta.sweep.program.errors import ProgramNotFoundError
from metta.sweep.program.metric_option import parse_metric

_SCALES = {
    "": ("uniform", "int_uniform"),
    "log": ("log_normal", "int_log_normal"),
    "pow2": ("uniform_pow2", "uniform_pow2"),
    "logit": ("logit_normal", "logit_normal"),
    "int": ("int_uniform", "int_uniform"),
    "float": ("uniform", "uniform"),
}
"""Words after a range, with the distributions that they mean: of numbers, and of whole numbers."""
_INTERPRETERS = {".py": "python", ".sh": "sh", ".R": "Rscript", ".jl": "julia", ".js": "node", ".pl": "perl"}
_YAML = (".yaml", ".yml")
EXAMPLE = "--search lr=1e-5..1e-1:log --search batch=16..512:pow2 --search opt=adam,sgd"


def is_sweep_file(path: str) -> bool:
    """Whether a name is that of a sweep's file, not of a program."""
    return path.endswith(_YAML)


def parse_search(text: str) -> tuple[str, Any]:
    """The name and the range of one --search.

    Example:
        >>> parse_search("lr=1e-5..1e-1:log")
        ('lr', {'min': 1e-05, 'max': 0.1, 'distribution': 'log_normal'})
        >>> parse_search("opt=adam,sgd"), parse_search("epochs=10")
        (('opt', {'choices': ['adam', 'sgd']}), ('epochs', 10))

    Raises:
        UserError: it is not one of these.
    """
    name, equals, value = text.partition("=")
    name = name.lstrip("-")
    if not (name and equals and value):
        raise UserError(f"--search {text!r}: expected NAME=LOW..HIGH, NAME=A,B or NAME=VALUE, such as {EXAMPLE}")
    low, dots, rest = value.partition("..")
    if not dots:
        return name, {"choices": [read_value(each) for each in value.split(",")]} if "," in value else read_value(value)
    high, _, scale = rest.partition(":")
    bounds = [read_value(low), read_value(high)]
    for bound, written in zip(bounds, (low, high), strict=True):
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise UserError(f"--search {text!r}: {written!r} is not a number")
    if scale not in _SCALES:
        raise UserError(f"--search {text!r}: there is no scale {scale!r}; {nearest(scale, filter(None, _SCALES))}")
    whole = all(isinstance(bound, int) for bound in bounds)
    return name, {"min": bounds[0], "max": bounds[1], "distribution": _SCALES[scale][whole]}


def sweep_fields(program: str, searches: Sequence[str], metric: str | None, trials: str | None) -> dict[str, Any]:
    """The sweep that the options describe, as its file has it.

    Args:
        program: a script, or a command. With ``${...}`` in it, hyperparameters go where it says, else to its end.
    """
    if not searches:
        raise UserError(f"what is searched? add, for example: {EXAMPLE}")
    if metric is None:
        raise UserError("what is the score? add --metric NAME:min or --metric NAME:max")
    score = parse_metric(metric)
    if "goal" not in score:
        raise UserError(f"--metric {metric!r}: is more or less better? {metric}:max or {metric}:min")
    if trials is None:
        raise UserError("how many trials? add --trials N")
    parameters: dict[str, Any] = {}
    for text in searches:
        name, value = parse_search(text)
        if name in parameters:
            raise UserError(f"--search: {name} is given twice")
        parameters[name] = value
    number = read_value(trials)
    return {"command": _command(program), "metric": score, "num_trials": number, "parameters": parameters}


def write_sweep_file(fields: dict[str, Any], program: str, name: str | None) -> Path:
    """Write the sweep's file into the current folder. One that is there and says something else stays.

    Raises:
        UserError: there is another file of that name.
    """
    script = next((Path(word).stem for word in shlex.split(program) if Path(word).suffix in _INTERPRETERS), "program")
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", script)
    path = Path(f"{name}.sweep.yaml")
    text = yaml.safe_dump({"name": name, **fields}, sort_keys=False, width=120)
    if path.exists() and path.read_text() != text and _without_trials(path.read_text()) != _without_trials(text):
        raise UserError(
            f"{path} describes another sweep. Run that one with: metta-sweep run {path}; or choose another --name"
        )
    write_whole(path, text)
    return path


def _without_trials(text: str) -> str:
    return re.sub(r"(?m)^num_trials:.*$", "", text)


def _command(program: str) -> str:
    words = shlex.split(program)
    if not words:
        raise UserError("which program? give a script or a command")
    script = Path(words[0])
    interpreter = _INTERPRETERS.get(script.suffix)
    if interpreter is not None:
        if not script.is_file():
            folder = script.parent
            files = sorted(each.name for each in folder.iterdir() if each.is_file()) if folder.is_dir() else []
            raise ProgramNotFoundError(f"there is no file {script}; {nearest(script.name, files)}")
        found = interpreter if which(interpreter) or interpreter != "python" else shlex.quote(sys.executable)
        program = f"{found} {program}"
    return program if "${" in program else f"{program} ${{args}}"
