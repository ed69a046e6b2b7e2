"""How a sweep's trials compare: the best one and the Pareto front of score and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from metta.sweep.trial import Trial, TrialState

Goal = Literal["maximize", "minimize"]


def ranked(trials: Iterable[Trial], goal: Goal) -> list[Trial]:
    """Completed trials with a finite score, best first; equal scores by cost, then by number."""
    sign = -1.0 if goal == "maximize" else 1.0
    completed = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETED and trial.score is not None and math.isfinite(trial.score)
    ]
    return sorted(completed, key=lambda trial: (sign * (trial.score or 0.0), _cost(trial), trial.number))


def pareto_front(trials: Sequence[Trial], goal: Goal) -> set[int]:
    """Numbers of the trials for which no other has a better score at no more cost."""
    front: set[int] = set()
    cheapest = math.inf
    for trial in ranked(trials, goal):
        if _cost(trial) < cheapest:
            cheapest = _cost(trial)
            front.add(trial.number)
    return front


def _cost(trial: Trial) -> float:
    return math.inf if trial.cost is None else trial.cost
