"""What goes into the optimiser and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished trial.

    Attributes:
        number: its trial number.
        params: hyperparameters, as they were told.
        score: in the units of the metric, or None for a failure without one.
        cost: or None where it is not known.
        is_failure: whether it failed.
        noise: standard error of the score, or None where it was not measured.
    """

    number: int
    params: Mapping[str, Any]
    score: float | None
    cost: float | None
    is_failure: bool
    noise: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What the model expects of a trial.

    Attributes:
        score: expected, in the units of the metric.
        score_std: standard deviation of that expectation.
        noise_std: standard deviation of single measurements round the true score.
        cost: expected, or None while no cost is known.
        success: the probability that it does not fail.
    """

    score: float
    score_std: float
    noise_std: float
    cost: float | None
    success: float


@dataclass(frozen=True)
class Importance:
    """Shares, 0..1, of the variation of the score and of the log cost that a parameter takes part in."""

    score: float
    cost: float
