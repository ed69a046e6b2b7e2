"""Trial 0: the Tool's own values where they lie in the space, and the search centre elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.common.plain import plain
from metta.sweep.protein.space import Numeric, Parameter, Space

OWN_VALUES, SEARCH_CENTRE = "own values", "search centre"
"""What a suggestion names as the source of trial 0."""
LONGER_OWN_VALUES = "own values, longer run"
"""The source of a later trial with the Tool's own values and a longer run."""
_MOST_REASONS = 3


@dataclass(frozen=True)
class Start:
    """Where a search begins.

    Attributes:
        values: the searched hyperparameters, by dotted path.
        point: where the space places them, [columns].
        source: `OWN_VALUES` if any of the Tool's own values is among them, otherwise `SEARCH_CENTRE`.
        remark: which of the Tool's own values are not used, and why; "" where all are used, or none is known.
    """

    values: dict[str, Any]
    point: NDArray[np.float64]
    source: str
    remark: str = ""


def start(space: Space, own_values: Mapping[str, Any]) -> Start:
    """Where a search of a Tool begins.

    A parameter takes the search centre where the Tool's own value is unknown, cannot be suggested, or where the user
    gave a centre (`mean`). All do where a constraint does not hold otherwise.

    Args:
        own_values: of the Tool, by dotted path; those that are not searched are ignored.
    """
    centre = space.centre
    middle = {p.path: p.decode(centre[columns]) for p, columns in zip(space.parameters, space.slices, strict=True)}
    reasons = {p.path: reason for p in space.parameters if (reason := _reason(p, own_values))}
    used = {path: plain(own_values[path]) for path in middle if path not in reasons}
    if not used:
        known = {path: reason for path, reason in reasons.items() if path in own_values}
        return Start(middle, centre, SEARCH_CENTRE, _remark(known))
    values = {**middle, **used}
    point = space.encode_flat(values)
    if not space.allows(point[None])[0]:
        return Start(middle, centre, SEARCH_CENTRE, "with the Tool's own values a constraint does not hold")
    return Start(values, point, OWN_VALUES, _remark(reasons))


def _reason(parameter: Parameter, own_values: Mapping[str, Any]) -> str | None:
    """Why a parameter does not start at the Tool's own value; None where it does."""
    if isinstance(parameter, Numeric) and parameter.centre_is_given:
        return "its mean is given"
    if parameter.path not in own_values:
        return "the Tool has no value of it"
    return parameter.refusal(own_values[parameter.path])


def _remark(reasons: Mapping[str, str]) -> str:
    named = [f"{path} ({reason})" for path, reason in list(reasons.items())[:_MOST_REASONS]]
    more = [f"{len(reasons) - _MOST_REASONS} more"] if len(reasons) > _MOST_REASONS else []
    return f"search centre for {', '.join([*named, *more])}" if named else ""
