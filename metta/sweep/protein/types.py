"""What goes into the optimiser and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Rule = Literal["protein", "asha", "median", "hyperband", "off"]
"""When trials are stopped early, see `metta.sweep.protein.stopping`."""

ETA = 3.0
"""Reduction factor of the halving rules by default (Li et al. 2020, arXiv 1810.05934, use 4; Li et al. 2018,
"Hyperband", 3), and of "protein" at its first rung until it has learnt its own."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished trial.

    Attributes:
        number: its trial number.
        params: hyperparameters, as they were observed.
        score: in the units of the metric, or None for a failure without one.
        cost: or None where it is not known.
        is_failure: whether it failed.
        noise: standard error of the score, or None where it was not measured.
        stopped: it was stopped early, so its score is not that of a whole run.
        repeat_of: number of the first trial with these hyperparameters, where it repeats that one.
    """

    number: int
    params: Mapping[str, Any]
    score: float | None
    cost: float | None
    is_failure: bool
    noise: float | None = None
    stopped: bool = False
    repeat_of: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has the score of a whole run."""
        return not self.is_failure and not self.stopped


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
class Belief:
    """What is believed of a configuration with a whole run.

    Attributes:
        number: its first trial.
        runs: how many whole runs it has.
        probability: that its mean score is the best of all configurations with a whole run.
        score: expected mean score, in the units of the metric.
        score_std: standard deviation of that expectation.
        low, high: the interval that training again once will fall into with a probability of 95 %.
    """

    number: int
    runs: int
    probability: float
    score: float
    score_std: float
    low: float
    high: float


@dataclass(frozen=True)
class OtherLength:
    """A configuration that was tried, with a length of its runs that was not.

    Attributes:
        number: the configuration's first trial.
        params: its hyperparameters with that length, nested.
        changed, value: the dotted path of the length, and the length.
        score, score_std: expected mean score, in the units of the metric, and the standard deviation of that
            expectation.
        low, high: the interval that training once will fall into with a probability of 95 %.
        cost: expected.
    """

    number: int
    params: Mapping[str, Any]
    changed: str
    value: Any
    score: float
    score_std: float
    low: float
    high: float
    cost: float


@dataclass(frozen=True)
class Importance:
    """Shares, 0..1, of the variation of the score and of the log cost that a parameter takes part in."""

    score: float
    cost: float


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on, and why, in numbers.

    Attributes:
        share: the rung at which it was decided, as a share of a whole run; None where there was nothing to decide.
        rank, compared: the trial's rank at the rung, from 1, among so many.
        kept: ranks up to this one go on.
    """

    go_on: bool
    reason: str
    share: float | None = None
    rank: int | None = None
    compared: int | None = None
    kept: int | None = None
