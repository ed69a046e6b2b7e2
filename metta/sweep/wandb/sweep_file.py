"""W&B's sweep configuration, read as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from metta.common.errors import UserError, nearest

_KEYS = ("program", "method", "metric", "parameters", "command", "run_cap", "name", "description", "project", "entity")
_DEFAULT_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]
_METHODS = ("bayes", "random")


def is_wandb_sweep(data: Mapping[str, Any]) -> bool:
    """Whether a sweep file is W&B's: there `method` is required, and ours has none."""
    return "method" in data


def read_wandb_sweep(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields for `metta.sweep.program.command_sweep` out of W&B's sweep configuration.

    Distributions keep their meaning; Protein searches where W&B says `bayes`, and `random` stays random.

    Args:
        data: the configuration.
        where: its file, for error messages.

    Raises:
        UserError: it holds what is not supported; the message names it and what is.
    """
    for key in data:
        if key not in _KEYS:
            raise UserError(f"{where}: {key!r} of W&B is not supported; {nearest(key, _KEYS)}")
    method = data["method"]
    if method not in _METHODS:
        raise UserError(f"{where}: method {method!r} is not supported; {nearest(str(method), _METHODS)}")
    if "parameters" not in data:
        raise UserError(f"{where}: 'parameters' is missing")
    command = data.get("command", _DEFAULT_COMMAND)
    if not isinstance(command, list | str):
        raise UserError(f"{where}: 'command' is {command!r}, not a list of words")
    if "program" not in data and "${program}" in command:
        raise UserError(f"{where}: 'program' is missing: the training script")
    fields: dict[str, Any] = {
        **_metric(data.get("metric"), where),
        "parameters": _parameters(data["parameters"], f"{where}: parameters"),
        "command": command,
        "metrics": "wandb",
        "style": "wandb",
        "names": [str(name) for name in data["parameters"]],
        "random_search": method == "random",
        "environment": {
            f"WANDB_{key.upper()}": str(data[key]) for key in ("project", "entity") if data.get(key) is not None
        },
    }
    renamed = {"program": "program", "run_cap": "num_trials", "name": "name"}
    return fields | {ours: data[key] for key, ours in renamed.items() if key in data}


def _metric(metric: Any, where: str) -> dict[str, Any]:
    if not isinstance(metric, Mapping) or "name" not in metric:
        raise UserError(f"{where}: 'metric' needs a name and a goal (minimize or maximize)")
    for key in metric:
        if key not in ("name", "goal"):
            raise UserError(f"{where}: metric.{key} of W&B is not supported; {nearest(str(key), ('name', 'goal'))}")
    return {"metric": metric["name"], "goal": metric.get("goal", "minimize")}


def _parameters(parameters: Any, where: str) -> dict[str, Any]:
    if not isinstance(parameters, Mapping) or not parameters:
        raise UserError(f"{where}: expected a parameter by each name")
    return {str(name): _parameter(value, f"{where}.{name}") for name, value in parameters.items()}


def _parameter(value: Any, where: str) -> Any:
    """A `ParameterConfig` as a dict, a fixed value, or nested parameters."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected value, values, or min and max, not {value!r}")
    if "parameters" in value:
        _only(value, ("parameters",), where)
        return _parameters(value["parameters"], where)
    distribution = value["distribution"] if "distribution" in value else _usual_distribution(value, where)
    if not isinstance(distribution, str) or distribution not in _DISTRIBUTIONS:
        raise UserError(
            f"{where}: the distribution {distribution!r} of W&B is not supported; "
            f"{nearest(str(distribution), _DISTRIBUTIONS)}"
        )
    keys, convert = _DISTRIBUTIONS[distribution]
    _only(value, ("distribution", *keys), where)
    for key in keys:
        if key not in value and key != "q":
            raise UserError(f"{where}: {distribution} needs {key!r}")
        if key in ("min", "max") and (isinstance(value[key], bool) or not isinstance(value[key], int | float)):
            raise UserError(f"{where}.{key}: {value[key]!r} is not a number")
    if value.get("q", 1) != 1:
        raise UserError(f"{where}: q={value['q']!r} of W&B is not supported; q: 1 (whole numbers) is")
    try:
        return convert(value)
    except OverflowError:
        raise UserError(f"{where}: {distribution} takes exponents of e, and {value} are too large") from None


def _only(value: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in keys:
            raise UserError(f"{where}: {key!r} of W&B is not supported here; {nearest(str(key), keys)}")


def _usual_distribution(value: Mapping[str, Any], where: str) -> str:
    """The distribution that W&B takes where none is given."""
    if "value" in value:
        return "constant"
    if "values" in value:
        return "categorical"
    if "min" in value and "max" in value:
        whole = all(isinstance(value[key], int) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise UserError(f"{where}: expected value, values, or min and max")


def _range(distribution: str, scale: Callable[[float], float] = lambda x: x, swap: bool = False) -> Any:
    def convert(value: Mapping[str, Any]) -> dict[str, Any]:
        low, high = scale(value["min"]), scale(value["max"])
        return {"min": high if swap else low, "max": low if swap else high, "distribution": distribution}

    return convert


def _exp_minus(x: float) -> float:
    return math.exp(-x)


_RANGE = ("min", "max")
_STEPS = ("min", "max", "q")
_DISTRIBUTIONS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any]]] = {
    "constant": (("value",), lambda value: value["value"]),
    "categorical": (("values",), lambda value: {"choices": value["values"], "distribution": "categorical"}),
    "uniform": (_RANGE, _range("uniform")),
    "int_uniform": (_RANGE, _range("int_uniform")),
    "q_uniform": (_STEPS, _range("int_uniform")),
    "log_uniform": (_RANGE, _range("log_normal", math.exp)),
    "log_uniform_values": (_RANGE, _range("log_normal")),
    "inv_log_uniform": (_RANGE, _range("log_normal", _exp_minus, swap=True)),
    "inv_log_uniform_values": (_RANGE, _range("log_normal")),
    "q_log_uniform_values": (_STEPS, _range("int_log_normal")),
}
"""W&B's distributions: the keys of each, and what it is here. Without `q`, W&B takes 1."""
