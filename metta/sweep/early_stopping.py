"""Ask the optimiser whether to continue a running trial, each time it reports."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metta.sweep.curve import Point, cost_so_far, cut_back
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein import Protein
from metta.sweep.protein.types import Decision
from metta.sweep.store.protocol import StoredDecision
from metta.sweep.trial import Progress

_MOST_NAMED = 8
"""Reported metrics that a message names."""
CONTRADICTION = {4: -1.0, 5: -0.9, 6: -0.8}
"""So negative a rank correlation of what was watched with the scores, over as many whole runs or more, is reported.
Unrelated ones have it with a probability of 3 to 5 % each time that is asked, and 8 % in one of 30 trials."""
MOST_COMPARED = 100
"""The latest whole runs that this correlation is computed of."""


class EarlyStopping:
    """Keeps the learning curves of the trials that this driver runs, and asks the optimiser about them.

    Args:
        definition: of the sweep.
        protein: the optimiser, which knows all other trials.
    """

    def __init__(self, definition: SweepDefinition, protein: Protein) -> None:
        self._definition = definition
        self._protein = protein
        self._curves: defaultdict[int, list[Point]] = defaultdict(list)
        self._before: dict[int, float] = {}
        self._longest = 0.0
        self._watched = False
        self._own_steps: dict[int, float] = {}
        self._restarts: dict[int, str] = {}
        self._others: set[str] = set()
        self._ends: dict[int, tuple[float, float]] = {}

    def begin(self, number: int, curve: list[Point]) -> None:
        """Record that an attempt of a trial starts; `curve` has the points of its earlier attempts."""
        self._curves[number] = list(curve)
        self._before[number] = curve[-1][1] if curve else 0.0
        self._watched = self._watched or bool(curve)
        self._own_steps.pop(number, None)

    def ask(self, number: int, progress: Progress) -> Decision | None:
        """Decide whether a trial that reports continues; None if no decision is possible.

        No decision is possible if the trial does not report the watched metric, if its steps begin again, while the
        length of a whole run is unknown, or at its end.
        """
        value = self._definition.watched_sign * progress.metrics.get(self._definition.watched_metric, math.nan)
        self._watched = self._watched or math.isfinite(value)
        if not self._watched:
            self._others |= progress.metrics.keys()
        if not math.isfinite(value) or progress.step <= 0 or number in self._restarts:
            return None
        curve, before = self._curves[number], self._own_steps.get(number, 0.0)
        if progress.step < before:
            self._restarts[number] = f"reported step {progress.step} after step {before:g}"
            self._protein.decide(number, [], 1.0)  # what it showed so far says nothing of a whole run
            return None
        self._own_steps[number] = float(progress.step)
        cut_back(curve, progress.step)
        spent = cost_so_far(progress.seconds, progress.metrics, self._definition.cost_metric)
        curve.append((float(progress.step), self._before.get(number, 0.0) + spent, value))
        total = float(progress.total or self._longest)
        if total <= progress.step:
            return None
        return self._protein.decide(number, curve, total)

    def share(self, progress: Progress | None) -> float | None:
        """The share of a whole run that a trial has done, 0..1; None if unknown."""
        total = (progress.total if progress else None) or self._longest
        return min(1.0, progress.step / total) if progress and total else None

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
        watched, scores = (
            _ranks(values) for values in np.array([*self._ends.values()][-MOST_COMPARED:]).reshape(-1, 2).T
        )
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

    def end(self, number: int) -> None:
        """Record that an attempt of a trial has ended; its curve is in the store."""
        self._curves.pop(number, None)
        self._before.pop(number, None)
        self._own_steps.pop(number, None)
        self._restarts.pop(number, None)

    def ended_whole(self, last_step: float) -> None:
        """Record that a trial was not stopped, so its last step is the length of a whole run."""
        self._longest = max(self._longest, float(last_step))

    def scored(self, number: int, curve: Sequence[Point], score: float | None) -> None:
        """Record the score of a whole run with its curve; None if the run does not count."""
        self._ends.pop(number, None)
        if known := [value for _, _, value in curve if math.isfinite(value)]:
            self._watched = True
            if score is not None:
                self._ends[number] = (known[-1], score)

    def stored(self, number: int, decision: Decision) -> StoredDecision:
        """The decision with the numbers behind it, for the store."""
        details = {
            "rule": self._definition.early_stopping,
            "share": decision.share,
            "rank": decision.rank,
            "compared": decision.compared,
            "kept": decision.kept,
            "seen": {str(other): len(curve) for other, curve in self._curves.items()},
        }
        return StoredDecision(number, "go on" if decision.go_on else "stop", decision.reason, details)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value; equal values share their mean rank."""
    lower, equal = (values[:, None] > values).sum(axis=1), (values[:, None] == values).sum(axis=1)
    return np.asarray(lower + 0.5 * equal, dtype=float)
