"""Trials in this process, one at a time: nothing to set up, and easy to debug."""

from __future__ import annotations

from collections.abc import Callable

from metta.sweep.executor.attempt import load_run_trial, run_attempt
from metta.sweep.executor.protocol import Finished
from metta.sweep.executor.surroundings import Surroundings, kept
from metta.sweep.trial import Report, RunTrial, TrialSpec


class InlineExecutor:
    """Runs each attempt inside `wait`. An exception of the attempt becomes its result; Ctrl-C reaches the caller.

    Args:
        load: returns the function that runs the trials of a Tool's class. It may exist only in this process.
    """

    slots = 1
    resources = "in this process, one at a time"

    def __init__(self, load: Callable[[str], RunTrial] = load_run_trial) -> None:
        self._load = load
        self._surroundings = Surroundings.now()
        self._submitted: list[tuple[TrialSpec, Report]] = []

    def submit(self, spec: TrialSpec, report: Report) -> None:
        self._submitted.append((spec, report))

    def wait(self, timeout: float | None = None) -> Finished | None:
        if not self._submitted:
            return None
        spec, report = self._submitted.pop(0)
        with kept():
            self._surroundings.restore()  # a trial runs as the user's script would run it
            return Finished(spec, run_attempt(spec, report, self._load))

    def cancel(self, number: int) -> None:
        self._submitted = [(spec, report) for spec, report in self._submitted if spec.number != number]

    def close(self) -> None:
        self._submitted.clear()
