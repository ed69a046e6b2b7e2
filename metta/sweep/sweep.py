"""The sweep loop: read the store, suggest, record, run, record again, until `num_trials` trials have ended.

The store is the truth. What the loop keeps in memory (Protein, the trials read so far) is rebuilt from it on every
start, so a sweep continues where it was when its driver died.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from metta.common.errors import UserError
from metta.sweep.curve import Point, whole_curve
from metta.sweep.definition import SweepDefinition
from metta.sweep.early_stopping import EarlyStopping
from metta.sweep.executor.protocol import Executor, Finished
from metta.sweep.observations import Learner, ObservationReader, problems_text
from metta.sweep.protein.types import Decision
from metta.sweep.ranking import measured
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import (
    Attempt,
    CurvePoint,
    Driver,
    Instruction,
    NumberTakenError,
    Outcome,
    StaleAttemptError,
    Store,
    StoreError,
)
from metta.sweep.trial import Progress, Report, Trial, TrialResult, TrialSpec, TrialState

LEASE_SECONDS = 60.0
MAX_FAILURES_IN_A_ROW = 5
GRACE_SECONDS = 10.0
"""How long a trial that ran out of time may take to stop, before its worker is killed."""
POLL_SECONDS = 1.0
PROGRESS_SECONDS = 2.0
"""How often a trial's progress is saved, at most."""
SAVES_PER_SECOND = 2.0
"""How often the progress of any trial is saved, at most: with many trials at once, each is saved less often."""


class SweepBusyError(UserError):
    """A living driver works on the sweep already."""


class TooManyFailuresError(UserError):
    """Several trials failed in a row, so the next one probably would too: the sweep stops and says why."""


class SweepView(Protocol):
    """Where the loop reports what happens; `metta.sweep.report` shows it."""

    def notice(self, message: str) -> None: ...

    def started(self, attempt: Attempt) -> None: ...

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None: ...


@dataclass
class _Running:
    """An attempt that this driver runs."""

    attempt: Attempt
    started_at: float = field(default_factory=time.monotonic)
    spec: TrialSpec | None = None
    seconds: float = 0.0
    unsaved: list[Progress] = field(default_factory=list)
    saved_at: float = 0.0
    last: Progress | None = None
    stop: Decision | None = None


class SweepLoop:
    """One driver of a sweep.

    Args:
        name: the sweep's name in the store.
        definition: what the sweep does, as stored.
        store: where trials are kept.
        executor: where trials run.
        prepare: puts an attempt's hyperparameters on a fresh Tool and returns what a worker needs.
        view: where to show what happens.
        exclusive: whether to refuse to work beside other drivers.
        on_trial_end: called with the sweep as it then is each time that a trial has ended.
    """

    def __init__(
        self,
        name: str,
        definition: SweepDefinition,
        store: Store,
        executor: Executor,
        prepare: Callable[[Attempt], TrialSpec],
        view: SweepView,
        exclusive: bool = True,
        on_trial_end: Callable[[SweepState], None] = lambda state: None,
    ) -> None:
        self._name = name
        self._definition = definition
        self._store = store
        self._executor = executor
        self._prepare = prepare
        self._view = view
        self._exclusive = exclusive
        self._on_trial_end = on_trial_end
        self._stops_at = math.inf
        self._sweep = store.sweep(name)
        self._reader = ObservationReader(definition)
        self._learner = Learner(definition, self._reader)
        self._trials: dict[int, Trial] = {}
        self._curves: dict[int, Sequence[CurvePoint]] = {}
        self._counted: set[int] = set()
        self._revision = -1
        self._state: SweepState | None = None
        self._said_no_cost = False
        self._stopping = EarlyStopping(definition, self._learner.protein) if definition.learns_from_curves else None
        self._running: dict[int, _Running] = {}
        self._failures_in_a_row = 0
        self._finishing = False
        self._instruction = Instruction.RUN
        self._polled_at = -math.inf
        self._released_at = -math.inf

    def run(self) -> SweepState:
        """Work until the sweep is complete and return it as it then is.

        Raises:
            SweepBusyError: another driver is alive, and this one is exclusive.
            TooManyFailuresError: five trials failed in a row.
            KeyboardInterrupt: `finish` was called or the store says to stop, and the sweep is not complete.
        """
        if self._definition.max_hours is not None:
            self._stops_at = time.monotonic() + 3600.0 * self._definition.max_hours
        with self._lease() as driver:
            try:
                while not self._complete():
                    self._step(driver)
            except BaseException as error:
                self._give_up(type(error).__name__)
                raise
        if time.monotonic() >= self._stops_at and len(self._counted) < self._definition.num_trials:
            self._view.notice(f"max_hours={self._definition.max_hours:g} are over; run it again to go on")
        return self.state

    @property
    def state(self) -> SweepState:
        """The sweep with all that was read of it so far."""
        if self._state is None:
            trials = [trial for _, trial in sorted(self._trials.items())]
            state = SweepState.of(self._sweep, self._definition, trials, self._reader, self._store.url)
            self._state = replace(state, all_curves=dict(self._curves))
        return self._state

    def finish(self) -> None:
        """Let the running trials end, and start no new one. May be called by a signal handler."""
        self._finishing = True
        self._view.notice(f"finishing {len(self._running)} running trials; Ctrl-C once more cancels them")

    def _step(self, driver: Driver) -> None:
        """Start an attempt if a slot is free, and record one that has ended.

        One of each, so that each suggestion uses all that is known.
        """
        self._poll_commands(driver)
        finishing = self._finishing or self._instruction is Instruction.STOP
        may_start = not finishing and self._instruction is Instruction.RUN and not self._budget_is_spent()
        started = may_start and len(self._running) < self._executor.slots and self._start_one(driver)
        if self._running:
            more = started and len(self._running) < self._executor.slots
            finished = self._executor.wait(0.0 if more else POLL_SECONDS)
            if finished is not None:
                self._record(finished)
            self._end_overdue()
        elif finishing:
            raise KeyboardInterrupt
        else:
            time.sleep(POLL_SECONDS)

    def _poll_commands(self, driver: Driver) -> None:
        """Read from the store, at intervals, what another terminal asks of this driver."""
        if time.monotonic() - self._polled_at < POLL_SECONDS:
            return
        self._polled_at = time.monotonic()
        before, self._instruction = self._instruction, self._store.instruction(driver)
        if self._instruction is not before:
            running = f"{len(self._running)} running {'trial' if len(self._running) == 1 else 'trials'}"
            self._view.notice(
                {
                    Instruction.RUN: "going on",
                    Instruction.PAUSE: f"paused with {running}; go on with: metta-sweep resume {self._name}",
                    Instruction.STOP: f"asked to stop: finishing {running}",
                }[self._instruction]
            )

    @contextmanager
    def _lease(self) -> Iterator[Driver]:
        """Hold the right to drive the sweep, renewed from a separate thread, because a trial may compute for long."""
        driver = self._store.join(self._name, LEASE_SECONDS)
        others = [other for other in self._store.drivers(self._name) if other.alive and other.id != driver.id]
        if others and self._exclusive:
            self._store.leave(driver)
            raise SweepBusyError(
                f"sweep {self._name!r} is being run already, by process {others[0].pid} on {others[0].host}\n"
                f"see it with: metta-sweep show {self._name}, or work beside it with: metta-sweep work {self._name}"
            )
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(LEASE_SECONDS / 4):
                try:
                    self._store.heartbeat(driver)
                except StoreError as error:
                    self._view.notice(f"the store did not answer, trying again: {error}")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield driver
        finally:
            stop.set()
            thread.join()
            self._store.leave(driver)

    def _complete(self) -> bool:
        self._sync()
        return len(self._counted) >= self._definition.num_trials or (self._budget_is_spent() and not self._running)

    def _budget_is_spent(self) -> bool:
        """Whether no further trial may start, because the cost or time budget is exhausted."""
        return time.monotonic() >= self._stops_at or self.state.budget_is_spent

    def _sync(self) -> None:
        revision = self._store.revision(self._name)
        if revision == self._revision:
            return
        first_time = self._revision < 0
        curves = self._store.curves(self._name) if first_time and self._stopping is not None else {}
        for trial in self._store.trials(self._name, changed_since=max(0, self._revision)):
            self._trials[trial.number] = trial
            count = self._counted.add if trial.counted else self._counted.discard  # a trial may be retried or dropped
            count(trial.number)
            known = self._learner.problems.get(trial.number)
            self._learner.tell(trial, self._curve_of(trial, curves, first_time))
            problem = self._learner.problems.get(trial.number)
            if problem is not None and problem != known and not first_time:
                self._view.notice(problems_text({trial.number: problem}))
        self._revision = revision
        self._state = None

    def _curve_of(
        self, trial: Trial, curves: Mapping[int, Sequence[CurvePoint]], first_time: bool
    ) -> Sequence[Point] | None:
        """The learning curve of a trial that ended, unless it ran here, so that the optimiser knows it already."""
        if self._stopping is None or not trial.state.ended or trial.number in self._running:
            return None
        points = curves.get(trial.number, ()) if first_time else self._store.curve(self._name, trial.number)
        self._curves[trial.number] = points
        curve = whole_curve(points, self._definition.watched_metric, self._definition.cost_metric)
        if trial.state is TrialState.COMPLETED and curve:
            self._stopping.ended_whole(curve[-1][0])
        return curve

    def _start_one(self, driver: Driver) -> bool:
        """Start an attempt, unless nothing is left to start."""
        attempt = self._next_attempt(driver)
        if attempt is None:
            return False
        running = self._running[attempt.number] = _Running(attempt, saved_at=time.monotonic())
        try:
            running.spec = self._prepared(attempt)
        except UserError as error:
            self._refuse(running, f"its hyperparameters cannot be used: {error}")
            return True
        if self._stopping is not None:
            points = self._store.curve(self._name, attempt.number) if attempt.attempt > 1 else []
            watched = whole_curve(points, self._definition.watched_metric, self._definition.cost_metric)
            self._stopping.begin(attempt.number, watched)
        self._view.started(attempt)
        running.started_at = time.monotonic()
        self._executor.submit(running.spec, self._report_for(attempt.number))
        return True

    def _prepared(self, attempt: Attempt) -> TrialSpec:
        """What a worker needs for an attempt.

        Raises:
            UserError: the trial's hyperparameters do not fit what is searched now, or what is trained.
        """
        reading = self._reader.read(self._trials[attempt.number])
        if reading.problem is not None:
            raise UserError(reading.problem)
        return self._prepare(replace(attempt, params={**attempt.params, **reading.params}))

    def _refuse(self, running: _Running, reason: str) -> None:
        """Record an attempt that cannot be run as failed."""
        number = running.attempt.number
        outcome = Outcome(TrialState.FAILED, error=reason)
        trial = self._persist(number, lambda: self._store.end(running.attempt, outcome))
        self._forget(number)
        self._sync()
        self._view.ended(trial, self.state)

    def _forget(self, number: int) -> None:
        """An attempt no longer runs here."""
        del self._running[number]
        if self._stopping is not None:
            self._stopping.end(number)

    def _next_attempt(self, driver: Driver) -> Attempt | None:
        """Claim a queued trial, or make a new one while the sweep may have more."""
        self._release_lost()
        while True:
            attempt = self._store.claim(driver)
            self._sync()
            if attempt is not None or self._planned() >= self._definition.num_trials:
                return attempt
            params, suggestion = self._learner.suggest()
            try:
                attempt = self._store.start(driver, max(self._trials, default=-1) + 1, params, suggestion)
                self._sync()
                return attempt
            except NumberTakenError:
                continue

    def _planned(self) -> int:
        """How many trials there are that count, or will when they have ended."""
        return sum(trial.dropped is None for trial in self._trials.values())

    def _release_lost(self) -> None:
        """Queue trials whose driver is gone; at intervals, because it looks at every running trial."""
        if time.monotonic() - self._released_at < POLL_SECONDS:
            return
        self._released_at = time.monotonic()
        for number in self._store.release_lost(self._name):
            self._view.notice(f"trial {number} lost its driver and is tried again")

    def _report_for(self, number: int) -> Report:
        def report(progress: Progress) -> bool:
            running = self._running[number]
            running.seconds, running.last = progress.seconds, progress
            running.unsaved.append(progress)
            self._view.progressed(number, progress)
            on_time = self._seconds_overdue(running) < 0 and not self._stops(running, progress)
            if time.monotonic() - running.saved_at < max(PROGRESS_SECONDS, len(self._running) / SAVES_PER_SECOND):
                return on_time
            try:
                self._save_progress(running)
            except StoreError as error:
                self._view.notice(f"progress of trial {number} waits for the store: {error}")
            except StaleAttemptError:
                return False
            return on_time

        return report

    def _stops(self, running: _Running, progress: Progress) -> bool:
        """Whether the optimiser stops a trial that reports; what it decides is kept with its reason."""
        if self._stopping is None or self._definition.early_stopping == "off":
            return False
        if running.stop is not None:
            return True
        number = running.attempt.number
        decision = self._stopping.ask(number, progress)
        if decision is None or decision.share is None:
            return False
        try:
            self._store.record_decision(self._name, self._stopping.stored(number, decision))
        except StoreError as error:
            self._view.notice(f"what was decided of trial {number} is not recorded: {error}")
        running.stop = None if decision.go_on else decision
        return running.stop is not None

    def _seconds_overdue(self, running: _Running) -> float:
        """Seconds for which an attempt has run longer than a trial may; negative while it may go on."""
        limit = self._definition.trial_timeout
        return -math.inf if limit is None else time.monotonic() - running.started_at - limit

    def _end_overdue(self) -> None:
        """Kill attempts that ran out of time, were asked to stop, and did not."""
        for number, running in list(self._running.items()):
            if running.spec is not None and self._seconds_overdue(running) > GRACE_SECONDS:
                self._executor.cancel(number)
                seconds = time.monotonic() - running.started_at
                self._record(Finished(running.spec, TrialResult({}, seconds, error=self._timeout_error("was killed"))))

    def _timeout_error(self, what: str) -> str:
        return f"it ran longer than trial_timeout={self._definition.trial_timeout:g} seconds and {what}"

    def _save_progress(self, running: _Running) -> None:
        running.saved_at = time.monotonic()
        if running.unsaved:
            self._store.record_progress(running.attempt, running.unsaved)
            running.unsaved = []

    def _record(self, finished: Finished) -> None:
        number = finished.spec.number
        running = self._running[number]
        try:
            self._persist(number, lambda: self._save_progress(running))
            if finished.result is None:
                reason = finished.lost or "its worker died"
                trial = self._persist(number, lambda: self._store.lose(running.attempt, reason, running.seconds))
            else:
                outcome = self._outcome_of(finished, running)
                trial = self._persist(number, lambda: self._store.end(running.attempt, outcome))
        except StaleAttemptError:
            self._forget(number)
            self._view.notice(f"trial {number} was taken over by another driver; this attempt is not recorded")
            return
        self._forget(number)
        self._sync()
        self._view.ended(trial, self.state)
        self._notice_cost(trial)
        self._on_trial_end(self.state)
        self._count_failures(trial)

    def _notice_cost(self, trial: Trial) -> None:
        """Say once that a trial is kept without a cost. The sweep's last lines name all such trials."""
        remark = self._reader.read(trial).remark
        if remark is None or self._said_no_cost:
            return
        self._said_no_cost = True
        budget = (
            "" if self._definition.max_cost is None else "; towards max_cost it counts the median of the known ones"
        )
        self._view.notice(f"trial {trial.number} keeps its score and has no cost: {remark}{budget}")

    def _persist(self, number: int, write: Callable[[], Any]) -> Any:
        """Write again until it succeeds: a finished trial survives a full disk or an unavailable database."""
        noticed = False
        while True:
            try:
                return write()
            except StoreError as error:
                if not noticed:
                    self._view.notice(f"trial {number} ended but cannot be recorded yet; still trying: {error}")
                noticed = True
                time.sleep(POLL_SECONDS)

    def _outcome_of(self, finished: Finished, running: _Running) -> Outcome:
        """What the attempt's result means for the sweep."""
        result = finished.result
        assert result is not None
        metric, cost_metric = self._definition.protein.metric, self._definition.cost_metric
        seconds = max(result.cost, running.seconds)
        score = measured(result.metrics, metric)
        if cost_metric == "seconds":
            cost: float | None = seconds + self._store.seconds_lost(self._name, finished.spec.number)
        else:
            cost = result.metrics.get(cost_metric)
        error = result.error
        if error is None and result.stopped and self._seconds_overdue(running) >= 0:
            error = self._timeout_error("was stopped")
        elif error is None and score is None and not result.stopped:
            error = f"the run did not measure {metric!r}"
        elif error is None and score is not None and not math.isfinite(score):
            error = f"the score {metric} is {score}"
        state = TrialState.FAILED if error else TrialState.PRUNED if result.stopped else TrialState.COMPLETED
        stopped, share = None, 1.0 if state is TrialState.COMPLETED else None
        if state is TrialState.PRUNED:
            score, stopped = None, running.stop.reason if running.stop else None
            share = self._stopping.share(running.last) if self._stopping else None
        elif state is TrialState.COMPLETED and self._stopping is not None and running.last is not None:
            self._stopping.ended_whole(running.last.step)
        metrics = result.metrics | {f"{name}.std": spread for name, spread in result.spread.items() if name == metric}
        return Outcome(state, score, cost, seconds, metrics, result.artefacts, error, cost_metric, None, stopped, share)

    def _count_failures(self, trial: Trial) -> None:
        if trial.state is not TrialState.FAILED:
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            reason = (trial.error or "").strip().splitlines() or ["unknown"]
            raise TooManyFailuresError(
                f"{MAX_FAILURES_IN_A_ROW} trials failed in a row, so the sweep stopped. The last: {reason[-1]}"
            )

    def _give_up(self, reason: str) -> None:
        """End the running attempts and record them as lost, so that the next driver tries them again."""
        for running in self._running.values():
            self._executor.cancel(running.attempt.number)
            try:
                self._store.lose(running.attempt, reason, running.seconds)
            except (StoreError, StaleAttemptError) as error:
                self._view.notice(f"trial {running.attempt.number} could not be given back: {error}")
        self._running.clear()
