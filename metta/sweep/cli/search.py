"""A sweep of a program without a file: converts the options of `metta-sweep run` to a sweep file."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from metta.common.command_line import read_value
from metta.common.entry_point import override_by_text
from metta.common.errors import UserError, nearest
from metta.common.files import write_whole
from metta.common.plain import shown
from metta.sweep.definition import differences, nothing_learnt
from metta.sweep.program.command_sweep import from_fields
from metta.sweep.program.existence import check_exists
from metta.sweep.program.metric_option import parse_metric
from metta.sweep.program.yaml_file import read_yaml
from metta.sweep.store import open_store
from metta.sweep.store.protocol import StoreError

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
_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_YAML = (".yaml", ".yml")
_BY_OPTIONS = ("sweep_name", "command", "parameters", "metric", "goal", "num_trials")
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
    if re.search(r"[\[({]", value) or (".." not in value and re.fullmatch(rf"{_NUMBER}[-:]{_NUMBER}", value)):
        raise UserError(
            f"--search {text!r}: a range is {name}=LOW..HIGH or {name}=LOW..HIGH:log, choices are {name}=A,B; "
            "anything else goes into a sweep's file"
        )
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


def write_sweep_file(
    fields: dict[str, Any], overrides: Mapping[str, str], program: str, name: str | None, store_url: str
) -> Path:
    """Write the sweep's file, with the overrides, into the current folder, if it describes a sweep that can run.

    A file that is there keeps what somebody added, if it says the same but for the number of trials and the overrides.
    One that says something else is replaced only while nothing was added to it and nothing was learnt by its sweep.

    Raises:
        UserError: there is another file of that name, or the sweep cannot run.
    """
    script = next((Path(word).stem for word in _words(program) if Path(word).suffix in _INTERPRETERS), "program")
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", script)
    path = Path(f"{name}.sweep.yaml")
    fields = {"name": name, **fields}
    old = read_yaml(path) if path.exists() else {}
    same = bool(old) and all(old.get(key) == value for key, value in fields.items() if key != "num_trials")
    base = old | fields if same else fields
    whole = base | _settings(base, overrides, program)
    sweep = from_fields(whole, program)
    definition = sweep.definition()
    check_exists(sweep.program)
    added = bool(old.keys() - whole.keys()) and not same
    changed = not same or differences(from_fields(base, program).definition(), definition)
    if old and (added or (changed and _has_learnt(store_url, name))):
        raise UserError(
            f"{path} describes another sweep. Run that one with: metta-sweep run {path}; or choose another --name"
        )
    if same and whole == base:
        text = re.sub(r"(?m)^num_trials:.*$", f"num_trials: {fields['num_trials']}", path.read_text())
    else:
        text = yaml.safe_dump(whole, sort_keys=False, width=120)
    write_whole(path, text)
    return path


def _settings(fields: Mapping[str, Any], overrides: Mapping[str, str], program: str) -> dict[str, Any]:
    """Overrides as a sweep's file has them: `sweep.protein.settings.x` is `settings: {x: ...}`."""
    sweep = from_fields(dict(fields), program)
    override_by_text(sweep, overrides)
    data = sweep.model_dump(mode="json", exclude_unset=True)
    settings: dict[str, Any] = {}
    for path in overrides:
        node, rest = data, sweep.moved.get(path, path)
        for home in ("program", "sweep", "protein"):
            if rest.startswith(f"{home}.") and home in node:
                node, rest = node[home], rest.removeprefix(f"{home}.")
        key = rest.partition(".")[0]
        if key in _BY_OPTIONS or rest in ("program", "sweep", "protein"):
            raise UserError(f"--overrides {path}: use the options of `metta-sweep run`, or a sweep's file")
        settings[key] = node[key]
    return settings


def _has_learnt(store_url: str, name: str) -> bool:
    """Whether the store has a sweep of that name that would lose anything."""
    try:
        with closing(open_store(store_url, create=False)) as store:
            return not nothing_learnt(store, name)
    except StoreError:
        return False


def _words(program: str) -> list[str]:
    try:
        return shlex.split(program)
    except ValueError as error:
        raise UserError(f"the command {shown(program)} cannot be read: {error}") from None


def _command(program: str) -> str:
    words = _words(program)
    if not words:
        raise UserError("which program? give a script or a command")
    interpreter = _INTERPRETERS.get(Path(words[0]).suffix)
    if interpreter is not None:
        found = interpreter if which(interpreter) or interpreter != "python" else shlex.quote(sys.executable)
        program = f"{found} {program}"
    return program if "${" in program else f"{program} ${{args}}"
