"""Read the search spaces of PufferLib's sweeps."""

from __future__ import annotations

import ast
import configparser
import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metta.common.config import reasons
from metta.common.errors import UserError, nearest
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

_PASSED_OVER = {
    "downsample",
    "early_stop_quantile",
    "gpus",
    "match_enemy_hidden_size",
    "match_enemy_model_path",
    "match_enemy_num_layers",
    "match_num_games",
    "max_runs",
    "metric_distribution",
    "prune_pareto",
    "use_gpu",
}
_WHOLE = {"uniform": "int_uniform", "log_normal": "int_log_normal"}

log = logging.getLogger(__name__)


def read_pufferlib(*paths: Path | str, whole: Collection[str] = ()) -> ProteinConfig:
    """Read the ``[sweep]`` sections of PufferLib's ini files, later files over earlier ones. See `from_pufferlib`.

    Raises:
        UserError: a file that cannot be read, or a space that cannot be searched.
    """
    parser = configparser.ConfigParser(interpolation=None)
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                parser.read_file(file)
        except (OSError, configparser.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as an ini file: {error}") from None
    sweep: dict[str, Any] = {}
    for section in parser.sections():
        first, *groups = section.split(".")
        if first != "sweep":
            continue
        node = sweep
        for group in groups:
            node = node.setdefault(group, {})
        node |= {name: _value(text) for name, text in parser[section].items()}
    if not sweep:
        raise UserError(f"{', '.join(map(str, paths))}: there is no [sweep] section")
    return from_pufferlib(sweep, whole)


def from_pufferlib(sweep: Mapping[str, Any], whole: Collection[str] = ()) -> ProteinConfig:
    """Convert a sweep configuration of PufferLib: its `sweep` mapping, with spaces nested in it.

    A `scale` there is half the width of a step on a range of 2, and here a share of the range, so it is halved; "auto"
    stays "auto", and "time" is a factor of two in either direction. Where `mean` is left out, the middle is the centre.

    Args:
        sweep: as PufferLib reads it from its ini files.
        whole: dotted paths of parameters that take whole numbers; PufferLib rounds them in the training code.

    Raises:
        UserError: what Protein cannot do, by name.
    """
    method = str(sweep.get("method", "Protein"))
    if method.lower() != "protein":
        raise UserError(f"sweep.method: {method!r} is not there; Protein is")
    only = [name.strip() for name in str(sweep.get("sweep_only", "")).split(",") if name.strip()]
    spaces: dict[str, ParameterConfig] = {}
    for name, value in sweep.items():
        if isinstance(value, Mapping):
            spaces |= _spaces(value, name, set(whole), only)
        elif name in _PASSED_OVER:
            log.info("sweep.%s belongs to PufferLib's trainer or optimiser, and is passed over", name)
        elif name not in ("method", "metric", "goal", "max_suggestion_cost", "sweep_only"):
            raise UserError(f"sweep.{name}: unknown; {nearest(name, _PASSED_OVER)}")
    if unknown := set(whole) - spaces.keys():
        raise UserError(f"whole: no parameter {min(unknown)!r}; {nearest(min(unknown), spaces)}")
    for required in ("metric", "goal"):
        if required not in sweep:
            raise UserError(f"sweep.{required} is missing")
    try:
        settings = ProteinSettings(max_suggestion_cost=sweep.get("max_suggestion_cost"))
        return ProteinConfig(metric=sweep["metric"], goal=sweep["goal"], parameters=spaces, settings=settings)
    except ValidationError as error:
        raise UserError(f"sweep: {reasons(error.errors(include_url=False))}") from None


def _spaces(node: Mapping[str, Any], path: str, whole: set[str], only: list[str]) -> dict[str, ParameterConfig]:
    if "distribution" not in node:
        below: dict[str, ParameterConfig] = {}
        for name, value in node.items():
            if not isinstance(value, Mapping):
                raise UserError(f"sweep.{path}.{name}: {value!r} is not a search space; it lacks a distribution")
            below |= _spaces(value, f"{path}.{name}", whole, only)
        return below
    if only and not any(name in path.rpartition(".")[2] for name in only):
        return {}
    fields = {name: value for name, value in node.items() if name not in ("distribution", "scale")}
    distribution = node["distribution"]
    try:
        scale = _scale(node.get("scale", "auto"), fields["min"], fields["max"])
        if path in whole:
            distribution = _WHOLE.get(distribution, distribution)
        return {path: ParameterConfig.model_validate({**fields, "distribution": distribution, "scale": scale})}
    except KeyError as error:
        raise UserError(f"sweep.{path}: {error} is missing") from None
    except ValidationError as error:
        raise UserError(f"sweep.{path}: {reasons(error.errors(include_url=False))}") from None
    except (TypeError, ValueError):
        raise UserError(f"sweep.{path}: {dict(node)} is not a range") from None


def _scale(scale: Any, low: float, high: float) -> Any:
    if scale == "auto":
        return scale
    return min(1.0, (1.0 / math.log2(high / low) if scale == "time" else float(scale)) / 2.0)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
