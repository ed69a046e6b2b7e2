"""Why trials failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metta.sweep.trial import Trial, TrialState

if TYPE_CHECKING:
    from metta.sweep.state import SweepState

LOG_LINES = 5

LONGEST_REASON = 300
"""Characters of a reason, or of a line of a log; longer ones are cut."""

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


def log_end(folder: Path, lines: int = LOG_LINES) -> list[str]:
    """The last lines of the log that a run wrote last, below its path; none where it wrote nothing."""
    logs = [(path.stat().st_mtime, path) for path in folder.glob("*.log") if path.stat().st_size]
    if not logs:
        return []
    path = max(logs)[1]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        text = file.read().decode("utf-8", "replace")
    return [f"the end of {path}:", *(f"  {line[-LONGEST_REASON:]}" for line in text.splitlines()[-lines:])]


def last_line(error: str | None) -> str:
    """The last line of a traceback, which says what went wrong."""
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else "no reason was recorded"
