"""Why trials failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metta.sweep.trial import Trial, TrialState

if TYPE_CHECKING:
    from metta.sweep.state import SweepState

LONGEST_REASON = 300
"""Characters of a reason; longer ones are cut."""

_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class FailureReason:
    """Trials that failed for the same reason.

    Attributes:
        reason: of the latest of them.
        trials: by number.
    """

    reason: str
    trials: list[Trial]


def failure_reasons(state: SweepState) -> list[FailureReason]:
    """The failed trials grouped by reason, the most frequent reason first.

    Reasons that differ only in their numbers are the same reason.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in state.with_state(TrialState.FAILED):
        groups.setdefault(_NUMBER.sub("#", last_line(trial.error)[:LONGEST_REASON]), []).append(trial)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [FailureReason(last_line(trials[-1].error)[:LONGEST_REASON], trials) for trials in ordered]


def last_line(error: str | None) -> str:
    """The last line of a traceback, which says what went wrong."""
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else "no reason was recorded"
