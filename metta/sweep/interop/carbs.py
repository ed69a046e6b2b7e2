"""Convert the search spaces of CARBS."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pydantic import ValidationError

from metta.common.config import reasons
from metta.common.errors import UserError
from metta.sweep.distributions import Distribution
from metta.sweep.protein_config import ParameterConfig

REACH = 2.0
"""If CARBS has no bound, ours is this many of its scales away from the search centre."""
SEARCH_RADIUS = 0.3
"""Width of the search around a good trial in CARBS, in its scales (its `initial_search_radius`)."""

log = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """The equivalent here of a CARBS space, and the scale on which its steps are equal."""

    distribution: Distribution
    whole: Distribution | None
    warp: Callable[[float, float], float]
    unwarp: Callable[[float, float], float]


_KINDS = {
    "LinearSpace": _Kind("uniform", "int_uniform", lambda value, base: value, lambda value, base: value),
    "LogSpace": _Kind("log_normal", "int_log_normal", math.log, lambda value, base: base**value),
    "LogitSpace": _Kind(
        "logit_normal",
        None,
        lambda value, base: math.log10(value / (1 - value)),
        lambda value, base: 1 / (1 + 10**-value),
    ),
}


def from_carbs(params: Iterable[Any]) -> dict[str, ParameterConfig]:
    """Convert CARBS's `Param`s to the `parameters` of a `ProteinConfig`.

    CARBS need not be installed: only the attributes `name`, `search_center` and `space` are used, and of the space
    the name of its class (`LinearSpace`, `LogSpace`, `LogitSpace`) and `min`, `max`, `scale`, `is_integer`, `base`.

    A `rounding_factor` of whole numbers becomes the `step` here: only multiples of it are suggested. For numbers that
    are not whole it is ignored, as in CARBS.

    CARBS can search without bounds. Protein needs bounds; a missing one is set two scales away from the search centre,
    and the log gives its value.

    Raises:
        UserError: Protein cannot search a space; the message names its parameter.

    Example:
        >>> from types import SimpleNamespace as Param
        >>> class LogSpace:
        ...     min, max, scale, is_integer, rounding_factor, base = 0.0, float("inf"), 0.5, False, 1, 10
        >>> from_carbs([Param(name="lr", space=LogSpace(), search_center=1e-3)])["lr"].max
        0.01
    """
    converted: dict[str, ParameterConfig] = {}
    for param in params:
        if param.name in converted:
            raise UserError(f"{param.name}: given twice")
        converted[param.name] = _converted(param)
    if not converted:
        raise UserError("there are no parameters")
    return converted


def _converted(param: Any) -> ParameterConfig:
    name, space, centre = param.name, param.space, param.search_center
    names = [each.__name__ for each in type(space).__mro__]
    kind = next((_KINDS[each] for each in names if each in _KINDS), None)
    if kind is None:
        raise UserError(f"{name}: {names[0]} is not one of {', '.join(_KINDS)}")
    if space.is_integer and kind.whole is None:
        raise UserError(f"{name}: whole numbers have no logit scale")
    base = getattr(space, "base", 10)
    factor = getattr(space, "rounding_factor", 1) if space.is_integer else 1
    low, high, middle = _bounds(name, kind, space, centre, base)
    width = (kind.warp(high, base) - kind.warp(low, base)) / space.scale
    fields = {
        "min": low,
        "max": high,
        "distribution": kind.whole if space.is_integer and kind.whole else kind.distribution,
        "mean": middle,
        "step": None if factor == 1 else factor,
        "scale": min(1.0, SEARCH_RADIUS / width),
    }
    try:
        return ParameterConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{name}: {reasons(error.errors(include_url=False))}") from None


def _bounds(name: str, kind: _Kind, space: Any, centre: float, base: float) -> tuple[float, float, float]:
    """The bounds, and the centre."""
    try:
        middle = kind.warp(centre, base)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{name}: the search centre {centre} is outside a {type(space).__name__}") from None
    reach = REACH * space.scale
    low, high = float(space.min), float(space.max)
    for bound, free in ((low, -math.inf), (high, math.inf)):
        if math.isnan(bound) or bound == -free:
            raise UserError(f"{name}: {low}..{high} is not a range")
    if not _is_bound(kind, low):
        low = _rounded(kind.unwarp(middle - reach, base), space.is_integer)
        if kind.distribution == "log_normal" and space.is_integer:
            low = max(1.0, low)
        log.warning("%s: CARBS has no lower bound, so it is searched from %g", name, low)
    if not _is_bound(kind, high):
        high = _rounded(kind.unwarp(middle + reach, base), space.is_integer)
        log.warning("%s: CARBS has no upper bound, so it is searched up to %g", name, high)
    return low, high, float(centre)


def _is_bound(kind: _Kind, value: float) -> bool:
    """Whether a value is a bound: 0 is not one on a log scale, and 0 and 1 are not on a logit scale."""
    if kind.distribution == "log_normal":
        return 0 < value < math.inf
    return 0 < value < 1 if kind.distribution == "logit_normal" else math.isfinite(value)


def _rounded(value: float, whole: bool) -> float:
    return float(round(value)) if whole else float(f"{value:.6g}")
