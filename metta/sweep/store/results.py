"""Results as stored. All are accepted: a value that is not a number becomes NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MOST_STEPS = 2**63 - 1


def as_float(value: Any) -> float:
    """A result as a float: an infinity for a value that is too large, NaN for one that is not a number."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return math.nan


def as_floats(values: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): as_float(value) for name, value in values.items()}


def as_step(value: Any) -> int:
    """A whole number that fits into 63 bits."""
    try:
        return max(-_MOST_STEPS, min(int(value), _MOST_STEPS))
    except OverflowError:  # an infinity
        return _MOST_STEPS if value > 0 else -_MOST_STEPS
    except (TypeError, ValueError):
        return 0


LARGEST_NUMBER = 2**31 - 2
"""Of a trial: what PostgreSQL can store, with one to spare for the next trial."""


def is_trial_number(value: Any) -> bool:
    """Whether a stored value identifies a trial. A row with any other number was edited by hand and is skipped."""
    return type(value) is int and 0 <= value <= LARGEST_NUMBER
