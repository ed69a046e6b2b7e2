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


def log_end(folder: Path, error: str | None, lines: int = LOG_LINES) -> list[str]:
    """The last lines of the log of a run that has its error, or else of the last one that it wrote, below its path.

    None where it wrote nothing.
    """
    ends = [(path, _end(path)) for path in folder.glob("*.log") if path.stat().st_size]
    if not ends:
        return []
    said = set((error or "").splitlines())
    path, end = max(ends, key=lambda each: (each[1][-1].strip() in said, each[0].stat().st_mtime))
    return [f"the end of {path}:", *(f"  {line[-LONGEST_REASON:]}" for line in end[-lines:])]


def _end(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        text = file.read().decode("utf-8", "replace").replace("\0", "")  # which UTF-16 has between letters
    return text.rstrip().splitlines() or [""]


def last_line(error: str | None) -> str:
    """The last line of a traceback with words in it, which says what went wrong.

    Example:
        >>> last_line("  | ExceptionGroup: two (1 sub-exception)\\n    | KeyError: 'lr'\\n    +-----------")
        "KeyError: 'lr'"
    """
    lines = (error or "").strip().splitlines()
    said = next((line for line in reversed(lines) if re.search(r"\w", line)), "no reason was recorded")
    return said.lstrip(" \t|").rstrip()
