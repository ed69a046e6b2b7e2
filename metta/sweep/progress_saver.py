"""Save the reports of running trials in a separate thread, so that writes do not count towards a trial's time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from metta.sweep.store.protocol import (
    Attempt,
    StaleAttemptError,
    Store,
    StoredDecision,
    StoreError,
    StoreMissingError,
    StoreReplacedError,
)
from metta.sweep.trial import Progress

PROGRESS_SECONDS = 2.0
"""How often a trial's progress is saved, at most."""
SAVES_PER_SECOND = 2.0
"""How often the progress of any trial is saved, at most: with many trials at once, each is saved less often."""
PATIENCE_SECONDS = 1.0
"""How long a save waits for an unreachable store. After a failure the data is saved the next time."""


@dataclass
class _Unsaved:
    """The reports of an attempt that are not in the store yet."""

    attempt: Attempt
    progress: list[Progress] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)


class ProgressSaver:
    """Receives the reports of running trials, and saves them at intervals.

    Args:
        store: the store to save to.
        sweep: the sweep's name.
        notice: called once with a message if progress waits for the store.
    """

    def __init__(self, store: Store, sweep: str, notice: Callable[[str], None]) -> None:
        self._store = store
        self._sweep = sweep
        self._notice = notice
        self._unsaved: dict[str, _Unsaved] = {}
        self._decisions: list[StoredDecision] = []
        self._stale: set[str] = set()
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = self._said = False

    def begin(self, attempt: Attempt) -> None:
        """Record that an attempt starts."""
        with self._changed:
            self._unsaved[attempt.token] = _Unsaved(attempt)

    def report(self, attempt: Attempt, progress: Progress) -> bool:
        """Receive progress without blocking. Returns whether, as far as known, this driver still holds the attempt."""
        with self._changed:
            self._unsaved[attempt.token].progress.append(progress)
            self._wake()
            return attempt.token not in self._stale

    def decided(self, decision: StoredDecision) -> None:
        """Receive a decision of the optimiser about a running trial, without blocking."""
        with self._changed:
            self._decisions.append(decision)
            self._wake()

    def take(self, attempt: Attempt) -> tuple[list[Progress], list[StoredDecision]]:
        """End an attempt, and return its unsaved progress and all unsaved decisions, which the caller must save."""
        with self._writing, self._changed:
            unsaved = self._unsaved.pop(attempt.token, None)
            decisions, self._decisions = self._decisions, []
            return unsaved.progress if unsaved else [], decisions

    def continue_as(self, attempt: Attempt, successor: Attempt) -> None:
        """From now on record the reports of an attempt under another one, because its trial was claimed again."""
        progress, decisions = self.take(attempt)
        with self._changed:
            self._unsaved[successor.token] = _Unsaved(successor, progress)
            self._decisions += decisions

    def close(self) -> None:
        """End the thread. Data that was not taken is not saved."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2 * PATIENCE_SECONDS)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._ended:
                    return
                wait = self._seconds_left()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
            with self._writing:
                self._save()

    def _seconds_left(self) -> float:
        """Seconds until the next save is due."""
        if self._decisions and not self._said:
            return 0.0
        every = max(PROGRESS_SECONDS, len(self._unsaved) / SAVES_PER_SECOND)
        due = [each.saved_at + every - time.monotonic() for each in self._unsaved.values() if each.progress]
        return min(due, default=3600.0)

    def _save(self) -> None:
        with self._changed:
            waiting = [each for each in self._unsaved.values() if each.progress]
            due = min(waiting, key=lambda each: each.saved_at, default=None)
            progress = list(due.progress) if due else []
            decisions = list(self._decisions)
        try:
            for decision in decisions:
                self._store.record_decision(self._sweep, decision, PATIENCE_SECONDS)
                self._decisions.remove(decision)
            if due is not None:
                self._store.record_progress(due.attempt, progress, PATIENCE_SECONDS)
            self._said = False
        except StaleAttemptError:
            assert due is not None
            self._stale.add(due.attempt.token)
        except StoreError as error:
            gone = isinstance(error, StoreMissingError | StoreReplacedError)  # the loop handles and reports it
            if not self._said and not gone:
                self._notice(f"the progress of trials waits for the store: {error}")
            self._said, progress = True, []
        with self._changed:
            if due is not None:
                due.saved_at = time.monotonic()
                del due.progress[: len(progress)]
