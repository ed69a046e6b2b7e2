"""The sweep loop: read the store, suggest, record, run, record again, until `num_trials` trials have ended.

The store is the truth. What the loop keeps in memory (Protein, the trials read so far) is rebuilt from it on every
start, so a sweep continues where it was when its driver died.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from metta.common.counts import count_text
from metta.common.entry_point import metta_sweep_command
from metta.common.errors import UserError, nearest
from metta.sweep.analysis.failures import last_line, log_end
from metta.sweep.curve import Point, watched_curve
from metta.sweep.definition import SweepDefinition
from metta.sweep.early_stopping import EarlyStopping
from metta.sweep.ending import on_target
from metta.sweep.executor.protocol import Executor, Finished
from metta.sweep.mishaps import MISHAP, is_over, trouble
from metta.sweep.observations import Learner, ObservationReader, problems_text
from metta.sweep.protein.grid import GridDone
from metta.sweep.protein.types import Decision
from metta.sweep.ranking import measured
from metta.sweep.recorder import Recorder
from metta.sweep.retention import trial_folder
from metta.sweep.state import SweepState
from metta.sweep.store.journal import Journal
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
    StoreMissingError,
    StoreReplacedError,
    TrialStateError,
)
from metta.sweep.trial import Progress, Report, Trial, TrialResult, TrialSpec, TrialState

LEASE_SECONDS = 60.0
MAX_FAILURES_IN_A_ROW = 5
MAX_MISHAPS_IN_A_ROW = 3
"""The limit once a trial has succeeded; before that, the first mishap stops the sweep."""
LONGEST_WAIT_SECONDS = 60.0
"""How long to wait at most before the next try to run a trial."""
LEAVE_SECONDS = 2.0
"""How long an ending driver waits for the last renewal of its lease."""
GRACE_SECONDS = 10.0
"""How long a trial that ran out of time may take to stop, before its worker is killed."""
POLL_SECONDS = 1.0


class SweepBusyError(UserError):
    """Another live driver already runs the sweep."""


class TooManyFailuresError(UserError):
    """Several trials failed in a row, so the next one would probably fail too: the sweep stops and says why."""


class MishapError(TooManyFailuresError):
    """Trials fail for a reason that does not depend on their hyperparameters and that a user must fix."""


class SweepView(Protocol):
    """Receives the events of the loop; `metta.sweep.report` shows them."""

    def notice(self, message: str) -> None: ...

    def started(self, attempt: Attempt) -> None: ...

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None: ...


@dataclass
class _Trouble:
    """Why no trial starts: runs cannot write into their folders.

    Attributes:
        run_dir: the folder of the run that could not write.
        seconds: how long to wait before the next try.
        until: the monotonic time of the next try.
        waits: whether the loop is waiting; False while a trial is tried again.
    """

    run_dir: str
    seconds: float
    until: float
    waits: bool = True


@dataclass
class _Running:
    """An attempt that this driver runs.

    Attributes:
        seconds_before: seconds spent in earlier attempts of the trial.
        submitted: whether the executor has it.
    """

    attempt: Attempt
    started_at: float = field(default_factory=time.monotonic)
    spec: TrialSpec | None = None
    seconds: float = 0.0
    seconds_before: float = 0.0
    submitted: bool = False
    last: Progress | None = None
    stop: Decision | None = None


class SweepLoop:
    """One driver of a sweep.

    Args:
        name: the sweep's name in the store.
        definition: the settings of the sweep, as stored.
        store: where trials are stored.
        executor: where trials run.
        prepare: puts an attempt's hyperparameters on a fresh Tool and returns what a worker needs.
        view: where to show what happens.
        exclusive: whether to refuse to work together with other drivers.
        on_trial_end: called with the current state of the sweep each time a trial has ended.
        folder: the folder of the journal for writes that the store refuses; if None, they are kept in memory only.
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
        folder: Path | None = None,
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
        journal = Journal(folder, store.url, self._sweep)
        self._recorder = Recorder(store, self._sweep, journal, view.notice)
        self._driver: Driver
        self._left_clocks_at = time.monotonic()
        self._reader = ObservationReader(definition)
        self._learner = Learner(definition, self._reader)
        self._trials: dict[int, Trial] = {}
        self._curves: dict[int, Sequence[CurvePoint]] = {}
        self._counted: set[int] = set()
        self._revision = -1
        self._state: SweepState | None = None
        self._said_no_cost = self._checked_reports = self._said_contradiction = False
        self._stopping = EarlyStopping(definition, self._learner.protein) if definition.learns_from_curves else None
        self._running: dict[int, _Running] = {}
        self._handed_back = True
        self._failures_in_a_row = self._mishaps_in_a_row = 0
        self._folder = folder
        self._trouble: _Trouble | None = None
        self._finishing = False
        self._grid_done = False
        self._instruction = Instruction.RUN
        self._polled_at = -math.inf
        self._released_at = -math.inf

    def run(self) -> SweepState:
        """Work until the sweep is complete and return its final state.

        Raises:
            SweepBusyError: another driver is alive, and this one is exclusive.
            TooManyFailuresError: five trials failed in a row.
            MishapError: trials fail for a reason that does not depend on their hyperparameters.
            KeyboardInterrupt: `finish` was called or another terminal asked to stop, and the sweep is not complete.
        """
        if self._definition.max_hours is not None:
            self._stops_at = time.monotonic() + 3600.0 * self._definition.max_hours
        with self._lease():
            try:
                self._retry_mishaps()
                while self._advance():
                    pass
                self._recorder.bring_in_leftovers()
            except BaseException as error:
                self._give_up(type(error).__name__)
                raise
        if time.monotonic() >= self._stops_at and len(self._counted) < self._definition.num_trials:
            self._view.notice(f"max_hours={self._definition.max_hours:g} is over; run the sweep again to continue")
        return self.state

    @property
    def state(self) -> SweepState:
        """The sweep as read so far."""
        if self._state is None:
            trials = [trial for _, trial in sorted(self._trials.items())]
            state = SweepState.of(self._sweep, self._definition, trials, self._reader, self._store.url)
            self._state = replace(state, all_curves=dict(self._curves))
        return self._state

    def finish(self) -> None:
        """Let the running trials end, and start no new one. A signal handler may call this."""
        self._finishing = True
        self._view.notice(f"finishing {count_text(self._running, 'running trial')}; press Ctrl-C again to cancel them")

    def _advance(self) -> bool:
        """Do one step, unless the sweep is complete."""
        try:
            if self._complete():
                return False
            self._step()
        except StoreReplacedError as error:
            self._view.notice(f"{error}; the known trials of the sweep are written to it")
            self._switch_store()
        return True

    def _step(self) -> None:
        """Start an attempt if a slot is free, and record one that has ended.

        It does one of each, so that each suggestion uses all known results.
        """
        self._poll_commands()
        finishing = self._finishing or self._instruction is Instruction.STOP
        running = not finishing and self._instruction is Instruction.RUN
        may_start = running and not self._is_over() and not self._in_trouble()
        started = may_start and len(self._running) < self._executor.slots and self._start_one()
        if self._running:
            more = started and len(self._running) < self._executor.slots
            self._exclude_own_time()
            finished = self._executor.wait(0.0 if more else POLL_SECONDS)
            self._left_clocks_at = time.monotonic()
            if finished is not None:
                self._record(finished)
            self._exclude_own_time()
            self._end_overdue()
        elif finishing:
            raise KeyboardInterrupt
        else:
            time.sleep(POLL_SECONDS)

    def _exclude_own_time(self) -> None:
        """Exclude from the trials' time limits the driver's own delays, for example while it waits for the store."""
        now = time.monotonic()
        for running in self._running.values():
            running.started_at = min(now, running.started_at + now - self._left_clocks_at)
        self._left_clocks_at = now

    def _poll_commands(self) -> None:
        """Read requests of other terminals to this driver from the store, at intervals."""
        if time.monotonic() - self._polled_at < POLL_SECONDS:
            return
        self._polled_at = time.monotonic()
        before, self._instruction = self._instruction, self._store.instruction(self._driver)
        self._recorder.bring_in_leftovers()
        if self._instruction is not before:
            running = f"{len(self._running)} running {'trial' if len(self._running) == 1 else 'trials'}"
            self._view.notice(
                {
                    Instruction.RUN: "continuing",
                    Instruction.PAUSE: f"paused with {running}; continue with: metta-sweep resume {self._name}",
                    Instruction.STOP: f"asked to stop: finishing {running}",
                }[self._instruction]
            )

    @contextmanager
    def _lease(self) -> Iterator[None]:
        """Hold the right to drive the sweep, renewed from a separate thread, because a trial may compute for long."""
        self._driver = self._store.join(self._name, LEASE_SECONDS)
        others = [other for other in self._store.drivers(self._name) if other.alive and other.id != self._driver.id]
        if others and self._exclusive:
            self._store.leave(self._driver)
            raise SweepBusyError(
                f"sweep {self._name!r} is already being run by process {others[0].pid} on {others[0].host}\n"
                f"show it with: metta-sweep show {self._name}, or help to run it with: metta-sweep work {self._name}"
            )
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(LEASE_SECONDS / 4):
                try:
                    self._store.heartbeat(self._driver)
                except (StoreMissingError, StoreReplacedError):  # the loop handles it
                    pass
                except StoreError as error:
                    self._view.notice(f"the store did not answer; trying again: {error}")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(LEAVE_SECONDS)
            self._recorder.close()
            if self._handed_back:
                self._store.leave(self._driver)

    def _complete(self) -> bool:
        self._sync()
        if len(self._counted) >= self._definition.num_trials:
            return True
        return not self._running and (self._is_over() or self._all_ended())

    def _all_ended(self) -> bool:
        """Whether all trials that the sweep may have are ended, including mishaps."""
        trials = [trial for trial in self._trials.values() if trial.dropped is None]
        enough = self._grid_done or len(trials) >= self._definition.num_trials
        return enough and all(trial.state.ended for trial in trials)

    def _is_over(self) -> bool:
        """Whether no further trial may start: the cost or time budget is exhausted, or the target is reached."""
        if time.monotonic() >= self._stops_at:
            return True
        if self._definition.target is not None and on_target(self.state) is not None:
            return True
        return self.state.budget_is_spent

    def _sync(self) -> None:
        revision = self._store.revision(self._name)
        if revision == self._revision:
            return
        first_time = self._revision < 0
        since = self._revision if revision > self._revision >= 0 else 0  # a lower one was edited by hand
        curves = self._store.curves(self._name) if first_time and self._stopping is not None else {}
        for trial in self._store.trials(self._name, changed_since=since):
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
        curve = watched_curve(points, self._definition)
        if trial.state is TrialState.COMPLETED and curve:
            self._stopping.ended_whole(curve[-1][0])
            reading = self._reader.read(trial)
            self._stopping.reports.scored(trial.number, curve, reading.trial.score if reading.observation else None)
        return curve

    def _start_one(self) -> bool:
        """Start an attempt, unless nothing is left to start."""
        attempt = self._next_attempt()
        if attempt is None:
            return False
        running = self._running[attempt.number] = _Running(attempt)
        try:
            running.spec = self._prepared(attempt)
        except UserError as error:
            self._refuse(running, f"its hyperparameters cannot be used: {error}")
            return True
        if self._stopping is not None:
            points = self._store.curve(self._name, attempt.number) if attempt.attempt > 1 else []
            watched = watched_curve(points, self._definition)
            self._stopping.begin(attempt.number, watched)
        if attempt.attempt > 1:
            running.seconds_before = self._store.seconds_lost(self._name, attempt.number)
        self._view.started(attempt)
        self._recorder.progress.begin(attempt)
        running.started_at = time.monotonic()
        running.submitted = True
        try:
            self._executor.submit(running.spec, self._report_for(attempt.number))
        except OSError:  # the disk of the runs is full or unreachable, or too many files are open
            self._record(Finished(running.spec, TrialResult({}, 0.0, error=traceback.format_exc())))
        return True

    def _retry_mishaps(self) -> None:
        """Queue mishaps again, because their cause may have been fixed since."""
        self._sync()
        for trial in list(self._trials.values()):
            if trial.mishap and trial.dropped is None:
                with suppress(TrialStateError):  # another driver did it first
                    self._store.retry(self._name, trial.number)

    def _in_trouble(self) -> bool:
        """Whether no trial may start now because it could not write into the folder of its run."""
        if self._folder is not None and not self._folder.is_dir():
            self._wait_before_retry(f"the folder of the runs, {self._folder}, is unreachable")
        trouble = self._trouble
        if trouble is None or time.monotonic() < trouble.until:
            return trouble is not None and trouble.waits
        if not is_over(trouble.run_dir):
            trouble.until = time.monotonic() + POLL_SECONDS
            return True
        if trouble.waits:
            self._view.notice("the runs can be written again; continuing")
            trouble.waits = False
        return False

    def _wait_before_retry(self, what: str, run_dir: str = "") -> None:
        """Start nothing for a while; longer each time until a trial ends without trouble."""
        before = self._trouble
        seconds = POLL_SECONDS if before is None else min(2 * before.seconds, LONGEST_WAIT_SECONDS)
        if before is None or not before.waits:
            self._view.notice(f"{what}; no trial starts until this is resolved")
            run_dir = run_dir or str(self._folder / "any" if self._folder else "")
            self._trouble = _Trouble(run_dir, seconds, time.monotonic() + seconds)

    def _hand_back_in_trouble(self, running: _Running, what: str) -> None:
        """Queue an attempt again that failed because of a full disk, too many open files or an unreachable folder."""
        number = running.attempt.number
        self._recorder.give_back(running.attempt, what, running.seconds, self._trials[number])
        self._forget(number)
        self._sync()
        self._wait_before_retry(f"trial {number} could not run: {what}", running.spec.run_dir if running.spec else "")

    def _prepared(self, attempt: Attempt) -> TrialSpec:
        """The spec of an attempt, for a worker.

        Raises:
            UserError: the trial's hyperparameters do not fit the current search, or the Tool.
        """
        reading = self._reader.read(self._trials[attempt.number])
        if reading.problem is not None:
            raise UserError(reading.problem)
        return self._prepare(replace(attempt, params={**attempt.params, **reading.params}))

    def _refuse(self, running: _Running, reason: str) -> None:
        """Record an attempt that cannot be run as failed."""
        number = running.attempt.number
        outcome = Outcome(TrialState.FAILED, error=reason)
        trial = self._recorder.end(running.attempt, outcome, self._trials[number])
        self._forget(number)
        self._sync()
        self._view.ended(trial, self.state)

    def _forget(self, number: int) -> None:
        """Record that an attempt no longer runs here."""
        del self._running[number]
        if self._stopping is not None:
            self._stopping.end(number)

    def _next_attempt(self) -> Attempt | None:
        """Claim a queued trial, or create a new one if the sweep may have more."""
        self._release_lost()
        least = 0
        while True:
            attempt = self._store.claim(self._driver)
            self._sync()
            if attempt is not None or self._planned() >= self._definition.num_trials:
                return attempt
            try:
                params, suggestion = self._learner.suggest()
            except GridDone:
                self._grid_done = True
                return None
            try:
                number = max(least, max(self._trials, default=-1) + 1)
                attempt = self._store.start(self._driver, number, params, suggestion)
                self._sync()
                return attempt
            except NumberTakenError as error:
                least = error.next_number

    def _planned(self) -> int:
        """The number of trials that count, or will count when they have ended."""
        return sum(trial.dropped is None for trial in self._trials.values())

    def _release_lost(self) -> None:
        """Queue trials whose driver is dead; at intervals, because it checks every running trial."""
        if time.monotonic() - self._released_at < POLL_SECONDS:
            return
        self._released_at = time.monotonic()
        for number in self._store.release_lost(self._name):
            self._view.notice(
                f"trial {number} lost its driver and is tried again: the process ended while it ran (killed, out of "
                "memory, or os._exit in the trial), or was disconnected from the store"
            )

    def _report_for(self, number: int) -> Report:
        def report(progress: Progress) -> bool:
            running = self._running[number]
            running.seconds, running.last = progress.seconds, progress
            self._view.progressed(number, progress)
            ours = self._recorder.progress.report(running.attempt, progress)
            return ours and self._seconds_overdue(running) < 0 and not self._stops(running, progress)

        return report

    def _stops(self, running: _Running, progress: Progress) -> bool:
        """Whether the optimiser stops a trial that reports; its decision is stored with the reason."""
        if self._stopping is None or self._definition.early_stopping == "off":
            return False
        if running.stop is not None:
            return True
        number = running.attempt.number
        decision = self._stopping.ask(number, progress)
        if decision is None or decision.share is None:
            return False
        self._recorder.progress.decided(self._stopping.stored(number, decision))
        running.stop = None if decision.go_on else decision
        return running.stop is not None

    def _seconds_overdue(self, running: _Running) -> float:
        """Seconds by which an attempt exceeds the time limit; negative before the limit."""
        limit = self._definition.trial_timeout
        return -math.inf if limit is None else time.monotonic() - running.started_at - limit

    def _end_overdue(self) -> None:
        """Kill attempts that exceeded the time limit, were asked to stop, and did not stop."""
        for number, running in list(self._running.items()):
            if running.spec is not None and self._seconds_overdue(running) > GRACE_SECONDS:
                self._executor.cancel(number)
                seconds = time.monotonic() - running.started_at
                self._record(Finished(running.spec, TrialResult({}, seconds, error=self._timeout_error("was killed"))))

    def _timeout_error(self, what: str) -> str:
        return f"it ran longer than trial_timeout={self._definition.trial_timeout:g} seconds and {what}"

    def _record(self, finished: Finished) -> None:
        number = finished.spec.number
        running = self._running[number]
        attempt, before = running.attempt, self._trials[number]
        try:
            if finished.result is None:
                reason = finished.lost or "its worker died"
                trial = self._recorder.lose(attempt, reason, running.seconds, before)
            elif finished.result.error and (what := trouble(finished.result.error, finished.spec.run_dir)):
                self._hand_back_in_trouble(running, what)
                return
            else:
                trial = self._recorder.end(attempt, self._outcome_of(finished, running), before)
        except StaleAttemptError:
            self._forget(number)
            self._view.notice(f"trial {number} was taken over by another driver; this attempt is not recorded")
            return
        self._ended(trial, running.last)

    def _ended(self, trial: Trial, last: Progress | None = None) -> None:
        """Handle the end of an attempt that ran here, after its result was stored. `last` is its last report."""
        self._trouble = None
        self._notice_reports(trial, last)
        self._forget(trial.number)
        self._sync()
        self._view.ended(trial, self.state)
        self._notice_cost(trial)
        self._on_trial_end(self.state)
        self._count_failures(trial)

    def _notice_cost(self, trial: Trial) -> None:
        """Notify the user once of a trial without a cost. The sweep's last lines name all such trials."""
        remark = self._reader.read(trial).remark
        if remark is None or self._said_no_cost:
            return
        self._said_no_cost = True
        budget = (
            "" if self._definition.max_cost is None else "; towards max_cost it counts the median of the known ones"
        )
        self._view.notice(f"trial {trial.number} has a score but no cost: {remark}{budget}")

    def _notice_reports(self, trial: Trial, last: Progress | None) -> None:
        """Notify the user, once each, if trials report nothing that early stopping can judge, or the opposite of it."""
        if self._definition.early_stopping == "off" or trial.state is not TrialState.COMPLETED:
            return
        assert self._stopping is not None
        if not self._checked_reports and (problem := self._stopping.reports.blindness(trial.number, last)):
            self._view.notice(f"trial {trial.number} {problem}")
        self._checked_reports = True
        if not self._said_contradiction and (problem := self._stopping.reports.contradiction()):
            self._said_contradiction = True
            self._view.notice(problem)

    def _outcome_of(self, finished: Finished, running: _Running) -> Outcome:
        """The outcome of an attempt, from its result."""
        result = finished.result
        assert result is not None
        metric, cost_metric = self._definition.protein.metric, self._definition.cost_metric
        seconds = max(result.cost, running.seconds)
        score = measured(result.metrics, metric)
        if cost_metric == "seconds":
            cost: float | None = seconds + running.seconds_before
        else:
            cost = result.metrics.get(cost_metric)
        error = result.error
        if error is None and result.stopped and self._seconds_overdue(running) >= 0:
            error = self._timeout_error("was stopped")
        elif error is None and score is None and not result.stopped:
            error = f"{MISHAP}the run did not measure {metric!r}"
        elif error is None and not result.stopped and self._lacks_cost(result):
            known = nearest(cost_metric, result.metrics)
            error = f"{MISHAP}the run did not measure {cost_metric!r}, which max_cost limits; {known}"
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

    def _lacks_cost(self, result: TrialResult) -> bool:
        """Whether a result lacks the cost that a budget limits, and no trial that completed has measured it."""
        if self._definition.max_cost is None or self._definition.cost_metric in ("seconds", *result.metrics):
            return False
        return all(each.cost is None for each in self._trials.values() if each.state is TrialState.COMPLETED)

    def _count_failures(self, trial: Trial) -> None:
        if trial.mishap:
            self._count_mishap(trial)
            return
        self._mishaps_in_a_row = 0
        if trial.state is not TrialState.FAILED:
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise TooManyFailuresError(
                f"{MAX_FAILURES_IN_A_ROW} trials failed in a row, so the sweep stopped. {self._last_failure(trial)}\n"
                "to queue the failed trials again, before the sweep is resumed:\n  "
                + metta_sweep_command(self._store.url, "retry", self._name, "--failed")
            )

    def _count_mishap(self, trial: Trial) -> None:
        self._mishaps_in_a_row += 1
        succeeded = any(each.counted and each.state is not TrialState.FAILED for each in self._trials.values())
        if self._mishaps_in_a_row >= (MAX_MISHAPS_IN_A_ROW if succeeded else 1):
            many = (
                f"{self._mishaps_in_a_row} trials in a row" if self._mishaps_in_a_row > 1 else f"trial {trial.number}"
            )
            raise MishapError(
                f"{many} failed for a reason that does not depend on the hyperparameters, so the sweep stopped. "
                f"{self._last_failure(trial)}\nonce the cause is fixed, the resumed sweep runs the trial again"
            )

    def _last_failure(self, trial: Trial) -> str:
        """What is known of a failure."""
        reason = last_line(trial.error)
        folder = None if self._folder is None else trial_folder(self._folder, trial.number)
        lines = [f"The last: {reason}"]
        if folder is not None:
            lines += [f"its folder: {folder}", *log_end(folder, trial.error)]
        return "\n".join(lines)

    def _give_up(self, reason: str) -> None:
        """End the running attempts and hand their trials back, so that the next driver continues them."""
        for number in self._running:
            self._executor.cancel(number)
        held = [(each.attempt, each.seconds, self._trials[number]) for number, each in self._running.items()]
        self._handed_back = self._recorder.hand_back(held, reason)
        self._running.clear()

    def _switch_store(self) -> None:
        """Switch to the store that replaced the previous one, and write all known trials to it."""
        self._store.reopen()
        self._recorder.bring_in([trial for trial in self._trials.values() if trial.state is not TrialState.RUNNING])
        known = self._driver.id in [driver.id for driver in self._store.drivers(self._name)]
        if not known:
            self._driver = self._store.join(self._name, LEASE_SECONDS)
        self._revision = -1
        stored = {trial.number: trial for trial in self._store.trials(self._name)}
        for number, running in list(self._running.items()):
            trial = stored.get(number)
            if trial is not None and trial.state.ended:
                self._ended(trial)
            elif not running.submitted:
                self._forget(number)
            elif trial is None or not known or trial.attempts != running.attempt.attempt:
                self._claim_again(running)

    def _claim_again(self, running: _Running) -> None:
        """Claim a trial that runs here for this driver, if the store does not know it."""
        number = running.attempt.number
        self._recorder.bring_in([replace(self._trials[number], state=TrialState.QUEUED)])
        attempt = self._store.claim(self._driver, number)
        if attempt is not None:
            self._recorder.progress.continue_as(running.attempt, attempt)
            running.attempt = attempt
