"""What every store promises. One behavioural test-suite checks it for all of them.

A driver is a process that suggests and records. It registers with `join`, and from then on renews its lease with
`heartbeat`. Each trial it starts is an attempt that carries a token; only the holder of the current token may record
anything of that trial. When a driver's lease runs out, or its process is seen to be dead, its attempts are lost.
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
"""After this many lost attempts a trial is failed, and after as many more when it was retried."""


class StoreError(UserError):
    """The store cannot be used: a wrong URL, a refused login, a missing driver, a damaged or newer file."""


class StoreMissingError(StoreError):
    """The store that was there is gone, and did not come back: its file was removed or moved, its database dropped."""


class StoreReplacedError(StoreError):
    """Another database has taken the place of the store that a driver works with."""


class SweepExistsError(StoreError):
    """A sweep of that name is in the store already."""


class SweepNotFoundError(StoreError):
    """No sweep of that name is in the store."""


class TrialStateError(UserError):
    """The trial is not there, or in a state in which it cannot be done."""


class NumberTakenError(Exception):
    """Another driver started that number first: read again, suggest again."""


class StaleAttemptError(Exception):
    """The attempt is no longer the current one of its trial: it was given up as lost, or has ended."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it is kept.

    Attributes:
        name: unique in the store.
        config: the sweep's whole configuration as JSON data: search space, settings, seed, num_trials, ...
        entry_point: what rebuilds the sweep on another machine (path, args, overrides), or None if nothing can.
        created_at: UTC.
        damage: which parts of the stored row cannot be read, in words; None normally. It is not stored.
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
    """What a driver is asked to do: go on; start no trial for now; end its running trials and leave."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Attempt:
    """The right to run and to record one attempt of a trial. `suggestion` is what was said of its params."""

    sweep: str
    number: int
    attempt: int
    token: str
    params: dict[str, Any]
    suggestion: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, as it is recorded.

    Attributes:
        seconds: this attempt's training time.
        cost_metric: what `cost` is measured in.
        dropped: of a trial that is added: the reason for which it was dropped where it ran.
        stopped: why it was stopped early, or None.
        share: how much of a whole run it did, 0..1; None where nobody knows.
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
    """What the optimiser decided of a trial, kept so that it can be made again.

    Attributes:
        number: of the trial.
        kind: "stop" or "go on".
        reason: in words, with the numbers.
        details: what it was decided from; `seen` is how many points of each trial's curve were known, by number.
        at: when, in seconds since 1970; the store's clock says it of a new one.
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
    """A trial with all that is kept of it, to be put into another store.

    Attributes:
        seconds_lost: see `Store.seconds_lost`.
        holder: of a trial that runs: the token of its attempt, and its driver as stored; None elsewhere.
    """

    trial: Trial
    curve: Sequence[CurvePoint] = ()
    seconds_lost: float = 0.0
    holder: Mapping[str, Any] | None = None


class Store(Protocol):
    """Trials, durably. Every method that changes something is one transaction.

    A method waits up to five minutes for a database that is locked, full or away, and logs it; then, or at once where
    waiting is no use, it raises StoreError.

    Whatever stands in the tables is read. What somebody cut or edited by hand reads as empty, an unknown state as
    failed, and `Trial.damage` and `SweepRecord.damage` say what cannot be read. Parameters and configurations that are
    not JSON data are refused with UserError. Results are always stored: a metric that is not a number is stored as NaN.
    """

    @property
    def url(self) -> str:
        """Where the store is, without any password."""
        ...

    def hurry(self, seconds: float) -> None:
        """From now on wait no longer than this for a database that is away, because the process is to end."""
        ...

    def guard(self, sweep: str, salvage: Callable[[SweepRecord, list[TrialHistory]], object]) -> None:
        """Take care that nothing of a sweep is lost if the store is removed, moved or replaced while a driver runs it.

        From then on a store in another's place raises StoreReplacedError, until `reopen`.

        Args:
            salvage: called with all that is kept of the sweep, if the store is gone while it can still be read.
        """
        ...

    def reopen(self) -> None:
        """Go on with the database that has taken the place of the former one."""
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
        """Unregister. Attempts the driver still holds are lost at once."""
        ...

    def heartbeat(self, driver: Driver) -> None:
        """Renew the driver's lease."""
        ...

    def drivers(self, sweep: str) -> list[Driver]:
        """The drivers that have not left, those that died without leaving among them."""
        ...

    def pause(self, sweep: str) -> None:
        """Ask every driver, those yet to join among them, to start no trial until `resume`."""
        ...

    def resume(self, sweep: str) -> None:
        """Take back `pause`, and `stop` for drivers that have not left yet."""
        ...

    def stop(self, sweep: str) -> list[Driver]:
        """Ask the drivers that are there to end what they run and leave. Returns those alive."""
        ...

    def paused(self, sweep: str) -> bool: ...

    def instruction(self, driver: Driver) -> Instruction:
        """What `pause`, `resume` and `stop` ask of the driver."""
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
        """Start the next attempt of a queued trial (the lowest number, unless given); None if there is none.

        A dropped trial is not claimed. One whose params cannot be read is failed, because nobody knows what to run.
        """
        ...

    def record_progress(self, attempt: Attempt, progress: Sequence[Progress], patience: float = math.inf) -> None:
        """Append to the learning curve. Raises StaleAttemptError.

        Args:
            patience: seconds to wait at most for a store that is away.
        """
        ...

    def end(self, attempt: Attempt, outcome: Outcome, patience: float = math.inf) -> Trial:
        """Record how the attempt ended. The trial's cost is `outcome.cost`. Raises StaleAttemptError.

        Args:
            patience: seconds to wait at most for a store that is away.

        After a StoreError nobody knows whether it was recorded: the same call on the same store may be repeated. So
        with `lose`.
        """
        ...

    def lose(self, attempt: Attempt, reason: str, seconds: float = 0.0, patience: float = math.inf) -> Trial:
        """Give the attempt up: the trial is queued again, or failed after MAX_ATTEMPTS. Raises StaleAttemptError."""
        ...

    def hand_back(self, attempt: Attempt, reason: str, seconds: float = 0.0, patience: float = math.inf) -> Trial:
        """Queue the trial again because its driver was asked to stop. It does not count as a loss.

        Raises StaleAttemptError.
        """
        ...

    def release_lost(self, sweep: str) -> list[int]:
        """Give up the attempts of drivers that are gone; return the numbers of their trials.

        Gone is a driver whose process is dead (which is known on its own machine), or whose lease ran out while this
        process and the database were there to see it renewed. A process never gives up its own drivers.
        """
        ...

    def enqueue(self, sweep: str, params: Mapping[str, Any], suggestion: Mapping[str, Any] | None = None) -> int:
        """Queue a trial with given hyperparameters under the next number, and return that number."""
        ...

    def retry(self, sweep: str, number: int) -> Trial:
        """Queue a failed trial again under its number. What it spent so far counts as lost, but not that of a mishap.

        Raises TrialStateError: there is no such trial, it did not fail, or it is dropped.
        """
        ...

    def drop(self, sweep: str, numbers: Collection[int], reason: str = "") -> list[Trial]:
        """Mark trials of any state as dropped, and return them. Nothing is deleted, and a running trial goes on.

        A trial that is dropped already gets the new reason. Raises TrialStateError, and changes nothing, where one of
        them is not there.
        """
        ...

    def restore(self, sweep: str, numbers: Collection[int]) -> list[Trial]:
        """Undo `drop`, and return the trials.

        Raises TrialStateError, and changes nothing, where one of them is not there or not dropped.
        """
        ...

    def add(self, sweep: str, params: Mapping[str, Any], outcome: Outcome) -> int:
        """Add a finished trial that was not run here, under the next number, and return that number."""
        ...

    def append(
        self,
        sweep: str,
        rows: Sequence[tuple[Mapping[str, Any], Outcome | None]],
        curves: Mapping[int, Sequence[CurvePoint]] | None = None,
    ) -> list[int]:
        """Add trials, each with how it ended, or queued where that is None, under the next numbers; return these.

        All are added, or none. An outcome may be queued where it is dropped: a trial that nobody is to run. `curves`
        are learning curves of trials that ended, by their place in `rows`.
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
            brief: the names of the metrics that are read; suggestion and artefacts are then left out. For sweeps of
                very many trials.
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
        """Keep what was decided of a trial while it ran.

        Args:
            patience: seconds to wait at most for a store that is away.
        """
        ...

    def decisions(self, sweep: str) -> list[StoredDecision]:
        """What was decided, in order."""
        ...

    def progress(self, sweep: str) -> dict[int, Progress]:
        """What was last recorded of each running attempt that has shown progress, by the trial's number."""
        ...

    def histories(self, sweep: str) -> list[TrialHistory]:
        """All that is kept of a sweep's trials, as of one moment, for `import_sweep` of another store.

        A trial that runs is shown as queued, and its attempt as lost: nobody can end it in the other store.
        """
        ...

    def import_sweep(
        self, record: SweepRecord, trials: Iterable[TrialHistory], decisions: Iterable[StoredDecision] = ()
    ) -> None:
        """Create a sweep that was begun elsewhere, with its trials and decisions as they are: all of it or nothing.

        The trials keep their numbers, which ascend from 0 or more, with gaps where somebody deleted a row by hand. None
        is running: one that was is queued again. Raises SweepExistsError.
        """
        ...

    def bring_in(self, record: SweepRecord, histories: Iterable[TrialHistory]) -> list[int]:
        """Add what is known elsewhere of the same sweep, and return the numbers of the trials that this changed.

        A sweep that is missing is made. A trial that is missing is added. One that is said to have ended, or to wait
        again, ends or waits here too if it is in the same attempt here. What has ended here, or went on since, stays. A
        missing trial that runs elsewhere goes on running, under the driver that holds it; without a holder it waits.

        Raises SweepExistsError: the sweep of that name is another one.
        """
        ...

    def mirrors(self, sweep: str) -> list[str]:
        """The mirrors with notes."""
        ...

    def mirrored(self, sweep: str, mirror: str) -> dict[str, str]:
        """What was noted by `set_mirrored`, by item."""
        ...

    def set_mirrored(self, sweep: str, mirror: str, digests: Mapping[str, str]) -> None:
        """Note that a mirror of the sweep holds these items, each in the version that has this digest."""
        ...

    def close(self) -> None: ...
