"""How far a sweep is, what it has spent, and what it is expected to take until it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from metta.sweep.definition import SweepDefinition
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.trial import Progress, Trial, TrialState

RECENT = 20
"""How many of the last trials say what the next ones will take."""


@dataclass(frozen=True)
class Tally:
    """What a sweep's trials add up to.

    Attributes:
        num_trials: how many trials are to end.
        max_cost: the budget, or None.
        counts: trials in each state.
        spent: cost of all trials.
        best: the trial with the best score, or None.
        front: trials on the Pareto front, the best first.
        last_failure: the failed trial with the highest number, or None.
        trial_cost: mean cost of the last trials, or None before any has ended.
        trial_seconds: mean time from start to end of the last trials, or None.
    """

    num_trials: int
    max_cost: float | None
    counts: Mapping[TrialState, int]
    spent: float
    best: Trial | None
    front: Sequence[Trial]
    last_failure: Trial | None
    trial_cost: float | None
    trial_seconds: float | None

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.counts.items() if state.ended)

    @property
    def failed(self) -> int:
        return self.counts[TrialState.FAILED]


@dataclass(frozen=True)
class Forecast:
    """What is expected when the sweep goes on as it did.

    Attributes:
        seconds_left: until its end, or None where nothing says.
        cost: of the whole sweep at its end, or None.
    """

    seconds_left: float | None
    cost: float | None


def tally(definition: SweepDefinition, trials: Sequence[Trial]) -> Tally:
    """Add up a sweep's trials."""
    order = ranked(trials, definition.protein.goal)
    front = pareto_front(trials, definition.protein.goal)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    recent = sorted((trial for trial in trials if trial.state.ended and trial.ended_at), key=_ended_at)[-RECENT:]
    costs = [trial.cost for trial in recent if trial.cost is not None and math.isfinite(trial.cost)]
    times = [_ended_at(trial) - trial.started_at.timestamp() for trial in recent if trial.started_at]
    return Tally(
        num_trials=definition.num_trials,
        max_cost=definition.max_cost,
        counts={state: sum(trial.state is state for trial in trials) for state in TrialState},
        spent=math.fsum(trial.cost or 0.0 for trial in trials),
        best=order[0] if order else None,
        front=[trial for trial in order if trial.number in front],
        last_failure=failed[-1] if failed else None,
        trial_cost=fmean(costs) if costs else None,
        trial_seconds=fmean(times) if times else None,
    )


def forecast(tallied: Tally, running: Mapping[int, Progress | None], seconds_allowed: float | None = None) -> Forecast:
    """Expect the remaining trials to take what the last ones took, as many at once as run now.

    Args:
        tallied: what has ended.
        running: how far each running trial is, by number.
        seconds_allowed: after which no trial is started any more, or None.
    """
    shares = [share_done(progress) for progress in running.values()]
    at_once = max(1, len(shares))
    left = max(0, tallied.num_trials - tallied.ended)
    each = tallied.trial_seconds
    if each is None:
        paces = [p.seconds / share for p, share in zip(running.values(), shares, strict=True) if p and share > 0]
        each = fmean(paces) if paces else None
    if each and seconds_allowed is not None:
        left = min(left, math.ceil(max(0.0, seconds_allowed) / each) * at_once)
    cost = None
    if tallied.trial_cost is not None:
        cost = tallied.spent + left * tallied.trial_cost
        if tallied.max_cost is not None and cost > tallied.max_cost:
            cost = max(tallied.spent, tallied.max_cost)
            left = min(left, math.ceil((cost - tallied.spent) / max(tallied.trial_cost, 1e-12)))
    if each is None:
        return Forecast(None, cost)
    work = max(0, left - len(shares)) + sum(1 - share for share in shares)
    return Forecast(work * each / at_once, cost)


def share_done(progress: Progress | None) -> float:
    """How much of a trial is done, 0..1; 0 where it does not say."""
    if progress is None or not progress.total:
        return 0.0
    return min(1.0, progress.step / progress.total)


def _ended_at(trial: Trial) -> float:
    return trial.ended_at.timestamp() if trial.ended_at else 0.0
