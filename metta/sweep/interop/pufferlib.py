"""Read the search spaces of PufferLib's sweeps."""

from __future__ import annotations

import ast
import configparser
import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from metta.common.config import ConfigError, reasons
from metta.common.errors import UserError, nearest
from metta.sweep.interop.ranges import adjusted_range
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

_IGNORED = {
    "downsample": "every result that a trial reports is a point of its learning curve",
    "early_stop_quantile": "give the sweep early_stopping='protein' or 'median'",
    "gpus": "give the sweep num_workers",
    "match_enemy_hidden_size": "of the evaluation",
    "match_enemy_model_path": "of the evaluation",
    "match_enemy_num_layers": "of the evaluation",
    "match_num_games": "of the evaluation",
    "max_cost": "give the sweep max_cost",
    "max_runs": "give the sweep num_trials",
    "max_score": "scores have no limits here",
    "metric_distribution": "scores are ranked where curves are learnt from",
    "name": "give the sweep a name",
    "prune_pareto": "within max_cost, trials cost what the rest of the budget allows",
    "use_gpu": "the optimiser takes milliseconds without",
}
"""Settings of PufferLib that are not part of the search space, and their replacements."""
_READ = ("method", "metric", "goal", "max_suggestion_cost", "sweep_only")
_METHODS: dict[str, Literal["bayes", "random"]] = {"protein": "bayes", "bayes": "bayes", "random": "random"}
_OF_WANDB = {"log_uniform_values": "log_normal"}
_WHOLE = {"uniform": "int_uniform", "log_normal": "int_log_normal"}

_DEFAULT = "; PufferLib has it in its default.ini: read that file before this one"

log = logging.getLogger(__name__)


def read_pufferlib(*paths: Path | str, whole: Collection[str] = ()) -> ProteinConfig:
    """Read the ``[sweep]`` sections of PufferLib's ini files, later files over earlier ones. See `from_pufferlib`.

    The files of PufferLib 2 to 5 can be read: its ``default.ini``, and that of an environment. ``[base]`` may have the
    `max_suggestion_cost`.

    Raises:
        UserError: a file cannot be read, or a space cannot be searched.
    """
    sweep: dict[str, Any] = {}
    for path in paths:
        _read_file(path, sweep)
    if not sweep:
        raise UserError(f"{', '.join(map(str, paths))}: there is no [sweep] section")
    return from_pufferlib(sweep, whole)


def _read_file(path: Path | str, sweep: dict[str, Any]) -> None:
    """Merge the sections of a file into the nested mapping of earlier files. A section replaces a plain value."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8-sig") as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as an ini file: {error}") from None
    if parser.has_section("base"):
        sweep |= {
            name: _value(text) for name, text in parser["base"].items() if name in ("max_suggestion_cost", "max_cost")
        }
    for section in sorted(parser.sections(), key=lambda name: name.count(".")):
        first, *groups = section.split(".")
        if first != "sweep":
            continue
        node = sweep
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {}
            node = node[group]
        node |= {name: _value(text) for name, text in parser[section].items()}


def from_pufferlib(sweep: Mapping[str, Any], whole: Collection[str] = ()) -> ProteinConfig:
    """Convert a sweep configuration of PufferLib: its `sweep` mapping, with spaces nested in it.

    A `scale` there is half the width of a step on a range of 2, and here a share of the range, so it is halved; "auto"
    stays "auto", and "time" is a factor of two in either direction. Without a `mean`, the middle is the centre; a mean
    that is outside because of rounding is set to the bound. `metric` may be a mapping with `name` and `goal`. Spaces in
    W&B's form, under `parameters`, are read as well. The log names ignored settings.

    Args:
        sweep: as PufferLib reads it from its ini files.
        whole: dotted paths of parameters that take whole numbers; PufferLib rounds them in the training code.

    Raises:
        UserError: a setting that Protein does not support; the message names it.
    """
    method = _METHODS.get(str(sweep.get("method", "Protein")).lower())
    if method is None:
        raise UserError(
            f"sweep.method: {sweep['method']!r} is not supported here; the same space is searched with method = Protein"
        )
    only = [name.strip() for name in str(sweep.get("sweep_only", "")).split(",") if name.strip()]
    spaces: dict[str, ParameterConfig] = {}
    ignored = []
    for name, value in sweep.items():
        if name == "metric":
            continue
        if isinstance(value, Mapping):
            spaces |= _spaces(value, name, set(whole), only)
        elif name in _IGNORED:
            ignored.append(f"{name} ({_IGNORED[name]})")
        elif name not in _READ:
            raise UserError(f"sweep.{name}: unknown; {nearest(name, [*_IGNORED, *_READ])}")
    if ignored:
        log.warning("ignored settings of [sweep]: %s", "; ".join(ignored))
    if unknown := set(whole) - spaces.keys():
        raise UserError(f"whole: no parameter {min(unknown)!r}; {nearest(min(unknown), spaces)}")
    metric, goal = _metric(sweep)
    try:
        settings = ProteinSettings(max_suggestion_cost=sweep.get("max_suggestion_cost"))
        return ProteinConfig(metric=metric, goal=goal, parameters=spaces, settings=settings, method=method)
    except ConfigError as error:
        raise UserError(f"sweep: {error}") from None


def _metric(sweep: Mapping[str, Any]) -> tuple[Any, Any]:
    """Name and goal of the metric, from its own section or plain keys."""
    plain = {"name": sweep.get("metric"), "goal": sweep.get("goal")}
    section = plain["name"]
    named = {**plain, "name": None, **section} if isinstance(section, Mapping) else plain
    metric, goal = named["name"], named["goal"]
    if metric is None:
        raise UserError(f"sweep.metric is missing{_DEFAULT}")
    if goal is None:
        raise UserError(f"sweep.goal is missing{_DEFAULT}")
    return metric, goal


def _spaces(node: Mapping[str, Any], path: str, whole: set[str], only: list[str]) -> dict[str, ParameterConfig]:
    if not _is_space(node):
        below: dict[str, ParameterConfig] = {}
        for name, value in node.items():
            if not isinstance(value, Mapping):
                raise UserError(f"sweep.{path}.{name}: {value!r} is not a search space")
            below |= _spaces(value, f"{path}.{name}", whole, only)
        return below
    if only and not any(name in path.rpartition(".")[2] for name in only):
        return {}
    path = path.removeprefix("parameters.").replace(".parameters.", ".")
    if "values" in node:
        return {path: _choices(node["values"], path)}
    if "distribution" not in node:
        raise UserError(
            f"sweep.{path}: its distribution is missing, so PufferLib does not search it either; add one, such "
            "as distribution = uniform"
        )
    try:
        fields = adjusted_range(path, {name: value for name, value in node.items() if name != "scale"})
        fields["distribution"] = _OF_WANDB.get(fields["distribution"], fields["distribution"])
        fields["scale"] = _scale(node.get("scale", "auto"), fields["min"], fields["max"], path)
        if path in whole:
            fields["distribution"] = _WHOLE.get(fields["distribution"], fields["distribution"])
        return {path: ParameterConfig.model_validate(fields)}
    except KeyError as error:
        raise UserError(f"sweep.{path}: {error} is missing") from None
    except ValidationError as error:
        raise UserError(f"sweep.{path}: {reasons(error.errors(include_url=False))}") from None
    except (TypeError, ValueError):
        raise UserError(f"sweep.{path}: {dict(node)} is not a range") from None


def _is_space(node: Mapping[str, Any]) -> bool:
    return "distribution" in node or "values" in node or ("min" in node and "max" in node)


def _choices(values: Any, path: str) -> ParameterConfig:
    try:
        return ParameterConfig.model_validate({"choices": values, "distribution": "categorical"})
    except ValidationError as error:
        raise UserError(f"sweep.{path}: {reasons(error.errors(include_url=False))}") from None


def _scale(scale: Any, low: float, high: float, path: str) -> Any:
    if scale == "auto":
        return scale
    if scale == "time" and low <= 0:
        raise UserError(f"sweep.{path}: scale = time needs min above 0, not {low}")
    return min(1.0, (1.0 / math.log2(high / low) if scale == "time" else float(scale)) / 2.0)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
