"""Records the results of attempts so that nothing is lost if the store fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from metta.common.counts import count_text
from metta.sweep.observations import numbers_text
from metta.sweep.progress_saver import ProgressSaver
from metta.sweep.store.journal import Journal
from metta.sweep.store.protocol import (
    Attempt,
    CurvePoint,
    Outcome,
    StaleAttemptError,
    Store,
    StoredDecision,
    StoreError,
    StoreMissingError,
    StoreReplacedError,
    StoreWithoutKeysError,
    SweepRecord,
    TrialHistory,
)
from metta.sweep.trial import Progress, Trial, TrialState

FIRST_PATIENCE_SECONDS = 1.0
"""How long an ended attempt waits for the store before it is written to the journal as well."""
RETRY_SECONDS = 1.0
LAST_PATIENCE_SECONDS = 2.0
"""How long a driver that was asked to stop waits for the store."""


class Recorder:
    """Writes into the store; writes that the store refuses are kept in the journal.

    Args:
        store: the store to write to.
        record: the sweep.
        journal: keeps writes that the store refuses.
        notice: called with a message for the user.
    """

    def __init__(self, store: Store, record: SweepRecord, journal: Journal, notice: Callable[[str], None]) -> None:
        self._store = store
        self._record = record
        self._journal = journal
        self._notice = notice
        self._kept: set[str] = set()  # tokens of attempts whose end is in the journal
        self.progress = ProgressSaver(store, record.name, notice)
        store.guard(record.name, self._salvage)

    def end(self, attempt: Attempt, outcome: Outcome, trial: Trial) -> Trial:
        """Record how an attempt ended; waits for the store as long as it may come back.

        Args:
            trial: the trial before the end.

        Raises:
            StaleAttemptError: the attempt was recorded as lost.
            StoreMissingError, StoreReplacedError, StoreWithoutKeysError: the store was removed, replaced or made again
                by hand; the end is in the journal.
        """
        ended = replace(
            trial,
            state=outcome.state,
            attempts=attempt.attempt,
            score=outcome.score,
            cost=outcome.cost,
            metrics=dict(outcome.metrics),
            artefacts=dict(outcome.artefacts),
            error=outcome.error,
            ended_at=datetime.now(UTC),
            cost_metric=outcome.cost_metric,
            stopped=outcome.stopped,
            share=outcome.share,
        )
        return self._persist(attempt, ended, 0.0, lambda patience: self._store.end(attempt, outcome, patience))

    def lose(self, attempt: Attempt, reason: str, seconds: float, trial: Trial) -> Trial:
        """Record that an attempt was lost; see `end`."""
        waits = replace(trial, state=TrialState.QUEUED, attempts=attempt.attempt)
        return self._persist(
            attempt, waits, seconds, lambda patience: self._store.lose(attempt, reason, seconds, patience)
        )

    def give_back(self, attempt: Attempt, reason: str, seconds: float, trial: Trial) -> Trial:
        """Queue the trial of an attempt again, without counting a loss; see `end`."""
        waits = replace(trial, state=TrialState.QUEUED, attempts=attempt.attempt)
        return self._persist(
            attempt, waits, seconds, lambda patience: self._store.hand_back(attempt, reason, seconds, patience)
        )

    def hand_back(self, held: Sequence[tuple[Attempt, float, Trial]], reason: str) -> bool:
        """Queue the trials of attempts again, and wait only briefly for the store, because the driver is ending.

        Args:
            held: attempts, the seconds that each ran, and their trials.

        Returns:
            Whether the store accepted everything. The rest is in the journal, and the user is notified.
        """
        self._store.hurry(LAST_PATIENCE_SECONDS)
        unwritten: list[int] = []
        for attempt, seconds, trial in held:
            if attempt.token in self._kept:  # it has ended, and its end is in the journal
                unwritten.append(attempt.number)
                continue
            unsaved = _Unsaved(attempt, *self.progress.take(attempt))
            if unwritten or not self._handed_back(unsaved, reason, seconds):
                unwritten.append(attempt.number)
                waits = replace(trial, state=TrialState.QUEUED, attempts=attempt.attempt)
                self._keep([TrialHistory(waits, unsaved.curve, seconds)])
        if unwritten or len(self._journal):
            self._notice_unwritten(unwritten)
        return not unwritten

    def _handed_back(self, unsaved: _Unsaved, reason: str, seconds: float) -> bool:
        try:
            self._save(unsaved, LAST_PATIENCE_SECONDS)
            self._store.hand_back(unsaved.attempt, reason, seconds)
        except StaleAttemptError:
            self._notice(f"trial {unsaved.attempt.number} was taken over by another driver")
        except StoreError:
            return False
        return True

    def _notice_unwritten(self, numbers: Sequence[int]) -> None:
        which = f": {'trial' if len(numbers) == 1 else 'trials'} {numbers_text(sorted(numbers))}" if numbers else ""
        where = f" it is kept in {self._journal.path}" if self._journal.path else ""
        self._notice(f"not written to the store{which};{where} and the next start of the sweep writes it to the store")

    def bring_in(self, known: Sequence[Trial] = ()) -> None:
        """Write the journal's trials, and other known trials, to the store, and clear the journal."""
        kept = {history.trial.number: history for history in self._journal.histories}
        histories = [TrialHistory(trial) for trial in known if trial.number not in kept]
        self._store.bring_in(self._record, [*histories, *kept.values()])
        self._journal.clear()
        self._kept.clear()

    def bring_in_leftovers(self) -> None:
        """Write the journal's trials to the store if it has come back."""
        if len(self._journal):
            self.bring_in()

    def close(self) -> None:
        """The driver ends."""
        self.progress.close()
        self._journal.release()

    def _persist(self, attempt: Attempt, after: Trial, seconds: float, write: Callable[[float], Trial]) -> Trial:
        """Write the result of an attempt, repeatedly until the store accepts it; meanwhile the journal holds it."""
        unsaved = _Unsaved(attempt, *self.progress.take(attempt))
        history = TrialHistory(after, unsaved.curve, seconds)
        patience, said = FIRST_PATIENCE_SECONDS, False
        while True:
            try:
                self._save(unsaved, patience)
                trial = write(patience)
            except StaleAttemptError:
                self._forget(attempt)
                raise
            except StoreError as error:
                self._keep_end(attempt, history)
                gone = isinstance(error, StoreMissingError) and patience > FIRST_PATIENCE_SECONDS
                if gone or isinstance(error, StoreReplacedError | StoreWithoutKeysError):
                    raise
                if patience > FIRST_PATIENCE_SECONDS and not said:
                    self._notice(f"trial {attempt.number} ended but cannot be recorded yet; still trying: {error}")
                    said = True
                patience = math.inf
            except BaseException:  # the driver was asked to stop while it waited
                self._keep_end(attempt, history)
                raise
            else:
                self._forget(attempt)
                return trial
            time.sleep(RETRY_SECONDS)

    def _save(self, unsaved: _Unsaved, patience: float) -> None:
        """Write an attempt's unsaved progress and decisions."""
        while unsaved.decisions:
            self._store.record_decision(self._record.name, unsaved.decisions[0], patience)
            del unsaved.decisions[0]
        if unsaved.progress:
            self._store.record_progress(unsaved.attempt, unsaved.progress, patience)
            unsaved.progress.clear()

    def _keep_end(self, attempt: Attempt, history: TrialHistory) -> None:
        if attempt.token not in self._kept:
            self._kept.add(attempt.token)
            self._keep([history])

    def _keep(self, histories: Sequence[TrialHistory]) -> None:
        try:
            self._journal.keep(histories)
        except OSError as error:
            self._notice(f"the journal {self._journal.path} cannot be written: {error.strerror}")

    def _forget(self, attempt: Attempt) -> None:
        """Remove an attempt from the journal, because the store holds its result."""
        if attempt.token in self._kept:
            self._kept.discard(attempt.token)
            self._journal.drop(attempt.number)

    def _salvage(self, record: SweepRecord, histories: list[TrialHistory]) -> None:
        """Write all trials of a removed store to the journal, while the open file can still be read."""
        self._keep(histories)
        trials = count_text(histories, "trial is", "trials are")
        self._notice(f"the store's file was removed; its {trials} kept in {self._journal.path}")


@dataclass
class _Unsaved:
    """The data of an attempt that is not in the store yet."""

    attempt: Attempt
    progress: list[Progress]
    decisions: list[StoredDecision]

    def __post_init__(self) -> None:
        attempt = self.attempt.attempt
        self.curve = [CurvePoint(attempt, each.step, each.seconds, dict(each.metrics)) for each in self.progress]
