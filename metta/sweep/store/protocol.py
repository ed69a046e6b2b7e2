"""The interface of every store. One contract suite tests all of them.

A driver is a process that suggests and records. It registers with `join`, and from then on renews its lease with
`heartbeat`. Each trial it starts is an attempt that carries a token; only the holder of the current token may record
anything about that trial. When a driver's lease expires, or its process has died, its attempts are lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from metta.common.errors import UserError
from metta.sweep.trial import Progress, Trial, TrialState

MAX_ATTEMPTS = 3
"""After this many lost attempts a trial is failed; after a retry it gets as many again."""


class StoreError(UserError):
    """The store cannot be used: a wrong URL, a refused login, a missing driver, a damaged or newer file."""


class StoreMissingError(StoreError):
    """An open store was removed and did not come back: its file was removed or moved, or its database dropped."""


class StoreWithoutKeysError(StoreError):
    """There are two rows where one is possible: the tables were made again by hand, without their keys."""


class StoreReplacedError(StoreError):
    """Another database has replaced the store of a running driver."""


class SweepExistsError(StoreError):
    """A sweep of that name is already in the store."""


class SweepNotFoundError(StoreError):
    """No sweep of that name is in the store."""


class TrialStateError(UserError):
    """The trial does not exist, or its state does not allow the operation."""


class NumberTakenError(Exception):
    """Another driver started that number first: read the trials and suggest again.

    Attributes:
        next_number: the next trial's number. It may be larger than that after the last trial, if rows were deleted.
    """

    def __init__(self, message: str, next_number: int) -> None:
        super().__init__(message)
        self.next_number = next_number


class StaleAttemptError(Exception):
    """The attempt is no longer the current one of its trial: it was recorded as lost, or has ended."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as stored.

    Attributes:
        name: unique in the store.
        config: the sweep's whole configuration as JSON data: search space, settings, seed, num_trials, ...
        entry_point: how to rebuild the sweep on another machine (path, args, overrides), or None if that is impossible;
            empty if it cannot be read.
        created_at: UTC.
        damage: describes the parts of the stored row that cannot be read; normally None. It is not stored.
    """

    name: str
    config: dict[str, Any]
    entry_point: dict[str, Any] | None
    created_at: datetime
    damage: str | None = None


@dataclass(frozen=True)
class Driver:
    """A registered driver: where it runs, whether its lease holds, and whether it was asked to stop."""

    id: str
    host: str
    pid: int
    seen_at: datetime
    alive: bool
    stopping: bool = False


class Instruction(StrEnum):
    """A request to a driver: continue; start no trial for now; end its running trials and leave."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Attempt:
    """The right to run and to record one attempt of a trial. `suggestion` describes how its params were chosen."""

    sweep: str
    number: int
    attempt: int
    token: str
    params: dict[str, Any]
    suggestion: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, as recorded.

    Attributes:
        seconds: this attempt's training time.
        cost_metric: the metric that `cost` is measured in.
        dropped: for a trial that is added: why it was dropped in the sweep in which it ran.
        stopped: why it was stopped early, or None.
        share: the fraction of a whole run that it completed, 0..1; None if unknown.
    """

    state: TrialState
    score: float | None = None
    cost: float | None = None
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    artefacts: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    cost_metric: str | None = None
    dropped: str | None = None
    stopped: str | None = None
    share: float | None = None


@dataclass(frozen=True)
class StoredDecision:
    """A decision of the optimiser about a trial, stored so that it can be reproduced.

    Attributes:
        number: the number of the trial.
        kind: "stop" or "go on".
        reason: a sentence with the figures.
        details: the inputs of the decision; `seen` is how many points of each trial's curve were known, by number.
        at: time in seconds since 1970; for a new decision the store's clock sets it.
    """

    number: int
    kind: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    at: float | None = None


@dataclass(frozen=True)
class CurvePoint:
    """One point of a trial's learning curve."""

    attempt: int
    step: int
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrialHistory:
    """A trial with everything stored about it, for another store.

    Attributes:
        seconds_lost: see `Store.seconds_lost`.
        holder: for a running trial: the token of its attempt, and its driver as stored; otherwise None.
    """

    trial: Trial
    curve: Sequence[CurvePoint] = ()
    seconds_lost: float = 0.0
    holder: Mapping[str, Any] | None = None


class Store(Protocol):
    """Durable storage of trials. Every method that changes data is one transaction.

    A method waits up to five minutes for a database that is locked, full or unreachable, and logs it; then, or at once
    if waiting cannot help, it raises StoreError.

    Any content of the tables can be read. A value that was damaged or edited by hand reads as empty, an unknown state
    as failed, and `Trial.damage` and `SweepRecord.damage` describe the unreadable parts. Parameters and configurations
    that are not JSON data are refused with UserError. Results are always stored: a metric that is not a number becomes
    NaN.
    """

    @property
    def url(self) -> str:
        """The URL of the store, without any password."""
        ...

    def hurry(self, seconds: float) -> None:
        """From now on wait at most this long for an unreachable database, because the process is about to end."""
        ...

    def guard(self, sweep: str, salvage: Callable[[SweepRecord, list[TrialHistory]], object]) -> None:
        """Protect a sweep from loss if the store is removed, moved or replaced while a driver runs the sweep.

        From then on a different database at the store's URL raises StoreReplacedError, until `reopen`.

        Args:
            salvage: called with everything stored of the sweep, if the store was removed but can still be read.
        """
        ...

    def reopen(self) -> None:
        """Use the database that has replaced the previous one."""
        ...

    def sweeps(self) -> list[SweepRecord]: ...

    def sweep(self, name: str) -> SweepRecord:
        """Raises SweepNotFoundError, with the nearest names."""
        ...

    def create_sweep(
        self, name: str, config: Mapping[str, Any], entry_point: Mapping[str, Any] | None = None
    ) -> SweepRecord:
        """Raises SweepExistsError."""
        ...

    def update_sweep(self, name: str, config: Mapping[str, Any], entry_point: Mapping[str, Any] | None = None) -> None:
        """Replace the configuration, and the entry point if one is given. Raises the revision."""
        ...

    def remove_sweep(self, name: str) -> None: ...

    def join(self, sweep: str, lease_seconds: float = 60.0) -> Driver:
        """Register this process as a driver of the sweep, and return it."""
        ...

    def leave(self, driver: Driver) -> None:
        """Unregister. Attempts that the driver still holds are lost at once."""
        ...

    def heartbeat(self, driver: Driver) -> None:
        """Renew the driver's lease."""
        ...

    def drivers(self, sweep: str) -> list[Driver]:
        """The drivers that have not left, including those that died."""
        ...

    def pause(self, sweep: str) -> None:
        """Ask every driver, including those that join later, to start no trial until `resume`."""
        ...

    def resume(self, sweep: str) -> None:
        """Cancel `pause`, and cancel `stop` for drivers that have not left yet."""
        ...

    def stop(self, sweep: str) -> list[Driver]:
        """Ask the present drivers to end their trials and leave. Returns those that are alive."""
        ...

    def paused(self, sweep: str) -> bool: ...

    def instruction(self, driver: Driver) -> Instruction:
        """The current request to the driver from `pause`, `resume` and `stop`."""
        ...

    def start(
        self,
        driver: Driver,
        number: int,
        params: Mapping[str, Any],
        suggestion: Mapping[str, Any] | None = None,
    ) -> Attempt:
        """Record a new trial as running. `number` must be the next one; else NumberTakenError."""
        ...

    def claim(self, driver: Driver, number: int | None = None) -> Attempt | None:
        """Start the next attempt of a queued trial (the lowest number, unless given); None if no trial is queued.

        A dropped trial is not claimed. A trial whose params cannot be read is failed, because it cannot be run.
        """
        ...

    def record_progress(self, attempt: Attempt, progress: Sequence[Progress], patience: float = math.inf) -> None:
        """Append to the learning curve. Raises StaleAttemptError.

        Args:
            patience: seconds to wait at most for an unreachable store.
        """
        ...

    def end(self, attempt: Attempt, outcome: Outcome, patience: float = math.inf) -> Trial:
        """Record how the attempt ended. The trial's cost is `outcome.cost`. Raises StaleAttemptError.

        Args:
            patience: seconds to wait at most for an unreachable store.

        After a StoreError it is unknown whether the result was recorded: the same call on the same store may be
        repeated. The same holds for `lose`.
        """
        ...

    def lose(self, attempt: Attempt, reason: str, seconds: float = 0.0, patience: float = math.inf) -> Trial:
        """Record the attempt as lost: the trial is queued again, or fails at MAX_ATTEMPTS. Raises StaleAttemptError."""
        ...

    def hand_back(self, attempt: Attempt, reason: str, seconds: float = 0.0, patience: float = math.inf) -> Trial:
        """Queue the trial again because its driver was asked to stop. It does not count as a loss.

        Raises StaleAttemptError.
        """
        ...

    def release_lost(self, sweep: str) -> list[int]:
        """Record the attempts of dead drivers as lost; return the numbers of their trials.

        A driver is dead if its process has ended (which is known only on its own machine), or if its lease expired
        while this process and the database were available to see a renewal. A process never treats its own drivers as
        dead.
        """
        ...

    def enqueue(self, sweep: str, params: Mapping[str, Any], suggestion: Mapping[str, Any] | None = None) -> int:
        """Queue a trial with given hyperparameters under the next number, and return that number."""
        ...

    def retry(self, sweep: str, number: int) -> Trial:
        """Queue a failed trial again under its number. The cost so far counts as lost, except the cost of a mishap.

        Raises TrialStateError: the trial does not exist, did not fail, or is dropped.
        """
        ...

    def drop(self, sweep: str, numbers: Collection[int], reason: str = "") -> list[Trial]:
        """Mark trials of any state as dropped, and return them. Nothing is deleted, and a running trial continues.

        A trial that is already dropped gets the new reason. Raises TrialStateError, and changes nothing, if one of
        them does not exist.
        """
        ...

    def restore(self, sweep: str, numbers: Collection[int]) -> list[Trial]:
        """Undo `drop`, and return the trials.

        Raises TrialStateError, and changes nothing, if one of them does not exist or is not dropped.
        """
        ...

    def add(self, sweep: str, params: Mapping[str, Any], outcome: Outcome) -> int:
        """Add a finished trial that ran elsewhere, under the next number, and return that number."""
        ...

    def append(
        self,
        sweep: str,
        rows: Sequence[tuple[Mapping[str, Any], Outcome | None]],
        curves: Mapping[int, Sequence[CurvePoint]] | None = None,
    ) -> list[int]:
        """Add trials under the next numbers, each with its outcome, or queued if that is None; return the numbers.

        Either all are added or none. A dropped outcome may be queued: such a trial must not be run. `curves` are
        learning curves of trials that ended, by their index in `rows`.
        """
        ...

    def trials(
        self,
        sweep: str,
        states: Collection[TrialState] | None = None,
        changed_since: int = 0,
        numbers: Collection[int] | None = None,
        brief: Collection[str] | None = None,
    ) -> list[Trial]:
        """Trials in the order of their numbers.

        Args:
            states: only trials in one of these.
            changed_since: only trials that changed after this revision.
            numbers: only these.
            brief: read only the metrics of these names, and neither suggestion nor artefacts. For sweeps of very many
                trials.
        """
        ...

    def revision(self, sweep: str) -> int:
        """A number that grows with every change to the sweep's trials."""
        ...

    def seconds_lost(self, sweep: str, number: int) -> float:
        """Seconds of training spent in this trial's lost attempts."""
        ...

    def curve(self, sweep: str, number: int) -> list[CurvePoint]: ...

    def curves(self, sweep: str) -> dict[int, list[CurvePoint]]:
        """The learning curves of all trials that have one, by number."""
        ...

    def record_decision(self, sweep: str, decision: StoredDecision, patience: float = math.inf) -> None:
        """Store a decision about a running trial.

        Args:
            patience: seconds to wait at most for an unreachable store.
        """
        ...

    def decisions(self, sweep: str) -> list[StoredDecision]:
        """The decisions, in order."""
        ...

    def progress(self, sweep: str) -> dict[int, Progress]:
        """The last recorded progress of each running attempt that has reported any, by the trial's number."""
        ...

    def histories(self, sweep: str) -> list[TrialHistory]:
        """A snapshot of everything stored about a sweep's trials, for `import_sweep` of another store.

        A running trial is given as queued, and its attempt as lost, because no driver can end it in the other store.
        """
        ...

    def import_sweep(
        self, record: SweepRecord, trials: Iterable[TrialHistory], decisions: Iterable[StoredDecision] = ()
    ) -> None:
        """Create a sweep that was started elsewhere, with its trials and decisions unchanged: all of it or nothing.

        The trials keep their numbers, which ascend from 0 or more, with gaps where a row was deleted by hand. A trial
        that was running must be given as queued. Raises SweepExistsError.
        """
        ...

    def bring_in(self, record: SweepRecord, histories: Iterable[TrialHistory]) -> list[int]:
        """Merge histories of the same sweep from elsewhere, and return the numbers of the trials that changed.

        A missing sweep is created. A missing trial is added. A trial that ended or was queued again in `histories` ends
        or is queued here too if it is in the same attempt here, or in an earlier one. A trial that has ended or
        advanced here is kept, unless `histories` have a later attempt. A missing trial that runs elsewhere is added as
        running under its holder; without a holder it is queued.

        Raises SweepExistsError: a different sweep has that name.
        """
        ...

    def mirrors(self, sweep: str) -> list[str]:
        """The mirrors that `set_mirrored` recorded."""
        ...

    def mirrored(self, sweep: str, mirror: str) -> dict[str, str]:
        """The digests recorded by `set_mirrored`, by item."""
        ...

    def set_mirrored(self, sweep: str, mirror: str, digests: Mapping[str, str]) -> None:
        """Record that a mirror of the sweep holds these items, each in the version with this digest."""
        ...

    def close(self) -> None: ...
