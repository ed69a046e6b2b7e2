"""Rows of numbers by name, the output of every source of metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STEPS = (
    "step",
    "global_step",
    "_step",
    "trainer/global_step",
    "time/total_timesteps",
    "total_timesteps",
    "num_timesteps",
    "timesteps",
    "timestep",
)
"""Names under which loggers write the step of a row; the first that is present is used. Epochs are not steps here:
loggers count them from 0, write fractions of them, or write several rows for one."""

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


@dataclass(slots=True)  # not frozen, because there may be millions of them
class Row:
    """Numbers that were measured at the same time.

    Attributes:
        values: by name. Names of nested values are dotted.
        step: the current step of the training; None if the source does not give it.
        total: the final step of the training; None if the source does not give it.
    """

    values: dict[str, float]
    step: float | None = None
    total: float | None = None

    @classmethod
    def of(cls, values: dict[str, float]) -> Row:
        """A row whose step and total are among its values."""
        step = next((values[name] for name in STEPS if name in values), None)
        return cls(values, step, values.get("total"))


def number(value: Any) -> float | None:
    """A number, or a number written as text in digits; None for anything else.

    Example:
        >>> number("0.25"), number(True), number("high"), number("nan")
        (0.25, 1.0, None, None)
    """
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return float(value) if isinstance(value, int | float) else None


def numbers(data: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in nested data, by dotted name. Everything else is skipped; of equal names the last counts."""
    values: dict[str, float] = {}
    for name, value in data.items():
        if type(value) is float:
            values[prefix + name] = value
        elif isinstance(value, Mapping):
            values.update(numbers(value, f"{prefix}{name}."))
        elif (read := number(value)) is not None:
            values[prefix + name] = read
    return values
