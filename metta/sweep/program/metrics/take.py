"""Computes a metric's score from its values in a run."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

TakeName = Literal["last", "max", "min", "mean"]


class Take:
    """One number from a growing series.

    Args:
        name: "last", "max", "min" or "mean". NaN is never the maximum or minimum.
        window: use only this many last values; None for all.

    Example:
        >>> take = Take("mean", 2)
        >>> for value in (1.0, 2.0, 4.0):
        ...     take.add(value)
        >>> take.value
        3.0
    """

    def __init__(self, name: TakeName = "last", window: int | None = None) -> None:
        self._name = name
        self._values: deque[float] | None = None if window is None else deque(maxlen=window)
        self._sum, self._count = 0.0, 0
        self._value = math.nan

    def add(self, value: float) -> None:
        self._count += 1
        if self._values is not None:
            self._values.append(value)
        self._sum += value
        best = {"max": max, "min": min}.get(self._name)
        if best is None or math.isnan(self._value):
            self._value = value
        elif not math.isnan(value):
            self._value = best(self._value, value)

    @property
    def value(self) -> float:
        """NaN before the first value."""
        if self._name == "last" or (self._values is None and self._name != "mean"):
            return self._value
        if self._values is None:
            return self._sum / self._count if self._count else math.nan
        if self._name == "mean":
            return sum(self._values) / len(self._values) if self._values else math.nan
        known = [value for value in self._values if not math.isnan(value)]
        return math.nan if not known else max(known) if self._name == "max" else min(known)
