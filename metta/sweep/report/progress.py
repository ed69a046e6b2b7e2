"""What a sweep is expected to take until it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from metta.sweep.state import SweepState
from metta.sweep.trial import Progress


@dataclass(frozen=True)
class Forecast:
    """What is expected when the sweep goes on as it did.

    Attributes:
        seconds_left: until its end, or None where nothing says.
        cost: of the whole sweep at its end, or None.
    """

    seconds_left: float | None
    cost: float | None


def forecast(
    state: SweepState, running: Mapping[int, Progress | None], seconds_allowed: float | None = None
) -> Forecast:
    """Expect the remaining trials to take what the last ones took, as many at once as run now.

    Args:
        state: the sweep.
        running: how far each running trial is, by number.
        seconds_allowed: after which no trial is started any more, or None.
    """
    shares = [share_done(progress) for progress in running.values()]
    at_once = max(1, len(shares))
    left = max(0, state.definition.num_trials - state.counted)
    each = state.recent_seconds
    if each is None:
        paces = [p.seconds / share for p, share in zip(running.values(), shares, strict=True) if p and share > 0]
        each = fmean(paces) if paces else None
    if each and seconds_allowed is not None:
        left = min(left, math.ceil(max(0.0, seconds_allowed) / each) * at_once)
    cost, max_cost = None, state.definition.max_cost
    if state.recent_cost is not None:
        cost = state.spent + left * state.recent_cost
        if max_cost is not None and cost > max_cost:
            cost = max(state.spent, max_cost)
            left = min(left, math.ceil((cost - state.spent) / max(state.recent_cost, 1e-12)))
    if each is None:
        return Forecast(None, cost)
    work = max(0, left - len(shares)) + sum(1 - share for share in shares)
    return Forecast(work * each / at_once, cost)


def share_done(progress: Progress | None) -> float:
    """How much of a trial is done, 0..1; 0 where it does not say."""
    if progress is None or not progress.total:
        return 0.0
    return min(1.0, progress.step / progress.total)
