"""What trials may cost: what was spent, what is left, and how that changes what is looked for."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.surrogate import SMALLEST, log_costs
from metta.sweep.protein_config import ProteinSettings

Array = NDArray[np.float64]

FIRST_TRIALS, FIRST_CHEAP_TRIALS = 4, 24
FIRST_SHARE = 0.1
"""Before there is a model: as many trials as the first number, and within a budget cheap ones up to the second number,
until they have taken this share of it. Measured on `benchmarks/optimizers`, see docs/benchmarks.md."""
TRIAL_SHARE_LEFT, TRIAL_SHARE = 0.25, 0.1
"""A trial should cost no more than this share of what is left of the budget, or of all of it, whichever is more.
Measured on `benchmarks/optimizers` ("what a trial may really cost" in docs/benchmarks.md); the numbers are round."""
TIMES_EACH_LEFT = 2.0
"""With both limits, a trial may cost so many times what the budget has for each that is left. Otherwise the last ones
could not use it. Measured on `benchmarks/curves`, see docs/benchmarks.md, "Runs of other lengths"."""
PLANNED_TRIALS, PLANNED_AHEAD = 30, 4
"""Where trials report curves of different lengths and a budget alone ends the sweep, it is divided as if there were so
many trials, or so many more than have finished, or half as many for all that is left, whichever is most. Otherwise the
shortest runs look best for their cost and take most of the budget. Measured on `benchmarks/curves`, see
docs/benchmarks.md, "Runs of other lengths"."""
_LEAST_LEFT = 1e-6
"""The share of a budget that counts as left when all of it was spent, so that its logarithm is finite."""


@dataclass(frozen=True)
class Budget:
    """What all trials together may cost, and how far the sweep has come.

    Attributes:
        max_cost: what all trials together may cost; None without a budget.
        num_trials: how many trials there will be, or are planned; None if nothing says so.
        spent: what all finished trials cost.
        started: how many trials there are, finished or not.
        finished: how many have finished.
    """

    max_cost: float | None
    num_trials: int | None
    spent: float
    started: int
    finished: int

    @property
    def limited(self) -> bool:
        return self.max_cost is not None

    @property
    def progress(self) -> float:
        """How much of the budget is spent, or of the trials started, whichever is more; 0 without a budget."""
        if self.max_cost is None:
            return 0.0
        started = 0.0 if self.num_trials is None else self.started / self.num_trials
        return max(self.spent / self.max_cost, started)

    @property
    def pace(self) -> float:
        """What a trial has cost on average, as a share of what each trial that is left may cost.

        Below 1, `num_trials` ends the sweep before the budget does: trials are scarce, and cost is not. It is infinite
        without `num_trials`, and 0 without a budget.
        """
        if self.max_cost is None:
            return 0.0
        if self.num_trials is None:
            return math.inf
        if not self.finished:
            return 1.0
        left = (self.max_cost - self.spent) / max(self.num_trials - self.started, 1)
        return self.spent / self.finished / max(left, SMALLEST)

    @property
    def trials_are_scarce(self) -> bool:
        """Whether the number of trials ends the sweep, so that what one saves is not spent on others."""
        return self.num_trials is not None and self.pace < 1.0

    @property
    def each_left(self) -> float:
        """What each trial that has not finished may cost, if all cost the same; 0 without both limits."""
        if self.max_cost is None or self.num_trials is None:
            return 0.0
        return max(self.max_cost - self.spent, 0.0) / max(self.num_trials - self.finished, 1)

    @property
    def cost_weight(self) -> float:
        """How much cost counts: from 1 to 0 as budget or trials end, whichever is sooner; 0 without a budget.

        It counts less where trials end before the budget does: there, cheap trials leave money that nobody spends.

        Cost cooling (Lee, Perrone, Archambeau & Seeger 2020, "Cost-aware Bayesian optimization"). Its square, rather
        than a straight line, was measured on `benchmarks/optimizers`.
        """
        if self.max_cost is None:
            return 0.0
        return min(1.0, self.pace) * max(0.0, 1.0 - self.progress) ** 2

    @property
    def log_left(self) -> float:
        """The logarithm of what is left to spend; infinity without a budget."""
        if self.max_cost is None:
            return math.inf
        left = self.max_cost - self.spent
        return math.log(max(left, _LEAST_LEFT * self.max_cost, SMALLEST))

    def log_cost_limit(self, costs: Array, settings: ProteinSettings) -> float:
        """The logarithm of what a suggestion may cost: not far beyond what was seen, and within the limits given.

        Args:
            costs: of trials [n], NaN where unknown.
        """
        limits = [math.inf]
        known = log_costs(costs[~np.isnan(costs)])
        if len(known) and np.ptp(known) > 0:
            limits.append(float(known.max() + settings.expansion_rate * np.ptp(known)))
        if settings.max_suggestion_cost is not None:
            limits.append(math.log(settings.max_suggestion_cost))
        if self.max_cost is not None:
            left = math.exp(self.log_left)
            share = max(TRIAL_SHARE * self.max_cost, TIMES_EACH_LEFT * self.each_left)
            limits.append(math.log(max(TRIAL_SHARE_LEFT * left, min(left, share), SMALLEST)))
        return min(limits)

    def first_trials(self, wanted: int | None) -> int:
        """How many trials come before the models, besides trial 0.

        Args:
            wanted: as many, where somebody said so.
        """
        if wanted is not None:
            return wanted
        if self.max_cost is None or self.trials_are_scarce or self.spent >= FIRST_SHARE * self.max_cost:
            return FIRST_TRIALS
        if self.num_trials is None:
            return FIRST_CHEAP_TRIALS
        return min(FIRST_CHEAP_TRIALS, max(FIRST_TRIALS, self.num_trials // 4))


def planned_trials(finished: int, share_left: float) -> int:
    """How many trials a budget is divided among if nothing else says how many there will be.

    Args:
        share_left: of the budget. Much is left of one that was raised after the sweep had ended.
    """
    return max(PLANNED_TRIALS, finished + max(PLANNED_AHEAD, round(PLANNED_TRIALS * share_left / 2)))


def spent(costs: Array, failed: NDArray[np.bool_]) -> float:
    """What finished trials cost in all; never infinite.

    A trial that did not fail and whose cost is unknown counts as the median of the known costs; before there is a
    known cost it counts as nothing.

    Args:
        costs: [n], NaN where unknown.
        failed: [n], whether the trial failed.
    """
    known = np.sort(costs[~np.isnan(costs)])
    unknown = int((np.isnan(costs) & ~failed).sum())
    with np.errstate(over="ignore"):
        total = float(np.nansum(costs))
    if unknown and len(known):
        total += unknown * float(known[(len(known) - 1) // 2] / 2 + known[len(known) // 2] / 2)
    return min(total, sys.float_info.max)
