"""Ranges that are too narrow, and how far to widen them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from metta.sweep.distributions import KINDS
from metta.sweep.protein_config import ParameterConfig

if TYPE_CHECKING:
    from metta.sweep.state import SweepState

End = Literal["min", "max"]

WIDENED_BY = 0.2
"""The distance by which an end of a range is moved outwards, as a share of the range's width on its own scale."""


@dataclass(frozen=True)
class WiderRange:
    """A range that should be wider at one end, because the best trial is there and the score still improves.

    Attributes:
        end: which end of the range.
        now: the present value of that end.
        wider: the advised value.
    """

    end: End
    now: float
    wider: float


def wider_ranges(state: SweepState) -> dict[str, WiderRange]:
    """The ranges that should be wider, by the dotted path of their parameter.

    A range that has no meaningful values beyond its end, such as one that starts at 0, is left out.
    """
    found = {}
    for path, end in (state.analysis.at_the_edge if state.analysis else {}).items():
        now, wider = getattr(state.searched[path], end), wider_end(state.searched[path], end)
        if wider != now:
            found[path] = WiderRange(end, now, wider)
    return found


def wider_end(parameter: ParameterConfig, end: End) -> float:
    """One end of a range moved outwards, rounded to two digits.

    It does not pass 0, nor 1 where the range ends below 1.
    """
    kind = KINDS[parameter.distribution]
    low, high = parameter.min or 0.0, parameter.max or 0.0
    old, sign = (low, -1) if end == "min" else (high, 1)
    if kind.step == "power of two":
        return old * 2.0 if sign > 0 else max(old / 2.0, min(old, 1.0))
    if kind.scale == "log":
        new = old * math.exp(sign * WIDENED_BY * math.log(high / low))
    elif kind.scale == "logit":
        new = 1 / (1 + math.exp(-(_logit(old) + sign * WIDENED_BY * (_logit(high) - _logit(low)))))
    else:
        new = old + sign * WIDENED_BY * (high - low)
        limit = 0.0 if end == "min" and low >= 0 else 1.0 if end == "max" and low >= 0 and high <= 1 else None
        if limit is not None and sign * (new - limit) >= 0:
            new = (old + limit) / 2
    if kind.step == "integer":
        return math.ceil(new) if sign > 0 else max(math.floor(new), 1) if low >= 1 else math.floor(new)
    room = 1 - new if 0.5 < new < 1 else new  # 0.995 is 0.005 from its limit
    digits = 1 - math.floor(math.log10(abs(room))) if room else 0
    return round(new, digits)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
