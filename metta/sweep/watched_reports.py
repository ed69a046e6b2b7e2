"""What trials report of the metric that early stopping watches, and why it may not be able to judge them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metta.sweep.curve import Point
from metta.sweep.definition import SweepDefinition
from metta.sweep.trial import Progress

CONTRADICTION = {4: -1.0, 5: -0.9, 6: -0.8}
"""So negative a rank correlation of what was watched with the scores, over as many whole runs or more, is reported.
Unrelated ones have it with a probability of 3 to 5 % each time that is asked, and 8 % in one of 30 trials."""
MOST_COMPARED = 100
"""The latest whole runs that this correlation is computed of."""
_MOST_NAMED = 8
"""Reported metrics that a message names."""


class WatchedReports:
    """Remembers what was reported of the watched metric, and explains what is wrong with it.

    Args:
        definition: of the sweep.
    """

    def __init__(self, definition: SweepDefinition) -> None:
        self._definition = definition
        self._watched = False
        self._others: set[str] = set()
        self._restarts: dict[int, str] = {}
        self._ends: dict[int, tuple[float, float]] = {}

    def watched(self) -> None:
        """Record that a trial reported the watched metric."""
        self._watched = True

    def lacking(self, progress: Progress) -> None:
        """Record a report without it."""
        if not self._watched:
            self._others |= progress.metrics.keys()

    def restarted(self, number: int, step: int, before: float) -> None:
        """Record that the steps of a running trial began again."""
        self._restarts[number] = f"reported step {step} after step {before:g}"

    def has_restarted(self, number: int) -> bool:
        return number in self._restarts

    def ended(self, number: int) -> None:
        """Record that an attempt of a trial has ended."""
        self._restarts.pop(number, None)

    def scored(self, number: int, curve: Sequence[Point], score: float | None) -> None:
        """Record the score of a whole run with its curve; None if the run does not count."""
        self._ends.pop(number, None)
        if known := [value for _, _, value in curve if math.isfinite(value)]:
            self._watched = True
            if score is not None:
                self._ends[number] = (known[-1], score)

    def blindness(self, number: int, last: Progress | None) -> str | None:
        """Why trials like this one, which has completed, cannot be judged; None if they can.

        Args:
            last: its last report.
        """
        metric, rule = self._definition.watched_metric, self._definition.early_stopping
        if number in self._restarts:
            return (
                f"{self._restarts[number]}, so early_stopping={rule} does not judge it; "
                "let steps increase over the whole trial, and give the last one as total"
            )
        if self._watched:
            return None if last is None else self._why_no_rung(last)
        reported = f"only {', '.join(sorted(self._others)[:_MOST_NAMED])}" if self._others else "nothing"
        return (
            f"reported no {metric} while it ran, {reported}, so early_stopping={rule} can stop no trial; "
            "progress_metric names the reported metric that stands for the score, see docs/early_stopping.md"
        )

    def _why_no_rung(self, last: Progress) -> str | None:
        """Why a run that ended with this report passed no point where it could have been stopped."""
        rule, rungs, total = self._definition.early_stopping, self._definition.rungs, last.total
        if rungs and last.step <= rungs[0]:
            return (
                f"ended at step {last.step}, before the first of rungs={rungs}, so early_stopping={rule} cannot stop it"
            )
        if total is not None and not self._definition.min_share * total < last.step <= total:
            return f"ended at step {last.step} with total={total}, so early_stopping={rule} cannot judge it"
        return None

    def contradiction(self) -> str | None:
        """Why the watched metric seems to have the wrong direction; None if it does not."""
        if self._definition.watched_metric == self._definition.protein.metric:
            return None
        pairs = np.array([*self._ends.values()][-MOST_COMPARED:]).reshape(-1, 2)
        watched, scores = (_ranks(values) for values in pairs.T)
        if len(scores) < min(CONTRADICTION) or not (np.ptp(watched) and np.ptp(scores)):
            return None
        found, definition = float(np.corrcoef(watched, scores)[0, 1]), self._definition
        if found > CONTRADICTION[min(len(scores), max(CONTRADICTION))] + 1e-9:
            return None
        other = "minimize" if definition.watched_goal == "maximize" else "maximize"
        return (
            f"in {len(scores)} whole runs, the better {definition.watched_metric} was at the end, the worse was "
            f"{definition.protein.metric} (rank correlation {found:.2f}), so early stopping may stop the best trials: "
            f"progress_metric={definition.watched_metric} progress_goal={other} turns it around"
        )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value; equal values share their mean rank."""
    lower, equal = (values[:, None] > values).sum(axis=1), (values[:, None] == values).sum(axis=1)
    return np.asarray(lower + 0.5 * equal, dtype=float)
