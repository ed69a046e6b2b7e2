"""What a trial's score and cost are under a sweep's present definition, and how trials rank by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from metta.sweep.trial import Trial, TrialState

Goal = Literal["maximize", "minimize"]

KeepPolicies = Literal["best", "pareto", "all"]
"""Of which trials the policies stay when a sweep has ended."""


def sign(goal: Goal) -> float:
    """1.0 where a larger score is better, -1.0 where a smaller one is: times it, larger is always better."""
    return 1.0 if goal == "maximize" else -1.0


def measured(metrics: Mapping[str, float], metric: str) -> float | None:
    """The metric as measured, or None where the run did not measure it."""
    value = metrics.get(metric)
    return None if value is None else float(value)


def score_of(trial: Trial, metric: str) -> float | None:
    """The trial's score in a metric, which need not be the one that it was first judged by.

    A trial that was added with a score alone measured nothing else, so that score is taken for the metric. One that was
    stopped early has no score: what it measured by then is not what a whole run would have.
    """
    if trial.state is TrialState.PRUNED:
        return None
    return measured(trial.metrics, metric) if trial.metrics else trial.score


def cost_of(trial: Trial, cost_metric: str) -> float | None:
    """The trial's cost in a cost metric, or None where nothing usable as a cost is known.

    A cost is a finite number of at least 0. One that was recorded under another cost metric is not used.
    """
    same = trial.cost_metric is None or trial.cost_metric == cost_metric
    value = trial.cost if same else measured(trial.metrics, cost_metric)
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def judged(trial: Trial, metric: str, cost_metric: str) -> Trial:
    """The trial with its score and cost as the present definition has them."""
    score, cost = score_of(trial, metric), cost_of(trial, cost_metric)
    if _same(score, trial.score) and _same(cost, trial.cost):
        return trial
    return replace(trial, score=score, cost=cost)


def is_scored(trial: Trial) -> bool:
    """Whether the trial has a score that ranks it: it completed, and nobody dropped it."""
    completed = trial.state is TrialState.COMPLETED and trial.dropped is None
    return completed and trial.score is not None and math.isfinite(trial.score)


def ranked(trials: Iterable[Trial], goal: Goal) -> list[Trial]:
    """The scored trials, best first; equal scores by cost, then by number.

    Args:
        trials: as `judged` gives them.
    """
    scored = [trial for trial in trials if is_scored(trial)]
    return sorted(scored, key=lambda trial: (-sign(goal) * (trial.score or 0.0), _cost(trial), trial.number))


def pareto_front(order: Iterable[Trial]) -> list[Trial]:
    """The trials for which no other has a better score at no more cost, the best first.

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
