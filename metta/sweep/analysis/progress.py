"""The progress of a sweep, the time and cost that it still needs, and its scores against the cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from metta.sweep.state import SweepState
from metta.sweep.trial import Progress, Trial


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep, and its expected end if it continues as before.

    Attributes:
        ended: trials that count towards `num_trials`.
        num_trials: the number that the sweep asks for.
        seconds_left: until its end; None if unknown.
        expected_cost: of the whole sweep; None if unknown.
    """

    ended: int
    num_trials: int
    seconds_left: float | None
    expected_cost: float | None

    @property
    def share(self) -> float:
        """The share of the trials that ended, 0..1."""
        return min(1.0, self.ended / self.num_trials)


def sweep_progress(
    state: SweepState, running: Mapping[int, Progress | None], seconds_allowed: float | None = None
) -> SweepProgress:
    """The progress of a sweep. The remaining trials are expected to be like the last ones, as many in parallel as now.

    Args:
        state: the sweep.
        running: the progress of each running trial, by number.
        seconds_allowed: until no further trial is started; None for no limit.
    """
    shares = [share_done(progress) for progress in running.values()]
    at_once = max(1, len(shares))
    definition = state.definition
    left = max(0, definition.num_trials - state.counted)
    each, each_costs = state.recent_seconds, state.recent_cost
    if each is None:
        paces = [p.seconds / share for p, share in zip(running.values(), shares, strict=True) if p and share > 0]
        each = fmean(paces) if paces else None
    if each_costs is None and definition.cost_metric == "seconds":
        each_costs = each
    if each and seconds_allowed is not None:
        left = min(left, math.ceil(max(0.0, seconds_allowed) / each) * at_once)
    cost, max_cost = None, definition.max_cost
    if each_costs is not None:
        cost = state.spent + left * each_costs
        if max_cost is not None and cost > max_cost:
            cost = max(state.spent, max_cost)
            left = min(left, math.ceil((cost - state.spent) / max(each_costs, 1e-12)))
    seconds = None
    if each is not None and (max_cost is None or each_costs is not None):
        work = max(0, left - len(shares)) + sum(1 - share for share in shares)
        seconds = work * each / at_once
    return SweepProgress(state.counted, definition.num_trials, seconds, cost)


def share_done(progress: Progress | None) -> float:
    """The share of a trial that is done, 0..1; 0 if unknown."""
    if progress is None or not progress.total:
        return 0.0
    return min(1.0, progress.step / progress.total)


@dataclass(frozen=True)
class Spending:
    """A trial that ended.

    Attributes:
        spent: the cost of this trial and of all that ended before it.
        trial: the one that ended.
        score: its score; None if it has none that ranks.
        is_better: whether its score is better than all before it.
    """

    spent: float
    trial: Trial
    score: float | None
    is_better: bool


def spending(state: SweepState) -> list[Spending]:
    """The trials in the order in which they ended, with the total cost so far."""
    scored = {trial.number for trial in state.ranked}
    entries: list[Spending] = []
    spent, top = 0.0, -math.inf
    for trial in state.ended:
        spent += state.charges.get(trial.number, 0.0)
        score = trial.score if trial.number in scored else None
        is_better = score is not None and state.sign * score > top
        if score is not None and is_better:
            top = state.sign * score
        entries.append(Spending(spent, trial, score, is_better))
    return entries
