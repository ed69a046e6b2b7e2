"""Axes of plots: where values lie on them, and how they are written."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from metta.sweep.distributions import KINDS
from metta.sweep.protein_config import ParameterConfig, same
from metta.sweep.report.format import choice_text

Axis = dict[str, Any]
"""A plotly axis as JSON data."""

WIDE_RATIO = 20.0
"""Costs whose largest is more than this times the smallest are shown on a log scale."""


def numbers(values: Iterable[float | None] | np.ndarray[Any, Any]) -> list[Any]:
    """Numbers for a figure, to six digits; None, which plotly draws as a gap, for what is not finite."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in values]


def parameter_axis(parameter: ParameterConfig) -> Axis:
    if parameter.choices is not None:
        count = len(parameter.choices)
        return {
            "tickvals": list(range(count)),
            "ticktext": [plain(choice_text(choice)) for choice in parameter.choices],
            "range": [-0.5, count - 0.5],
        }
    if is_log(parameter):
        return log_axis([parameter.min or 0.0, parameter.max or 0.0])
    return linear_axis([parameter.max or 0.0])


def log_axis(values: Sequence[float]) -> Axis:
    """A log axis with ticks at the powers of ten, and where those are few at 2 and 5 times them."""
    low, high = math.log10(min(values)), math.log10(max(values))
    steps = (1,) if high - low > 1.5 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [tick_text(tick) for tick in ticks]}


def linear_axis(values: Sequence[float]) -> Axis:
    return {"tickformat": "~s" if max(values, default=0.0) >= 1e4 else ""}


def axis_position(parameter: ParameterConfig) -> Callable[[Any], float | None]:
    """A function that gives the position of a value on the parameter's axis; None for one that has none."""
    if parameter.choices is not None:
        return lambda value: _choice_position(parameter, value)
    positive = is_log(parameter)
    return lambda value: float(value) if is_number(value) and (value > 0 or not positive) else None


def _choice_position(parameter: ParameterConfig, value: Any) -> float | None:
    index = choice_index(parameter, value)
    return None if index < 0 else float(index)


def choice_index(parameter: ParameterConfig, value: Any) -> int:
    return next((i for i, choice in enumerate(parameter.choices or []) if same(choice, value)), -1)


def jitter(number: int) -> float:
    """An offset for a trial, -0.5..0.5, always the same: multiples of the golden ratio are evenly distributed."""
    return (number * 0.6180339887) % 1.0 - 0.5


def is_log(parameter: ParameterConfig) -> bool:
    return parameter.distribution in KINDS and KINDS[parameter.distribution].scale == "log"


def is_wide(costs: Sequence[float]) -> bool:
    positive = [cost for cost in costs if cost > 0]
    return len(positive) == len(costs) and max(costs, default=0.0) > WIDE_RATIO * min(costs, default=0.0)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def tick_text(value: float) -> str:
    """Three significant digits: 0.001, 1e-5, 32,800."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = float(f"{value:.3g}")
        return f"{digits:,.0f}" if abs(digits) >= 1000 else f"{digits:g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def plain(text: str) -> str:
    """Text without what plotly takes for markup or a template's variables."""
    return html.escape(text, quote=False).replace("%{", "%&#123;").replace("$", "&#36;")
