"""The score and cost of a trial under a sweep's current definition, and the ranking of trials by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from metta.sweep.trial import Trial, TrialState

Goal = Literal["maximize", "minimize"]

KeepPolicies = Literal["best", "pareto", "all"]
"""Which trials keep their policies when a sweep has ended."""


def sign(goal: Goal) -> float:
    """1.0 if a larger score is better, else -1.0. Multiplied by it, larger scores are always better."""
    return 1.0 if goal == "maximize" else -1.0


def measured(metrics: Mapping[str, float], metric: str) -> float | None:
    """The measured value of the metric, or None if the run did not measure it."""
    value = metrics.get(metric)
    return None if value is None else float(value)


def score_of(trial: Trial, metric: str) -> float | None:
    """The trial's score in a metric, which may differ from the metric when the trial ran.

    If a trial was added with only a score, that score is used for any metric. A trial that was stopped early has no
    score, because its last value is not comparable with that of a whole run.
    """
    if trial.state is TrialState.PRUNED:
        return None
    return measured(trial.metrics, metric) if trial.metrics else trial.score


def cost_of(trial: Trial, cost_metric: str) -> float | None:
    """The trial's cost in a cost metric, or None if no usable cost is known.

    A cost is a finite number of at least 0. A cost that was recorded under another cost metric is not used.
    """
    same = trial.cost_metric is None or trial.cost_metric == cost_metric
    value = trial.cost if same else measured(trial.metrics, cost_metric)
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def judged(trial: Trial, metric: str, cost_metric: str) -> Trial:
    """The trial with its score and cost under the current definition."""
    score, cost = score_of(trial, metric), cost_of(trial, cost_metric)
    if _same(score, trial.score) and _same(cost, trial.cost):
        return trial
    return replace(trial, score=score, cost=cost)


def is_scored(trial: Trial) -> bool:
    """Whether the trial has a score that ranks: it completed, and was not dropped."""
    completed = trial.state is TrialState.COMPLETED and trial.dropped is None
    return completed and trial.score is not None and math.isfinite(trial.score)


def ranked(trials: Iterable[Trial], goal: Goal) -> list[Trial]:
    """The scored trials, best first; equal scores by cost, then by number.

    Args:
        trials: as `judged` returns them.
    """
    scored = [trial for trial in trials if is_scored(trial)]
    return sorted(scored, key=lambda trial: (-sign(goal) * (trial.score or 0.0), _cost(trial), trial.number))


def pareto_front(order: Iterable[Trial]) -> list[Trial]:
    """The trials for which no other one has a better score at the same or less cost, the best first.

    Args:
        order: trials as `ranked` sorts them.
    """
    front: list[Trial] = []
    cheapest = math.inf
    for trial in order:
        if _cost(trial) < cheapest:
            cheapest = _cost(trial)
            front.append(trial)
    return front


def _cost(trial: Trial) -> float:
    return math.inf if trial.cost is None else trial.cost


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))
