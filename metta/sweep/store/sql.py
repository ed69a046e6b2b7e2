"""The store in SQL: one implementation for SQLite and PostgreSQL.

Every change of a sweep's trials first increments the sweep's revision. That locks the sweep's row (on SQLite the whole
file), so changes of one sweep run one after the other, each number is assigned once, and revisions become visible in
order.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from metta.common.errors import nearest
from metta.sweep.store.database import Database
from metta.sweep.store.process import this_process
from metta.sweep.store.protocol import (
    MAX_ATTEMPTS,
    Attempt,
    CurvePoint,
    Driver,
    Instruction,
    NumberTakenError,
    Outcome,
    StaleAttemptError,
    StoredDecision,
    StoreError,
    SweepExistsError,
    SweepNotFoundError,
    SweepRecord,
    TrialHistory,
    TrialStateError,
)
from metta.sweep.store.results import LARGEST_NUMBER, as_float, as_floats, as_step, is_trial_number
from metta.sweep.store.rows import (
    BRIEF_COLUMNS,
    POINT_COLUMNS,
    TRIAL_COLUMNS,
    Lease,
    has_params,
    read_curve_point,
    read_decision,
    read_lease,
    read_progress,
    read_sweep_record,
    read_trial,
    read_trials,
    readable_number,
)
from metta.sweep.store.schema import attempts, curve_points, decisions, drivers, mirrored, now, sweeps, trials, up_since
from metta.sweep.sweep_name import shown_name
from metta.sweep.trial import Progress, Trial, TrialState

if TYPE_CHECKING:
    AnyRow = Row[*tuple[Any, ...]]

_RUNNING, _ENDED, _LOST, _RETURNED = "running", "ended", "lost", "returned"
"""States of an attempt. A returned attempt is like a lost one, but does not count as a loss."""

_MOST_ATTEMPTS = 1000
"""The most attempts of a trial that a copy keeps; a higher count was edited by hand."""

_LARGEST_COUNT = 2**31 - 1
_LARGEST_REVISION = 2**53
"""A revision outside of 0 to this was edited by hand; the next one is then 1, and drivers read everything again."""

_LONGEST_KIND = 20

_QUICK_COLUMNS = (sweeps.c.id, sweeps.c.revision, sweeps.c.paused)

# The statements that write a trial are built once, because building one takes as long as the database takes to run it.
# Values that a statement does not name are passed when it is executed, under the names of their columns.
_HAS_NUMBER = and_(trials.c.number.between(0, LARGEST_NUMBER), trials.c.number == cast(trials.c.number, Integer))
"""As `is_trial_number`; in SQLite a number may be text, a fraction, or missing."""

_NEXT_REVISION = case((sweeps.c.revision.between(0, _LARGEST_REVISION), sweeps.c.revision + 1), else_=1)
_TOUCH = update(sweeps).values(revision=_NEXT_REVISION).returning(sweeps.c.id, sweeps.c.name, sweeps.c.revision)
_TOUCH_BY_NAME = _TOUCH.where(sweeps.c.name == bindparam("whose"))
_TOUCH_BY_DRIVER = _TOUCH.where(
    sweeps.c.id == select(drivers.c.sweep_id).where(drivers.c.id == bindparam("whose")).scalar_subquery()
)
_RENEW = (
    update(drivers)
    .where(drivers.c.id == bindparam("driver"), drivers.c.left_at.is_(None))
    .values(seen_at=now(), seen_monotonic=bindparam("monotonic"))
)
_LAST_NUMBER = (
    select(func.max(trials.c.number))
    .where(trials.c.sweep_id == bindparam("sweep"))
    .union_all(select(func.max(attempts.c.number)).where(attempts.c.sweep_id == bindparam("sweep")))
)
_START_TRIAL = insert(trials).values(created_at=now(), started_at=now())
_START_ATTEMPT = insert(attempts).values(started_at=now())
_END_TRIAL = (
    update(trials)
    .where(trials.c.sweep_id == bindparam("of_sweep"), trials.c.number == bindparam("of_number"))
    .values(ended_at=now())
    .returning(*TRIAL_COLUMNS)
)
_END_ATTEMPT = (
    update(attempts)
    .where(attempts.c.token == bindparam("held"), attempts.c.state == _RUNNING)
    .values(state=_ENDED, ended_at=now())
)
_DROP_TRIAL = update(trials).where(
    trials.c.sweep_id == bindparam("of_sweep"), trials.c.number == bindparam("of_number")
)
_APPEND_QUEUED = insert(trials).values(created_at=now())
_APPEND_ENDED = insert(trials).values(created_at=now(), ended_at=now())


class SqlStore:
    """A `Store` in an SQLite file or a PostgreSQL database. Threads may share it."""

    def __init__(self, url: str, create: bool = True) -> None:
        self._database = Database(url, create)
        self._unconfirmed: set[str] = set()  # tokens whose last commit may have succeeded without a confirmation
        self._joined: set[str] = set()  # drivers of this process, which are alive by definition
        self._absent_at = -math.inf  # when this process last found that it had been suspended or disconnected

    @property
    def url(self) -> str:
        return self._database.url

    def close(self) -> None:
        self._database.close()

    def hurry(self, seconds: float) -> None:
        self._database.patience = seconds

    def guard(self, sweep: str, salvage: Callable[[SweepRecord, list[TrialHistory]], object]) -> None:
        def read(connection: Connection) -> None:
            record = read_sweep_record(self._find_sweep(connection, sweep, *sweeps.c))
            holders = _holders(connection, self._find_sweep(connection, sweep).id)
            histories = self._histories(connection, sweep, running=TrialState.RUNNING)
            salvage(record, [replace(each, holder=holders.get(each.trial.number)) for each in histories])

        self._database.salvage = read

    def reopen(self) -> None:
        self._database.reopen()

    # ---- sweeps

    def sweeps(self) -> list[SweepRecord]:
        rows = self._database.read(lambda connection: connection.execute(select(sweeps).order_by(sweeps.c.id)).all())
        return [read_sweep_record(row) for row in rows if isinstance(row.name, str)]

    def sweep(self, name: str) -> SweepRecord:
        return read_sweep_record(self._database.read(lambda connection: self._find_sweep(connection, name, *sweeps.c)))

    def create_sweep(
        self, name: str, config: Mapping[str, Any], entry_point: Mapping[str, Any] | None = None
    ) -> SweepRecord:
        origin = _new_id()

        def operation(connection: Connection, again: bool) -> SweepRecord:
            existing = connection.execute(select(sweeps).where(sweeps.c.name == name)).one_or_none()
            if existing is not None:
                if again and existing.origin == origin:
                    return read_sweep_record(existing)
                raise self._sweep_exists(name)
            values = {"name": name, "config": config, "entry_point": entry_point, "revision": 0, "origin": origin}
            try:
                row = connection.execute(insert(sweeps).values(**values, created_at=now()).returning(sweeps)).one()
            except IntegrityError:  # another process created it since we looked
                raise self._sweep_exists(name) from None
            _remove_leftovers(connection, row.id)
            return read_sweep_record(row)

        return self._database.write(operation)

    def update_sweep(self, name: str, config: Mapping[str, Any], entry_point: Mapping[str, Any] | None = None) -> None:
        values = {"config": config} | ({"entry_point": entry_point} if entry_point is not None else {})

        def operation(connection: Connection, again: bool) -> None:
            sweep = self._touch(connection, name)
            connection.execute(update(sweeps).where(sweeps.c.id == sweep.id).values(**values))

        self._database.write(operation)

    def remove_sweep(self, name: str) -> None:
        def operation(connection: Connection, again: bool) -> None:
            removed = connection.execute(delete(sweeps).where(sweeps.c.name == name)).rowcount
            if not removed and not again:
                raise self._no_sweep(connection, name)

        self._database.write(operation)

    # ---- drivers

    def join(self, sweep: str, lease_seconds: float = 60.0) -> Driver:
        driver_id, process = _new_id(), this_process()

        def operation(connection: Connection, again: bool) -> Driver:
            sweep_id = self._find_sweep(connection, sweep).id
            if not (again and connection.scalar(select(drivers.c.id).where(drivers.c.id == driver_id))):
                values = {
                    "id": driver_id,
                    "sweep_id": sweep_id,
                    "host": process.host,
                    "pid": process.pid,
                    "boot": process.boot,
                    "process_started": process.started,
                    "lease_seconds": lease_seconds,
                }
                connection.execute(insert(drivers).values(**values, **_renewal()))
            row = connection.execute(_drivers().where(drivers.c.id == driver_id)).one()
            return read_lease(row).as_driver(alive=True)

        driver = self._database.write(operation)
        self._joined.add(driver.id)
        return driver

    def leave(self, driver: Driver) -> None:
        def operation(connection: Connection, again: bool) -> None:
            sweep = self._touch(connection, driver)
            held = and_(attempts.c.driver_id == driver.id, attempts.c.state == _RUNNING)
            for attempt in connection.execute(select(attempts).where(held)).all():
                _give_up(connection, attempt, "its driver left", 0.0, sweep.revision)
            connection.execute(update(drivers).where(drivers.c.id == driver.id).values(left_at=now()))

        self._database.write(operation)
        self._joined.discard(driver.id)

    def heartbeat(self, driver: Driver) -> None:
        self._database.write(lambda connection, again: _renew(connection, driver))

    def drivers(self, sweep: str) -> list[Driver]:
        def operation(connection: Connection) -> list[Driver]:
            return self._present_drivers(connection, self._find_sweep(connection, sweep).id)

        return self._database.read(operation)

    def pause(self, sweep: str) -> None:
        self._database.write(lambda connection, again: self._set_paused(connection, sweep, True))

    def resume(self, sweep: str) -> None:
        def operation(connection: Connection, again: bool) -> None:
            self._set_paused(connection, sweep, False)
            self._set_stopping(connection, sweep, False)

        self._database.write(operation)

    def stop(self, sweep: str) -> list[Driver]:
        def operation(connection: Connection, again: bool) -> list[Driver]:
            self._set_stopping(connection, sweep, True)
            return self._present_drivers(connection, self._find_sweep(connection, sweep).id)

        return [driver for driver in self._database.write(operation) if driver.alive]

    def paused(self, sweep: str) -> bool:
        return bool(self._database.read(lambda connection: self._find_sweep(connection, sweep)).paused)

    def instruction(self, driver: Driver) -> Instruction:
        asked = select(drivers.c.stopping, sweeps.c.paused).join(sweeps).where(drivers.c.id == driver.id)
        row = self._database.read(lambda connection: connection.execute(asked).one_or_none())
        if row is None:
            raise self._sweep_removed(driver)
        return Instruction.STOP if row.stopping else Instruction.PAUSE if row.paused else Instruction.RUN

    def _set_paused(self, connection: Connection, sweep: str, paused: bool) -> None:
        sweep_id = self._find_sweep(connection, sweep).id
        connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(paused=paused))

    def _set_stopping(self, connection: Connection, sweep: str, stopping: bool) -> None:
        there = drivers.c.sweep_id == self._find_sweep(connection, sweep).id, drivers.c.left_at.is_(None)
        connection.execute(update(drivers).where(*there).values(stopping=stopping))

    def _present_drivers(self, connection: Connection, sweep_id: int) -> list[Driver]:
        """The sweep's drivers that have not left, and which of them are alive.

        A process that was suspended or disconnected from the database may have missed renewals, so it must not
        conclude that others are dead: until it has been present for as long as a lease, it treats every lease as valid.
        """
        query = _drivers().where(drivers.c.sweep_id == sweep_id, drivers.c.left_at.is_(None))
        leases = [read_lease(row) for row in connection.execute(query.order_by(drivers.c.seen_at)).all()]
        if any(lease.driver in self._joined and not _lease_holds(lease) for lease in leases):
            self._absent_at = time.monotonic()
        present_seconds = time.monotonic() - max(self._absent_at, self._database.troubled_at)
        return [lease.as_driver(lease.driver in self._joined or _is_alive(lease, present_seconds)) for lease in leases]

    # ---- attempts

    def start(
        self,
        driver: Driver,
        number: int,
        params: Mapping[str, Any],
        suggestion: Mapping[str, Any] | None = None,
    ) -> Attempt:
        token = _new_id()

        def operation(connection: Connection, again: bool) -> Attempt:
            sweep = self._touch(connection, driver)
            _renew(connection, driver)
            if not (
                again and connection.scalar(select(attempts.c.number).where(attempts.c.token == token)) is not None
            ):
                next_number = _next_number(connection, sweep.id)
                if number != next_number:
                    reason = f"{sweep.name}: the next trial is number {next_number}, not {number}"
                    raise NumberTakenError(reason, next_number)
                values = _new_trial(sweep, number, token, params, suggestion or {})
                connection.execute(_START_TRIAL, values | {"state": TrialState.RUNNING, "attempts": 1})
                _insert_attempt(connection, sweep.id, number, 1, token, driver)
            return Attempt(sweep.name, number, 1, token, dict(params), dict(suggestion or {}))

        return self._database.write(operation)

    def claim(self, driver: Driver, number: int | None = None) -> Attempt | None:
        token = _new_id()

        def find(connection: Connection) -> int | None:
            sweep_id = select(drivers.c.sweep_id).where(drivers.c.id == driver.id).scalar_subquery()
            waiting = trials.c.sweep_id == sweep_id, trials.c.state == TrialState.QUEUED, trials.c.dropped.is_(None)
            query = select(func.min(trials.c.number)).where(*waiting, _HAS_NUMBER)
            found: int | None = connection.scalar(query if number is None else query.where(trials.c.number == number))
            return found

        def operation(connection: Connection, again: bool) -> Attempt | None:
            sweep = self._touch(connection, driver)
            _renew(connection, driver)
            if again:
                done = connection.execute(select(attempts).where(attempts.c.token == token)).one_or_none()
                if done is not None:
                    return _claimed(connection, sweep, done.number, done.attempt, token)
            while (claimed := find(connection)) is not None:
                attempt = _claim(connection, sweep, claimed, token, driver)
                if attempt is not None:
                    return attempt
            return None

        if self._database.read(find) is None:  # without a lock: most polls find nothing
            return None
        return self._database.write(operation)

    def record_progress(self, attempt: Attempt, progress: Sequence[Progress], patience: float = math.inf) -> None:
        origin = _new_id()
        points = [
            {
                "token": attempt.token,
                "origin": origin,
                "step": as_step(point.step),
                "seconds": as_float(point.seconds),
                "metrics": as_floats(point.metrics),
            }
            for point in progress
        ]
        total = None if not progress or progress[-1].total is None else as_step(progress[-1].total)

        def operation(connection: Connection, again: bool) -> None:
            held = attempts.c.token == attempt.token
            row = connection.execute(
                select(attempts.c.state, attempts.c.total).where(held).with_for_update()
            ).one_or_none()
            written = curve_points.c.origin == origin, curve_points.c.token == attempt.token
            if again and connection.scalar(select(curve_points.c.id).where(*written).limit(1)) is not None:
                return
            if row is None or row.state != _RUNNING:
                raise _stale(attempt)
            connection.execute(insert(curve_points), points)
            if row.total != total:
                connection.execute(update(attempts).where(held).values(total=total))

        if points:
            self._database.write(operation, patience)

    def end(self, attempt: Attempt, outcome: Outcome, patience: float = math.inf) -> Trial:
        if not outcome.state.ended:
            raise ValueError(f"an attempt ends as completed, failed or pruned, not as {outcome.state}")

        def operation(connection: Connection, again: bool) -> Trial:
            sweep = self._touch(connection, attempt.sweep)
            ending = {"held": attempt.token, "seconds": as_float(outcome.seconds)}
            if not connection.execute(_END_ATTEMPT, ending).rowcount:
                if again and _attempt_state(connection, attempt) == _ENDED:
                    return _read_trial(connection, sweep.id, attempt)
                raise _stale(attempt)
            this = {"of_sweep": sweep.id, "of_number": attempt.number, "revision": sweep.revision}
            row = connection.execute(_END_TRIAL, this | _ending(outcome)).one_or_none()
            if row is None:
                raise _stale(attempt)
            return read_trial(row)

        return self._record(attempt, operation, patience)

    def lose(self, attempt: Attempt, reason: str, seconds: float = 0.0, patience: float = math.inf) -> Trial:
        return self._give_up(attempt, reason, seconds, _LOST, patience)

    def hand_back(self, attempt: Attempt, reason: str, seconds: float = 0.0, patience: float = math.inf) -> Trial:
        return self._give_up(attempt, reason, seconds, _RETURNED, patience)

    def _give_up(self, attempt: Attempt, reason: str, seconds: float, state: str, patience: float = math.inf) -> Trial:
        def operation(connection: Connection, again: bool) -> Trial:
            sweep = self._touch(connection, attempt.sweep)
            held = and_(attempts.c.token == attempt.token, attempts.c.state == _RUNNING)
            row = connection.execute(select(attempts).where(held)).one_or_none()
            if row is not None:
                _give_up(connection, row, reason, as_float(seconds), sweep.revision, state)
            elif not (again and _attempt_state(connection, attempt) == state):
                raise _stale(attempt)
            return _read_trial(connection, sweep.id, attempt)

        return self._record(attempt, operation, patience)

    def _record(self, attempt: Attempt, operation: Callable[[Connection, bool], Trial], patience: float) -> Trial:
        """Write the result of an attempt. A caller may repeat the call after an error that the store is unavailable."""
        unsure = attempt.token in self._unconfirmed
        try:
            trial = self._database.write(lambda connection, again: operation(connection, again or unsure), patience)
        except StoreError:
            self._unconfirmed.add(attempt.token)
            raise
        self._unconfirmed.discard(attempt.token)
        return trial

    def release_lost(self, sweep: str) -> list[int]:
        released: set[int] = set()

        def lost(connection: Connection) -> list[tuple[AnyRow, Driver | None]]:
            """Running attempts of dead drivers."""
            sweep_id = self._find_sweep(connection, sweep).id
            held = and_(attempts.c.sweep_id == sweep_id, attempts.c.state == _RUNNING)
            running = connection.execute(select(attempts).where(held)).all()
            if not running:
                return []
            holders = {driver.id: driver for driver in self._present_drivers(connection, sweep_id)}
            held_by = [(each, holders.get(each.driver_id)) for each in running if is_trial_number(each.number)]
            return [(attempt, driver) for attempt, driver in held_by if driver is None or not driver.alive]

        def operation(connection: Connection, again: bool) -> None:
            revision = self._touch(connection, sweep).revision
            for attempt, driver in lost(connection):
                process = f" (process {driver.pid} on {driver.host})" if driver else ""
                reason = f"its driver{process} died or was disconnected"
                _give_up(connection, attempt, reason, 0.0, revision)
                released.add(attempt.number)
            for sweep_id, number in orphans(connection):
                this = trials.c.sweep_id == sweep_id, trials.c.number == number
                connection.execute(update(trials).where(*this).values(state=TrialState.QUEUED, revision=revision))
                released.add(number)

        def orphans(connection: Connection) -> list[tuple[int, int]]:
            """Trials in state running that no driver runs, because their rows were edited by hand."""
            sweep_id = self._find_sweep(connection, sweep).id
            mine = attempts.c.sweep_id == sweep_id, attempts.c.number.is_not(None)
            held = select(attempts.c.number).where(*mine, attempts.c.state == _RUNNING)
            running = trials.c.sweep_id == sweep_id, trials.c.state == TrialState.RUNNING
            query = select(trials.c.number).where(*running, _HAS_NUMBER, trials.c.number.not_in(held))
            return [(sweep_id, number) for number in connection.scalars(query)]

        # Without a lock, because most polls find nothing
        if self._database.read(lambda connection: bool(lost(connection) or orphans(connection))):
            self._database.write(operation)
        return sorted(released)

    # ---- trials

    def enqueue(self, sweep: str, params: Mapping[str, Any], suggestion: Mapping[str, Any] | None = None) -> int:
        return self._append(sweep, [(params, suggestion or {}, None)])[0]

    def retry(self, sweep: str, number: int) -> Trial:
        def operation(connection: Connection, again: bool) -> Trial:
            row = self._touch(connection, sweep)
            this = trials.c.sweep_id == row.id, trials.c.number == number
            found = connection.execute(_one_trial(row.id, number)).one_or_none()
            trial = None if found is None else read_trial(found)
            done = again and trial is not None and trial.state in (TrialState.QUEUED, TrialState.RUNNING)
            if not done:
                _check_retry(sweep, number, trial)
                ended = attempts.c.sweep_id == row.id, attempts.c.number == number, attempts.c.state == _ENDED
                spent = {"seconds": 0.0} if trial is not None and trial.mishap else {}
                connection.execute(update(attempts).where(*ended).values(state=_RETURNED, reason="retried", **spent))
                fresh = dict.fromkeys(("score", "cost", "cost_metric", "error", "ended_at", "stopped", "share"))
                values = {"state": TrialState.QUEUED, "metrics": {}, "artefacts": {}, "revision": row.revision}
                connection.execute(update(trials).where(*this).values(**fresh | values))
            return read_trial(connection.execute(_one_trial(row.id, number)).one())

        return self._database.write(operation)

    def add(self, sweep: str, params: Mapping[str, Any], outcome: Outcome) -> int:
        return self.append(sweep, [(params, outcome)])[0]

    def append(
        self,
        sweep: str,
        rows: Sequence[tuple[Mapping[str, Any], Outcome | None]],
        curves: Mapping[int, Sequence[CurvePoint]] | None = None,
    ) -> list[int]:
        for _, outcome in rows:
            waits = outcome is None or (outcome.state is TrialState.QUEUED and outcome.dropped is not None)
            if outcome is not None and not outcome.state.ended and not waits:
                raise ValueError(f"an added trial is completed, failed or pruned, not {outcome.state}")
        return self._append(sweep, [(params, {}, outcome) for params, outcome in rows], curves)

    def _append(
        self,
        sweep: str,
        new: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Outcome | None]],
        curves: Mapping[int, Sequence[CurvePoint]] | None = None,
    ) -> list[int]:
        """Add trials: the params, suggestion and outcome (None if queued) of each, and curves by the index in `new`."""
        origin = _new_id()

        def operation(connection: Connection, again: bool) -> list[int]:
            row = self._touch(connection, sweep)
            if again:
                appended = select(trials.c.number).where(trials.c.sweep_id == row.id, trials.c.origin == origin)
                if numbers := connection.scalars(appended.order_by(trials.c.number)).all():
                    return list(numbers)
            first = _next_number(connection, row.id)
            queued: list[dict[str, Any]] = []
            ended: list[dict[str, Any]] = []
            for number, (params, suggestion, outcome) in enumerate(new, start=first):
                values = _new_trial(row, number, origin, params, suggestion)
                values["dropped"] = None if outcome is None else outcome.dropped
                if outcome is None or not outcome.state.ended:
                    queued.append(values | {"state": TrialState.QUEUED})
                else:
                    ended.append(values | _ending(outcome))
            for statement, values_of_each in ((_APPEND_QUEUED, queued), (_APPEND_ENDED, ended)):
                if values_of_each:
                    connection.execute(statement, values_of_each)
            for place, curve in (curves or {}).items():
                _insert_curve(connection, row.id, first + place, origin, curve)
            return list(range(first, first + len(new)))

        if not new:
            self.revision(sweep)  # there must be such a sweep
            return []
        return self._database.write(operation)

    def drop(self, sweep: str, numbers: Collection[int], reason: str = "") -> list[Trial]:
        return self._set_dropped(sweep, numbers, str(reason))

    def restore(self, sweep: str, numbers: Collection[int]) -> list[Trial]:
        return self._set_dropped(sweep, numbers, None)

    def _set_dropped(self, sweep: str, numbers: Collection[int], reason: str | None) -> list[Trial]:
        """Drop trials, or restore them if `reason` is None: all of them or none."""
        wanted = sorted(set(numbers))

        def operation(connection: Connection, again: bool) -> list[Trial]:
            row = self._touch(connection, sweep)
            dropped = dict(
                connection.execute(select(trials.c.number, trials.c.dropped).where(trials.c.sweep_id == row.id)).all()
            )
            _check_in_sweep(sweep, wanted, dropped)
            if reason is None and not (again and all(dropped[number] is None for number in wanted)):
                _check_dropped(sweep, wanted, dropped)
            keys = [{"of_number": number, "dropped": reason, "revision": row.revision} for number in wanted]
            connection.execute(_DROP_TRIAL, [key | {"of_sweep": row.id} for key in keys])
            return [read_trial(connection.execute(_one_trial(row.id, number)).one()) for number in wanted]

        if not wanted:
            self.revision(sweep)  # there must be such a sweep
            return []
        return self._database.write(operation)

    def trials(
        self,
        sweep: str,
        states: Collection[TrialState] | None = None,
        changed_since: int = 0,
        numbers: Collection[int] | None = None,
        brief: Collection[str] | None = None,
    ) -> list[Trial]:
        columns = TRIAL_COLUMNS if brief is None else BRIEF_COLUMNS

        def operation(connection: Connection) -> list[Trial]:
            sweep_id = self._find_sweep(connection, sweep).id
            query = select(*columns).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number)
            if numbers is not None:
                query = query.where(trials.c.number.in_(sorted(numbers)))
            if changed_since:
                query = query.where(trials.c.revision > changed_since)
            if states is not None:
                query = query.where(_is_in(states))
            return read_trials(connection.execute(query), brief)

        return self._database.read(operation)

    def revision(self, sweep: str) -> int:
        return as_step(self._database.read(lambda connection: self._find_sweep(connection, sweep)).revision)

    def seconds_lost(self, sweep: str, number: int) -> float:
        def operation(connection: Connection) -> float:
            sweep_id = self._find_sweep(connection, sweep).id
            mine = attempts.c.sweep_id == sweep_id, attempts.c.number == number
            lost = *mine, attempts.c.state.in_((_LOST, _RETURNED))
            return readable_number(connection.scalar(select(func.sum(attempts.c.seconds)).where(*lost)))

        return self._database.read(operation)

    def curve(self, sweep: str, number: int) -> list[CurvePoint]:
        def operation(connection: Connection) -> Sequence[AnyRow]:
            sweep_id = self._find_sweep(connection, sweep).id
            query = _curve_points().where(attempts.c.sweep_id == sweep_id, attempts.c.number == number)
            return connection.execute(query).all()

        return [read_curve_point(row) for row in self._database.read(operation)]

    def curves(self, sweep: str) -> dict[int, list[CurvePoint]]:
        def operation(connection: Connection) -> dict[int, list[CurvePoint]]:
            return dict(_all_curves(connection, self._find_sweep(connection, sweep).id))

        return self._database.read(operation)

    def record_decision(self, sweep: str, decision: StoredDecision, patience: float = math.inf) -> None:
        def operation(connection: Connection, again: bool) -> None:
            row = _decision_row(self._find_sweep(connection, sweep).id, decision)
            connection.execute(insert(decisions).values(row | {"at": now() if decision.at is None else decision.at}))

        self._database.write(operation, patience)

    def decisions(self, sweep: str) -> list[StoredDecision]:
        def operation(connection: Connection) -> list[StoredDecision]:
            mine = decisions.c.sweep_id == self._find_sweep(connection, sweep).id
            rows = connection.execute(select(decisions).where(mine).order_by(decisions.c.id)).all()
            return [read_decision(row) for row in rows]

        return self._database.read(operation)

    def progress(self, sweep: str) -> dict[int, Progress]:
        points = curve_points.alias()
        newest = select(func.max(points.c.id)).where(points.c.token == attempts.c.token)
        query = (
            select(attempts.c.number, attempts.c.total, *POINT_COLUMNS)
            .select_from(attempts)
            .join(curve_points, curve_points.c.id == newest.scalar_subquery())
        )

        def operation(connection: Connection) -> Sequence[AnyRow]:
            sweep_id = self._find_sweep(connection, sweep).id
            return connection.execute(query.where(attempts.c.sweep_id == sweep_id, attempts.c.state == _RUNNING)).all()

        rows = self._database.read(operation)
        return {row.number: read_progress(row) for row in rows if is_trial_number(row.number)}

    # ---- copies

    def histories(self, sweep: str) -> list[TrialHistory]:
        return self._database.read(lambda connection: self._histories(connection, sweep))

    def _histories(
        self, connection: Connection, sweep: str, running: TrialState = TrialState.QUEUED
    ) -> list[TrialHistory]:
        sweep_id = self._find_sweep(connection, sweep).id
        query = select(*TRIAL_COLUMNS).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number)
        rows = read_trials(connection.execute(query))
        curves = _all_curves(connection, sweep_id)
        lost: defaultdict[int, float] = defaultdict(float)
        given_up = attempts.c.sweep_id == sweep_id, attempts.c.state != _ENDED
        for attempt in connection.execute(select(attempts).where(*given_up)).all():
            shown = (point.seconds for point in curves[attempt.number] if point.attempt == attempt.attempt)
            seconds = readable_number(attempt.seconds)
            lost[attempt.number] += max(shown, default=0.0) if attempt.state == _RUNNING else seconds
        return [
            TrialHistory(
                replace(trial, state=running) if trial.state is TrialState.RUNNING else trial,
                curves[trial.number],
                lost[trial.number],
            )
            for trial in rows
        ]

    def import_sweep(
        self, record: SweepRecord, histories: Iterable[TrialHistory], decided: Iterable[StoredDecision] = ()
    ) -> None:
        origin, kept, decided = _new_id(), list(histories), list(decided)
        numbers = [history.trial.number for history in kept]
        if numbers != sorted(set(numbers)) or min(numbers, default=0) < 0:
            raise ValueError("the numbers of imported trials must be 0 or more, and ascend")
        if any(history.trial.state is TrialState.RUNNING for history in kept):
            raise ValueError("an imported trial is not running")

        def operation(connection: Connection, again: bool) -> None:
            existing = connection.execute(select(sweeps).where(sweeps.c.name == record.name)).one_or_none()
            if existing is not None:
                if again and existing.origin == origin:
                    return
                raise self._sweep_exists(record.name)
            values = {name: value for name, value in vars(record).items() if name != "damage"}
            created = insert(sweeps).values(**values, origin=origin, revision=1).returning(sweeps.c.id)
            try:
                sweep_id = connection.execute(created).scalar_one()
            except IntegrityError:  # another process created it since we looked
                raise self._sweep_exists(record.name) from None
            _remove_leftovers(connection, sweep_id)
            imported = _imported_rows(sweep_id, origin, kept)
            imported[decisions] = [_decision_row(sweep_id, decision) for decision in decided]
            for table, rows in imported.items():
                if rows:
                    connection.execute(insert(table), rows)

        self._database.write(operation)

    def bring_in(self, record: SweepRecord, histories: Iterable[TrialHistory]) -> list[int]:
        kept = list(histories)

        def operation(connection: Connection, again: bool) -> list[int]:
            existing = connection.execute(select(sweeps).where(sweeps.c.name == record.name)).one_or_none()
            if existing is None:
                values = {name: value for name, value in vars(record).items() if name != "damage"}
                created = insert(sweeps).values(**values, origin=_new_id(), revision=0).returning(sweeps.c.id)
                _remove_leftovers(connection, connection.execute(created).scalar_one())
            elif read_sweep_record(existing).created_at != record.created_at:
                raise self._sweep_exists(record.name)
            sweep = self._touch(connection, record.name)
            stored = select(*TRIAL_COLUMNS).where(trials.c.sweep_id == sweep.id)
            there = {trial.number: trial for trial in read_trials(connection.execute(stored))}
            missing = [_as_queued(history) for history in kept if history.trial.number not in there]
            _add_drivers(connection, sweep.id, missing)
            for table, rows in _imported_rows(sweep.id, _new_id(), missing, sweep.revision).items():
                if rows:
                    connection.execute(insert(table), rows)
            ended = [history for history in kept if history.trial.number in there]
            changed = [each for each in ended if _catch_up(connection, sweep, there[each.trial.number], each)]
            return sorted(history.trial.number for history in [*missing, *changed])

        return self._database.write(operation) if kept else []

    def mirrors(self, sweep: str) -> list[str]:
        def operation(connection: Connection) -> list[str]:
            mine = mirrored.c.sweep_id == self._find_sweep(connection, sweep).id
            return list(connection.scalars(select(mirrored.c.mirror).where(mine).distinct().order_by("mirror")))

        return self._database.read(operation)

    def mirrored(self, sweep: str, mirror: str) -> dict[str, str]:
        def operation(connection: Connection) -> Sequence[AnyRow]:
            mine = mirrored.c.sweep_id == self._find_sweep(connection, sweep).id, mirrored.c.mirror == mirror
            return connection.execute(select(mirrored.c.item, mirrored.c.digest).where(*mine)).all()

        return {row.item: row.digest for row in self._database.read(operation)}

    def set_mirrored(self, sweep: str, mirror: str, digests: Mapping[str, str]) -> None:
        def operation(connection: Connection, again: bool) -> None:
            key = {"sweep_id": self._find_sweep(connection, sweep).id, "mirror": mirror}
            connection.execute(select(sweeps.c.id).where(sweeps.c.id == key["sweep_id"]).with_for_update())
            mine = [mirrored.c[name] == value for name, value in key.items()]
            connection.execute(delete(mirrored).where(*mine, mirrored.c.item.in_(list(digests))))
            connection.execute(insert(mirrored), [key | {"item": item, "digest": digests[item]} for item in digests])

        if digests:
            self._database.write(operation)

    # ---- inside a transaction

    def _find_sweep(self, connection: Connection, name: str, *columns: ColumnElement[Any]) -> AnyRow:
        """The given columns of a sweep; by default all that are quick to read, so not its configuration."""
        query = select(*(columns or _QUICK_COLUMNS)).where(sweeps.c.name == name)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise self._no_sweep(connection, name)
        return row

    def _no_sweep(self, connection: Connection, name: str) -> SweepNotFoundError:
        names = connection.scalars(select(sweeps.c.name).order_by(sweeps.c.name)).all()
        return SweepNotFoundError(
            f"store {self.url}: no sweep is named {shown_name(name)}; {nearest(name, map(str, names))}"
        )

    def _sweep_exists(self, name: str) -> SweepExistsError:
        return SweepExistsError(f"store {self.url}: a sweep named {name!r} already exists")

    def _touch(self, connection: Connection, whose: str | Driver) -> AnyRow:
        """Lock a sweep by incrementing its revision; find it by name or driver. Returns id, name, revision."""
        statement, key = (_TOUCH_BY_NAME, whose) if isinstance(whose, str) else (_TOUCH_BY_DRIVER, whose.id)
        row = connection.execute(statement, {"whose": key}).one_or_none()
        if row is not None:
            return row
        if isinstance(whose, str):
            raise self._no_sweep(connection, whose)
        raise self._sweep_removed(whose)

    def _sweep_removed(self, driver: Driver) -> SweepNotFoundError:
        return SweepNotFoundError(f"store {self.url}: the sweep of driver {driver.id} was removed")


def _remove_leftovers(connection: Connection, sweep_id: int) -> None:
    """Remove rows of a deleted sweep that had the id of a new one.

    SQLite uses the last id again, and its command line, by which somebody may delete a sweep, keeps these rows.
    """
    for table in (decisions, mirrored, attempts, trials, drivers):
        connection.execute(delete(table).where(table.c.sweep_id == sweep_id))


def _new_id() -> str:
    return uuid.uuid4().hex


def _stale(attempt: Attempt) -> StaleAttemptError:
    return StaleAttemptError(
        f"{attempt.sweep}: attempt {attempt.attempt} of trial {attempt.number} was recorded as lost, or has ended"
    )


def _one_trial(sweep_id: int, number: int) -> Select[Any]:
    return select(*TRIAL_COLUMNS).where(trials.c.sweep_id == sweep_id, trials.c.number == number)


def _read_trial(connection: Connection, sweep_id: int, attempt: Attempt) -> Trial:
    row = connection.execute(_one_trial(sweep_id, attempt.number)).one_or_none()
    if row is None:  # deleted by hand
        raise _stale(attempt)
    return read_trial(row)


def _is_in(states: Collection[TrialState]) -> ColumnElement[bool]:
    """Whether a trial is in one of these states; an unknown state counts as failed."""
    known = trials.c.state.in_(sorted(states))
    return or_(known, trials.c.state.not_in(list(TrialState))) if TrialState.FAILED in states else known


def _all_curves(connection: Connection, sweep_id: int) -> defaultdict[int, list[CurvePoint]]:
    """The learning curves of a sweep's trials, by number."""
    curves: defaultdict[int, list[CurvePoint]] = defaultdict(list)
    points = _curve_points().where(attempts.c.sweep_id == sweep_id)
    for point in connection.execute(points.add_columns(attempts.c.number)).all():
        curves[point.number].append(read_curve_point(point))
    return curves


def _curve_points() -> Select[Any]:
    joined = select(attempts.c.attempt, *POINT_COLUMNS).join(attempts, curve_points.c.token == attempts.c.token)
    return joined.order_by(curve_points.c.id)


def _next_number(connection: Connection, sweep_id: int) -> int:
    """One more than the last number. Remaining rows of a trial that was deleted by hand keep its number in use."""
    last = connection.scalars(_LAST_NUMBER, {"sweep": sweep_id}).all()
    if not all(number is None or is_trial_number(number) for number in last):  # edited by hand; text sorts last
        everywhere = select(trials.c.number).where(trials.c.sweep_id == sweep_id)
        last = [number for number in connection.scalars(everywhere).all() if is_trial_number(number)]
    return max((number for number in last if number is not None), default=-1) + 1


def _next_attempt(connection: Connection, sweep_id: int, number: int, attempts_so_far: int) -> int:
    """One more than the last attempt, even if the trial's count was edited by hand."""
    query = select(attempts.c.attempt).where(attempts.c.sweep_id == sweep_id, attempts.c.number == number)
    taken = [attempt for attempt in connection.scalars(query).all() if type(attempt) is int]
    return max(attempts_so_far, *taken, 0) + 1


def _ending(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state,
        "score": None if outcome.score is None else as_float(outcome.score),
        "cost": None if outcome.cost is None else as_float(outcome.cost),
        "cost_metric": outcome.cost_metric,
        "metrics": as_floats(outcome.metrics),
        "artefacts": {str(name): str(uri) for name, uri in outcome.artefacts.items()},
        "error": outcome.error,
        "stopped": outcome.stopped,
        "share": None if outcome.share is None else as_float(outcome.share),
    }


def _new_trial(
    sweep: AnyRow, number: int, origin: str, params: Mapping[str, Any], suggestion: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "sweep_id": sweep.id,
        "revision": sweep.revision,
        "number": number,
        "origin": origin,
        "params": params,
        "suggestion": suggestion,
        "attempts": 0,
        "metrics": {},
        "artefacts": {},
    }


def _check_retry(sweep: str, number: int, trial: Trial | None) -> None:
    if trial is not None and trial.dropped is not None:
        raise TrialStateError(f"{sweep}: trial {number} is dropped; undo the drop first, then retry it")
    if trial is None or trial.state is not TrialState.FAILED:
        is_not = "does not exist" if trial is None else f"is {trial.state}"
        raise TrialStateError(f"{sweep}: trial {number} {is_not}; only a failed trial can be retried")


def _check_in_sweep(sweep: str, numbers: Iterable[int], there: Collection[int]) -> None:
    missing = [number for number in numbers if number not in there]
    if missing:
        raise TrialStateError(f"{sweep}: {_trials(missing)} not in the sweep; nothing is changed")


def _check_dropped(sweep: str, numbers: Iterable[int], dropped: Mapping[int, str | None]) -> None:
    kept = [number for number in numbers if dropped[number] is None]
    if kept:
        raise TrialStateError(f"{sweep}: {_trials(kept)} not dropped; nothing is changed")


def _trials(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]} is"
    shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f"trials {shown} are"


def _claim(connection: Connection, sweep: AnyRow, number: int, token: str, driver: Driver) -> Attempt | None:
    """Start the next attempt of a queued trial. If its params cannot be read, fail the trial and return None."""
    this = trials.c.sweep_id == sweep.id, trials.c.number == number
    row = connection.execute(_one_trial(sweep.id, number)).one()
    if not has_params(row):
        error = f"its hyperparameters cannot be read: {'; '.join(read_trial(row).damage)}"
        values = {"state": TrialState.FAILED, "error": error, "ended_at": now(), "revision": sweep.revision}
        connection.execute(update(trials).where(*this).values(**values))
        return None
    attempt = _next_attempt(connection, sweep.id, number, read_trial(row).attempts)
    values = {"state": TrialState.RUNNING, "attempts": attempt, "started_at": now(), "revision": sweep.revision}
    connection.execute(update(trials).where(*this).values(**values))
    _insert_attempt(connection, sweep.id, number, attempt, token, driver)
    return _claimed(connection, sweep, number, attempt, token)


def _claimed(connection: Connection, sweep: AnyRow, number: int, attempt: int, token: str) -> Attempt:
    trial = read_trial(connection.execute(_one_trial(sweep.id, number)).one())
    return Attempt(sweep.name, number, attempt, token, trial.params, trial.suggestion)


def _insert_attempt(
    connection: Connection, sweep_id: int, number: int, attempt: int, token: str, driver: Driver
) -> None:
    row = {
        "token": token,
        "sweep_id": sweep_id,
        "number": number,
        "attempt": attempt,
        "driver_id": driver.id,
        "state": _RUNNING,
        "seconds": 0.0,
    }
    connection.execute(_START_ATTEMPT, row)


def _attempt_state(connection: Connection, attempt: Attempt) -> str | None:
    return connection.scalar(select(attempts.c.state).where(attempts.c.token == attempt.token))


def _give_up(
    connection: Connection, attempt: AnyRow, reason: str, seconds: float, revision: int, state: str = _LOST
) -> None:
    """Record a running attempt as lost or returned. Its duration is at least that of its learning curve."""
    shown = connection.scalar(select(func.max(curve_points.c.seconds)).where(curve_points.c.token == attempt.token))
    seconds = max(seconds, readable_number(shown))
    connection.execute(
        update(attempts)
        .where(attempts.c.token == attempt.token)
        .values(state=state, reason=reason, seconds=seconds, ended_at=now())
    )
    mine = attempts.c.sweep_id == attempt.sweep_id, attempts.c.number == attempt.number
    losses = connection.scalar(select(func.count()).where(*mine, attempts.c.state == _LOST)) or 0
    values: dict[str, Any] = {"state": TrialState.QUEUED}
    if state == _LOST and losses % MAX_ATTEMPTS == 0:
        error = f"lost {losses} times; the last time: {reason}"
        values = {"state": TrialState.FAILED, "error": error, "ended_at": now()}
    connection.execute(
        update(trials)
        .where(trials.c.sweep_id == attempt.sweep_id, trials.c.number == attempt.number)
        .values(**values, revision=revision)
    )


def _holders(connection: Connection, sweep_id: int) -> dict[int, dict[str, Any]]:
    """The token of each running attempt with the row of its driver, by the trial's number."""
    held = attempts.c.sweep_id == sweep_id, attempts.c.state == _RUNNING
    columns = [column for column in drivers.c if column.name not in (*_renewal(), "sweep_id", "left_at")]
    query = select(attempts.c.number, attempts.c.token, *columns).join(drivers).where(*held)
    rows = connection.execute(query).mappings().all()
    return {row["number"]: {name: value for name, value in row.items() if name != "number"} for row in rows}


def _add_drivers(connection: Connection, sweep_id: int, histories: Sequence[TrialHistory]) -> None:
    """Add the drivers that hold trials, if they are missing."""
    there = set(connection.scalars(select(drivers.c.id).where(drivers.c.sweep_id == sweep_id)))
    for history in histories:
        if history.holder is not None and history.holder["id"] not in there:
            row = {name: value for name, value in history.holder.items() if name != "token"}
            connection.execute(insert(drivers).values(**row, sweep_id=sweep_id, **_renewal()))
            there.add(row["id"])


def _as_queued(history: TrialHistory) -> TrialHistory:
    """The same trial without a holder, so queued."""
    if history.trial.state is not TrialState.RUNNING or history.holder is not None:
        return history
    return replace(history, trial=replace(history.trial, state=TrialState.QUEUED))


def _catch_up(connection: Connection, sweep: AnyRow, stored: Trial, history: TrialHistory) -> bool:
    """Record the result of an attempt that is running or unknown according to this store.

    Returns:
        Whether it was recorded.
    """
    known = history.trial
    latest = _next_attempt(connection, sweep.id, known.number, stored.attempts) - 1
    unknown = known.attempts > latest  # as where an older copy of the store was put back
    if known.state is TrialState.RUNNING or stored.params != known.params:
        return False
    if not unknown and (stored.state.ended or stored.attempts != known.attempts or known.state is stored.state):
        return False
    this = attempts.c.sweep_id == sweep.id, attempts.c.number == known.number, attempts.c.state == _RUNNING
    state, seconds = (_ENDED, 0.0) if known.state.ended else (_RETURNED, as_float(history.seconds_lost))
    if unknown:
        connection.execute(update(attempts).where(*this).values(state=_RETURNED, ended_at=now()))
        key = {"sweep_id": sweep.id, "number": known.number, "attempt": known.attempts, "token": _new_id()}
        connection.execute(insert(attempts).values(**key, state=_RUNNING, seconds=0.0))
    token = connection.scalar(select(attempts.c.token).where(*this))
    if token is not None:
        _add_points(connection, token, [point for point in history.curve if point.attempt == known.attempts])
    connection.execute(update(attempts).where(*this).values(state=state, seconds=seconds, ended_at=now()))
    values = {column.name: getattr(known, column.name) for column in TRIAL_COLUMNS if column.name != "number"}
    changes = values | _results(known) | {"revision": sweep.revision, "dropped": stored.dropped}
    connection.execute(
        update(trials).where(trials.c.sweep_id == sweep.id, trials.c.number == known.number).values(**changes)
    )
    return True


def _add_points(connection: Connection, token: str, points: Sequence[CurvePoint]) -> None:
    """Append the points that the learning curve of an attempt does not have yet."""
    held = select(curve_points.c.step, curve_points.c.seconds).where(curve_points.c.token == token)
    there = {tuple(row) for row in connection.execute(held).all()}
    new = [point for point in points if (point.step, point.seconds) not in there]
    if new:
        connection.execute(insert(curve_points), [_point_row(point, token, _new_id()) for point in new])


def _imported_rows(
    sweep_id: int, origin: str, histories: Sequence[TrialHistory], revision: int = 1
) -> dict[Table, list[dict[str, Any]]]:
    """Rows of trials that ran elsewhere. All their attempts were lost, except the last of an ended trial."""
    rows: dict[Table, list[dict[str, Any]]] = {trials: [], attempts: [], curve_points: []}
    for history in histories:
        trial = history.trial
        key = {"sweep_id": sweep_id, "number": trial.number}
        values = {column.name: getattr(trial, column.name) for column in TRIAL_COLUMNS}
        rows[trials].append(values | key | {"revision": revision, "origin": origin} | _results(trial))
        tokens = {attempt: _new_id() for attempt in _attempts_of(history)}
        if history.holder is not None:
            tokens[trial.attempts] = history.holder["token"]
        for attempt, token in tokens.items():
            ended = trial.state.ended and attempt == max(tokens)
            held = history.holder if attempt == trial.attempts else None
            state = _ENDED if ended else _RUNNING if held else _LOST
            values = {"token": token, "attempt": attempt, "state": state, "driver_id": held["id"] if held else None}
            rows[attempts].append(
                values | key | {"seconds": as_float(history.seconds_lost) if attempt == 1 and not ended else 0.0}
            )
        rows[curve_points] += [_point_row(point, tokens[_attempt_of(point)], origin) for point in history.curve]
    return rows


def _point_row(point: CurvePoint, token: str, origin: str) -> dict[str, Any]:
    values = {"step": as_step(point.step), "seconds": as_float(point.seconds), "metrics": as_floats(point.metrics)}
    return values | {"token": token, "origin": origin}


def _insert_curve(connection: Connection, sweep_id: int, number: int, origin: str, curve: Sequence[CurvePoint]) -> None:
    """Insert the curve of an added trial as that of one ended attempt."""
    if not curve:
        return
    token, seconds = _new_id(), as_float(curve[-1].seconds)
    attempt = {"token": token, "sweep_id": sweep_id, "number": number, "attempt": 1}
    connection.execute(insert(attempts).values(**attempt, state=_ENDED, seconds=seconds))
    connection.execute(insert(curve_points), [_point_row(point, token, origin) for point in curve])


def _decision_row(sweep_id: int, decision: StoredDecision) -> dict[str, Any]:
    return {
        "sweep_id": sweep_id,
        "number": max(-_LARGEST_COUNT, min(decision.number, _LARGEST_COUNT)),
        "kind": decision.kind[:_LONGEST_KIND],
        "reason": decision.reason,
        "details": dict(decision.details),
        "at": as_float(decision.at or 0.0),
    }


def _attempts_of(history: TrialHistory) -> list[int]:
    """The attempts of a trial; if its count is absurdly high, only the first ones and those with other rows."""
    last = max(0, min(history.trial.attempts, _LARGEST_COUNT))
    shown = {_attempt_of(point) for point in history.curve}
    return sorted({*range(1, min(last, _MOST_ATTEMPTS) + 1), *shown, *([last] if last else [])})


def _attempt_of(point: CurvePoint) -> int:
    return max(1, min(point.attempt, _LARGEST_COUNT))


def _results(trial: Trial) -> dict[str, Any]:
    return {
        "attempts": max(-_LARGEST_COUNT, min(trial.attempts, _LARGEST_COUNT)),
        "metrics": as_floats(trial.metrics),
        "artefacts": {str(name): str(uri) for name, uri in trial.artefacts.items()},
    }


# ---- leases


def _renewal() -> dict[str, Any]:
    return {"seen_at": now(), "seen_monotonic": time.monotonic()}


def _renew(connection: Connection, driver: Driver) -> None:
    if not connection.execute(_RENEW, {"driver": driver.id, "monotonic": time.monotonic()}).rowcount:
        raise StoreError(f"driver {driver.id} has left its sweep, or the sweep was removed")


def _drivers() -> Select[Any]:
    """Drivers, with the database's time and start time."""
    return select(drivers, now().label("asked_at"), up_since().label("up_since"))


def _lease_holds(lease: Lease) -> bool:
    """Whether the driver was seen within its lease.

    On the driver's own boot the lease uses the monotonic clock, which neither jumps nor runs while the machine sleeps.
    Elsewhere it uses the database's clock; a renewal time far in the future shows that this clock was set back, and
    does not keep the lease valid.
    """
    if lease.process.is_here():
        return time.monotonic() - lease.seen_monotonic <= lease.seconds
    return abs(lease.asked_at - lease.seen_at) <= lease.seconds


def _is_alive(lease: Lease, present_seconds: float) -> bool:
    """Whether the driver may still hold attempts, as seen by a process that has been present for `present_seconds`.

    No lease can be renewed while a server is down, so every lease is valid again after the server starts.
    """
    if lease.process.has_died():
        return False
    up_seconds = abs(lease.asked_at - lease.up_since)  # the clock may have been set back since
    return _lease_holds(lease) or min(present_seconds, up_seconds) < lease.seconds
