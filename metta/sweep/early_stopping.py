"""Ask the optimiser whether to continue a running trial, each time it reports."""

from __future__ import annotations

import math
from collections import defaultdict

from metta.sweep.curve import Point, cost_so_far, cut_back
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein import Protein
from metta.sweep.protein.types import Decision
from metta.sweep.store.protocol import StoredDecision
from metta.sweep.trial import Progress
from metta.sweep.watched_reports import WatchedReports


class EarlyStopping:
    """Keeps the learning curves of the trials that this driver runs, and asks the optimiser about them.

    Args:
        definition: of the sweep.
        protein: the optimiser, which knows all other trials.

    Attributes:
        reports: what trials reported of the watched metric.
    """

    def __init__(self, definition: SweepDefinition, protein: Protein) -> None:
        self._definition = definition
        self._protein = protein
        self._curves: defaultdict[int, list[Point]] = defaultdict(list)
        self._before: dict[int, float] = {}
        self._longest = 0.0
        self._own_steps: dict[int, float] = {}
        self.reports = WatchedReports(definition)

    def begin(self, number: int, curve: list[Point]) -> None:
        """Record that an attempt of a trial starts; `curve` has the points of its earlier attempts."""
        self._curves[number] = list(curve)
        self._before[number] = curve[-1][1] if curve else 0.0
        if curve:
            self.reports.watched()
        self._own_steps.pop(number, None)

    def ask(self, number: int, progress: Progress) -> Decision | None:
        """Decide whether a trial that reports continues; None if no decision is possible.

        No decision is possible if the trial does not report the watched metric, if its steps begin again, while the
        length of a whole run is unknown, or at its end.
        """
        value = self._definition.watched_sign * progress.metrics.get(self._definition.watched_metric, math.nan)
        if not math.isfinite(value):
            self.reports.lacking(progress)
            return None
        self.reports.watched()
        if progress.step <= 0 or self.reports.has_restarted(number):
            return None
        curve, before = self._curves[number], self._own_steps.get(number, 0.0)
        if progress.step < before:
            self.reports.restarted(number, progress.step, before)
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

    def end(self, number: int) -> None:
        """Record that an attempt of a trial has ended; its curve is in the store."""
        self._curves.pop(number, None)
        self._before.pop(number, None)
        self._own_steps.pop(number, None)
        self.reports.ended(number)

    def ended_whole(self, last_step: float) -> None:
        """Record that a trial was not stopped, so its last step is the length of a whole run."""
        self._longest = max(self._longest, float(last_step))

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
