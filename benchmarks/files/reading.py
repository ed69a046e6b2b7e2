"""Reads one sweep file of W&B and classifies the outcome."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metta.common.errors import UserError
from metta.sweep.observations import hyperparameter_paths, value_at
from metta.sweep.program.call import Call
from metta.sweep.program.command_sweep import CommandSweep, from_file
from metta.sweep.program.yaml_file import read_yaml
from metta.sweep.protein import Protein

DRAWS = 20
_OPTIONS = {"num_trials": 30, "program": "train.py", "metric": "loss:minimize"}
"""The value to give if a message asks for the option."""


@dataclass(frozen=True)
class Reading:
    """The outcome of a file.

    Attributes:
        outcome: "read", "refused", "misread" or "error".
        detail: the options that messages asked for; the reason of the refusal; or the fault.
    """

    outcome: str
    detail: str = ""


def read(file: Path) -> Reading:
    """Read a file as `metta-sweep run` does, and check the values that its program would get."""
    options: dict[str, Any] = {}
    try:
        while True:
            try:
                sweep = from_file(str(file), **options)
                sweep.definition()
                break
            except UserError as error:
                asked = _asked_for(str(error))
                if asked is None or asked in options:
                    return Reading("refused", _reason(str(error), file))
                options[asked] = _OPTIONS[asked]
        wrong = misread(read_yaml(file)["parameters"], sweep)
    except Exception as error:
        return Reading("error", f"{type(error).__name__}: {error}")
    named = ", ".join(f"--{name.replace('_', '-')}" for name in options)
    return Reading("misread", wrong) if wrong else Reading("read", named)


def _asked_for(message: str) -> str | None:
    return next((name for name in _OPTIONS if f"--{name.replace('_', '-')} " in message), None)


def _reason(message: str, file: Path) -> str:
    """The message without the file and the values, so that reasons can be counted."""
    return re.sub(r"parameters\.[\w./-]+", "parameters.NAME", message.removeprefix(f"{file}: "))


def misread(parameters: Mapping[str, Any], sweep: CommandSweep) -> str:
    """A value that a program would get and that W&B's file does not allow; "" for none."""
    config = sweep.sweep.protein
    method = "grid" if config.method == "grid" else "random"
    protein = Protein(config.model_copy(update={"method": method}), seed=0)
    for number in range(min(DRAWS, sweep.definition().num_trials)):
        suggested, _ = protein.suggest()
        flat = {path: value_at(suggested, path) for path in hyperparameter_paths(config)}
        given = json.loads(Call(sweep.program, flat, 0, number, Path()).fill("${args_json}"))
        if given.keys() != {str(name) for name in parameters}:
            return f"names {sorted(given)}"
        for name, description in parameters.items():
            if not fits(description, given[str(name)]):
                return f"{name}={given[str(name)]!r}, for {description}"
    return ""


def fits(description: Mapping[str, Any], value: Any) -> bool:
    """Whether W&B's description of a parameter allows a value."""
    if "parameters" in description:
        below = description["parameters"]
        return value.keys() == below.keys() and all(fits(below[name], value[name]) for name in below)
    if "value" in description:
        return _same(description["value"], value)
    if "values" in description:
        return any(_same(choice, value) for choice in description["values"])
    low, high = _bounds(description)
    name = str(description.get("distribution", ""))
    q = description.get("q", 1) if name.startswith("q_") else 0
    if q:
        low, high = low - q / 2, high + q / 2
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = name == "int_uniform" or (not name and all(isinstance(description[end], int) for end in ("min", "max")))
    steps = value / q if q else 0.0
    return (
        low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high)
        and (isinstance(value, int) or not whole)
        and abs(steps - round(steps)) < 1e-6
    )


def _bounds(description: Mapping[str, Any]) -> tuple[float, float]:
    name = str(description.get("distribution", ""))
    if "beta" in name:
        return 0.0, 1.0
    if "normal" in name:
        return (0.0 if "log" in name else -math.inf), math.inf
    low, high = description["min"], description["max"]
    if name == "inv_log_uniform":
        return math.exp(-high), math.exp(-low)
    return (math.exp(low), math.exp(high)) if name in ("log_uniform", "q_log_uniform") else (low, high)


def _same(one: Any, other: Any) -> bool:
    return bool(json.loads(json.dumps(one, default=str)) == other)
