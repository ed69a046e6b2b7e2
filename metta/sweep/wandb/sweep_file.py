"""Reads W&B's sweep configuration unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from metta.common.errors import UserError, nearest
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.wandb.early_terminate import read_early_terminate
from metta.sweep.wandb.parameters import ParameterReader, apart

_METHODS = ("bayes", "random", "grid")
_LAUNCH = ("job", "image_uri", "queue", "resource", "resource_args", "launch", "template_variables", "scheduler")
_PASSED_OVER = ("description", "controller", "kind", "apiVersion")
_KEYS = (
    *("program", "method", "metric", "parameters", "command", "run_cap", "name", "project", "entity"),
    *("early_terminate", *_PASSED_OVER, *_LAUNCH),
)
_PROGRAM = ("environment", "take", "window", "total", "cwd", "style", "names", "renamed")
_OURS = {*_PROGRAM, *SweepConfig.model_fields, *ProteinConfig.model_fields} - {*_KEYS}
"""Keys that exist in our own form but not in W&B's."""
_OUR_PARAMETERS = ("choices", "step")
_OUR_METRICS = ("take", "window")
_DEFAULT_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]
_IMPUTED = ("impute", "impute_while_running")


@dataclass(frozen=True)
class WandbSweep:
    """A sweep file of W&B, converted.

    Attributes:
        fields: for `metta.sweep.program.command_sweep`.
        remarks: remarks for the user about how it was read.
    """

    fields: dict[str, Any]
    remarks: list[str]


def is_wandb_sweep(data: Mapping[str, Any]) -> bool:
    """Whether a sweep file is W&B's: it has a `method`, and no key that only our own form has."""
    if "method" not in data or data.keys() & _OURS:
        return False
    if "metrics" in data and not isinstance(data["metrics"], list):  # in W&B's form it is a list of scores
        return False
    metric, parameters = data.get("metric"), data.get("parameters")
    if isinstance(metric, str) or (isinstance(metric, Mapping) and any(key in metric for key in _OUR_METRICS)):
        return False
    described = parameters.values() if isinstance(parameters, Mapping) else ()
    return not any(isinstance(each, Mapping) and any(key in each for key in _OUR_PARAMETERS) for each in described)


def read_wandb_sweep(data: Mapping[str, Any], where: str, program: str | None = None) -> WandbSweep:
    """Read W&B's sweep configuration.

    Protein replaces the method `bayes`; `random` and `grid` are kept.

    Args:
        data: the configuration.
        where: its file, for error messages.
        program: the training script; replaces the file's.

    Raises:
        UserError: it contains an unsupported setting; the message says what to write instead.
    """
    remarks = _unread_keys(data, where)
    method = _method(data, where)
    if "parameters" not in data:
        raise UserError(
            f"{where}: 'parameters' is missing: what to search, as in parameters: {{lr: {{min: 0, max: 1}}}}"
        )
    reader = ParameterReader(grid=method == "grid", remarks=remarks)
    parameters, renamed = apart(reader.read(data["parameters"], f"{where}: parameters"))
    fields: dict[str, Any] = {
        **_metric(data.get("metric"), where, remarks),
        "method": method,
        "parameters": parameters,
        "command": _command(data, where, program),
        "metrics": "wandb",
        "style": "wandb",
        "names": [str(name) for name in data["parameters"]],
        "renamed": renamed,
        "environment": {
            f"WANDB_{key.upper()}": str(data[key]) for key in ("project", "entity") if data.get(key) is not None
        },
        **read_early_terminate(data.get("early_terminate"), f"{where}: early_terminate", remarks),
    }
    given = {"program": "program", "run_cap": "num_trials", "name": "name"}
    fields |= {ours: data[key] for key, ours in given.items() if data.get(key) is not None}
    return WandbSweep(fields | ({} if program is None else {"program": program}), remarks)


def _unread_keys(data: Mapping[str, Any], where: str) -> list[str]:
    """Remarks about keys that have no effect here.

    Raises:
        UserError: one is a misspelt key of W&B's.
    """
    remarks = []
    launch = [key for key in _LAUNCH if key in data]
    if launch:
        remarks.append(f"{where}: {', '.join(launch)}: ignored: for W&B Launch and its schedulers, but trials run here")
    for key in data:
        if key in _KEYS:
            continue
        if key == "metrics":
            raise UserError(
                f"{where}: a sweep has one score, not several 'metrics'; write metric: {{name: ..., goal: ...}}"
            )
        if get_close_matches(str(key), _KEYS, n=1, cutoff=0.75):
            raise UserError(f"{where}: {key!r} is not a key of W&B; {nearest(str(key), _KEYS)}")
        remarks.append(f"{where}: {key!r} is not a key of W&B's sweep files, so it is ignored")
    return remarks


def _method(data: Mapping[str, Any], where: str) -> str:
    method = data["method"]
    if method == "custom" and "scheduler" in data:
        return "bayes"
    if not isinstance(method, str) or method not in _METHODS:
        raise UserError(f"{where}: method {method!r} is not supported; {nearest(str(method), _METHODS)}")
    return method


def _command(data: Mapping[str, Any], where: str, program: str | None) -> list[Any] | str:
    command = data.get("command") or _DEFAULT_COMMAND
    if not isinstance(command, list | str):
        raise UserError(f"{where}: 'command' is {command!r}, not a list of words")
    if program is None and data.get("program") is None and "${program}" in command:
        raise UserError(f"{where}: 'program' is missing: the training script; add program: train.py, or --program FILE")
    return command


def _metric(metric: Any, where: str, remarks: list[str]) -> dict[str, Any]:
    if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
        raise UserError(
            f"{where}: 'metric' needs a name and a goal; add metric: {{name: loss, goal: minimize}}, or "
            "--metric loss:minimize"
        )
    for key in metric:
        if key in _IMPUTED:
            remarks.append(
                f"{where}: metric.{key}: ignored, because Protein learns where runs fail instead of imputing a score"
            )
        elif key not in ("name", "goal", "target"):
            raise UserError(f"{where}: metric.{key} is not W&B's; {nearest(str(key), ('name', 'goal', 'target'))}")
    goal, target = metric.get("goal", "minimize"), metric.get("target")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{where}: metric.goal: {goal!r}; {nearest(str(goal), ('minimize', 'maximize'))}")
    return {"metric": metric["name"], "goal": goal} | ({} if target is None else {"target": target})
