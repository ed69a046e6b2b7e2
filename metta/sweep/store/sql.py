"""The store in SQL: one implementation for SQLite and PostgreSQL.

Every change of a sweep's trials begins by raising the sweep's revision. That locks the sweep's row (on SQLite the whole
file), so changes of one sweep happen one after the other, numbers have no gaps, and revisions become visible in order.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from metta.common.errors import nearest
from metta.sweep.store.database import Database
from metta.sweep.store.process import Process, this_process
from metta.sweep.store.protocol import (
    MAX_ATTEMPTS,
    Attempt,
    CurvePoint,
    Driver,
    Instruction,
    NumberTakenError,
    Outcome,
    StaleAttemptError,
    StoreError,
    SweepExistsError,
    SweepNotFoundError,
    SweepRecord,
    TrialHistory,
    TrialStateError,
)
from metta.sweep.store.schema import attempts, curve_points, drivers, mirrored, now, sweeps, trials, up_since
from metta.sweep.trial import Progress, Trial, TrialState

if TYPE_CHECKING:
    AnyRow = Row[*tuple[Any, ...]]

_RUNNING, _ENDED, _LOST = "running", "ended", "lost"
"""States of an attempt."""

_QUICK_COLUMNS = (sweeps.c.id, sweeps.c.revision, sweeps.c.paused)

_TRIAL_COLUMNS = (
    trials.c.number,
    trials.c.state,
    trials.c.params,
    trials.c.suggestion,
    trials.c.attempts,
    trials.c.score,
    trials.c.cost,
    trials.c.metrics,
    trials.c.artefacts,
    trials.c.error,
    trials.c.created_at,
    trials.c.started_at,
    trials.c.ended_at,
)

# The statements that write a trial are built once, for building one takes as long as the database takes for it. Values
# that a statement does not name come with its execution, under the names of their columns.
_TOUCH = update(sweeps).values(revision=sweeps.c.revision + 1).returning(sweeps.c.id, sweeps.c.name, sweeps.c.revision)
_TOUCH_BY_NAME = _TOUCH.where(sweeps.c.name == bindparam("whose"))
_TOUCH_BY_DRIVER = _TOUCH.where(
    sweeps.c.id == select(drivers.c.sweep_id).where(drivers.c.id == bindparam("whose")).scalar_subquery()
)
_RENEW = (
    update(drivers)
    .where(drivers.c.id == bindparam("driver"), drivers.c.left_at.is_(None))
    .values(seen_at=now(), seen_monotonic=bindparam("monotonic"))
)
_LAST_NUMBER = select(func.max(trials.c.number)).where(trials.c.sweep_id == bindparam("sweep"))
_START_TRIAL = insert(trials).values(created_at=now(), started_at=now())
_START_ATTEMPT = insert(attempts).values(started_at=now())
_END_TRIAL = (
    update(trials)
    .where(trials.c.sweep_id == bindparam("of_sweep"), trials.c.number == bindparam("of_number"))
    .values(ended_at=now())
    .returning(*_TRIAL_COLUMNS)
)
_END_ATTEMPT = (
    update(attempts)
    .where(attempts.c.token == bindparam("held"), attempts.c.state == _RUNNING)
    .values(state=_ENDED, ended_at=now())
)
_APPEND_QUEUED = insert(trials).values(created_at=now())
_APPEND_ENDED = insert(trials).values(created_at=now(), ended_at=now())


class SqlStore:
    """A `Store` in an SQLite file or a PostgreSQL database. Threads may share it."""

    def __init__(self, url: str, create: bool = True) -> None:
        self._database = Database(url, create)
        self._unsure: set[str] = set()  # tokens whose last commit may have taken place, although it was not confirmed
        self._joined: set[str] = set()  # drivers of this process: alive, for else nobody would ask
        self._absent_at = -math.inf  # when this process last found that it had been away itself

    @property
    def url(self) -> str:
        return self._database.url

    def close(self) -> None:
        self._database.close()

    # ---- sweeps

    def sweeps(self) -> list[SweepRecord]:
        rows = self._database.read(lambda connection: connection.execute(select(sweeps).order_by(sweeps.c.id)).all())
        return [_sweep_record(row) for row in rows]

    def sweep(self, name: str) -> SweepRecord:
        return _sweep_record(self._database.read(lambda connection: self._find_sweep(connection, name, *sweeps.c)))

    def create_sweep(
        self, name: str, config: Mapping[str, Any], entry_point: Mapping[str, Any] | None = None
    ) -> SweepRecord:
        origin = _new_id()

        def operation(connection: Connection, again: bool) -> SweepRecord:
            existing = connection.execute(select(sweeps).where(sweeps.c.name == name)).one_or_none()
            if existing is not None:
                if again and existing.origin == origin:
                    return _sweep_record(existing)
                raise self._sweep_exists(name)
            values = {"name": name, "config": config, "entry_point": entry_point, "revision": 0, "origin": origin}
            try:
                row = connection.execute(insert(sweeps).values(**values, created_at=now()).returning(sweeps)).one()
            except IntegrityError:  # another process created it since we looked
                raise self._sweep_exists(name) from None
            return _sweep_record(row)

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
                connection.execute(insert(drivers).values(**values, **_sign_of_life()))
            row = connection.execute(_drivers().where(drivers.c.id == driver_id)).one()
            return _driver(row, alive=True)

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
            return self._judge_drivers(connection, self._find_sweep(connection, sweep).id)

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
            return self._judge_drivers(connection, self._find_sweep(connection, sweep).id)

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

    def _judge_drivers(self, connection: Connection, sweep_id: int) -> list[Driver]:
        """The sweep's drivers that have not left, and which of them live.

        A process that was away itself (stopped, or cut off from the database) must not conclude from what it missed
        that others are dead: until it has been present for as long as a lease, it takes every lease to hold.
        """
        query = _drivers().where(drivers.c.sweep_id == sweep_id, drivers.c.left_at.is_(None))
        rows = connection.execute(query.order_by(drivers.c.seen_at)).all()
        if any(row.id in self._joined and not _lease_holds(row) for row in rows):
            self._absent_at = time.monotonic()
        present_seconds = time.monotonic() - max(self._absent_at, self._database.troubled_at)
        return [_driver(row, row.id in self._joined or _is_alive(row, present_seconds)) for row in rows]

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
                    raise NumberTakenError(f"{sweep.name}: the next trial is number {next_number}, not {number}")
                values = {"state": TrialState.RUNNING, "attempts": 1}
                _insert_trial(connection, _START_TRIAL, sweep, number, token, params, suggestion or {}, values)
                _insert_attempt(connection, sweep.id, number, 1, token, driver)
            return Attempt(sweep.name, number, 1, token, dict(params), dict(suggestion or {}))

        return self._database.write(operation)

    def claim(self, driver: Driver, number: int | None = None) -> Attempt | None:
        token = _new_id()

        def find(connection: Connection) -> int | None:
            sweep_id = select(drivers.c.sweep_id).where(drivers.c.id == driver.id).scalar_subquery()
            query = select(func.min(trials.c.number)).where(
                trials.c.sweep_id == sweep_id, trials.c.state == TrialState.QUEUED
            )
            lowest: int | None = connection.scalar(query if number is None else query.where(trials.c.number == number))
            return lowest

        def operation(connection: Connection, again: bool) -> Attempt | None:
            sweep = self._touch(connection, driver)
            _renew(connection, driver)
            mine = trials.c.sweep_id == sweep.id
            if again:
                done = connection.execute(select(attempts).where(attempts.c.token == token)).one_or_none()
                if done is not None:
                    trial = _read_trial(connection, sweep.id, done.number)
                    return Attempt(sweep.name, done.number, done.attempt, token, trial.params, trial.suggestion)
            claimed = find(connection)
            if claimed is None:
                return None
            row = connection.execute(
                update(trials)
                .where(mine, trials.c.number == claimed)
                .values(
                    state=TrialState.RUNNING,
                    attempts=trials.c.attempts + 1,
                    started_at=now(),
                    revision=sweep.revision,
                )
                .returning(trials.c.attempts, trials.c.params, trials.c.suggestion)
            ).one()
            _insert_attempt(connection, sweep.id, claimed, row.attempts, token, driver)
            return Attempt(sweep.name, claimed, row.attempts, token, row.params, row.suggestion)

        if self._database.read(find) is None:  # without a lock: most polls find nothing
            return None
        return self._database.write(operation)

    def record_progress(self, attempt: Attempt, progress: Sequence[Progress]) -> None:
        origin = _new_id()
        points = [
            {
                "token": attempt.token,
                "origin": origin,
                "step": point.step,
                "seconds": point.seconds,
                "metrics": _floats(point.metrics),
            }
            for point in progress
        ]

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
            if row.total != progress[-1].total:
                connection.execute(update(attempts).where(held).values(total=progress[-1].total))

        if points:
            self._database.write(operation)

    def end(self, attempt: Attempt, outcome: Outcome) -> Trial:
        if not outcome.state.ended:
            raise ValueError(f"an attempt ends as completed, failed or pruned, not as {outcome.state}")

        def operation(connection: Connection, again: bool) -> Trial:
            sweep = self._touch(connection, attempt.sweep)
            if not connection.execute(_END_ATTEMPT, {"held": attempt.token, "seconds": outcome.seconds}).rowcount:
                if again and _attempt_state(connection, attempt) == _ENDED:
                    return _read_trial(connection, sweep.id, attempt.number)
                raise _stale(attempt)
            this = {"of_sweep": sweep.id, "of_number": attempt.number, "revision": sweep.revision}
            return _trial(connection.execute(_END_TRIAL, this | _ending(outcome)).one())

        return self._record(attempt, operation)

    def lose(self, attempt: Attempt, reason: str, seconds: float = 0.0) -> Trial:
        def operation(connection: Connection, again: bool) -> Trial:
            sweep = self._touch(connection, attempt.sweep)
            held = and_(attempts.c.token == attempt.token, attempts.c.state == _RUNNING)
            row = connection.execute(select(attempts).where(held)).one_or_none()
            if row is not None:
                _give_up(connection, row, reason, seconds, sweep.revision)
            elif not (again and _attempt_state(connection, attempt) == _LOST):
                raise _stale(attempt)
            return _read_trial(connection, sweep.id, attempt.number)

        return self._record(attempt, operation)

    def _record(self, attempt: Attempt, operation: Callable[[Connection, bool], Trial]) -> Trial:
        """Write how an attempt went. A caller who was told that the store is away may come again with the same call."""
        unsure = attempt.token in self._unsure
        try:
            trial = self._database.write(lambda connection, again: operation(connection, again or unsure))
        except StoreError:
            self._unsure.add(attempt.token)
            raise
        self._unsure.discard(attempt.token)
        return trial

    def release_lost(self, sweep: str) -> list[int]:
        released: set[int] = set()

        def lost(connection: Connection) -> list[tuple[AnyRow, Driver]]:
            """Running attempts of drivers that are gone."""
            sweep_id = self._find_sweep(connection, sweep).id
            held = and_(attempts.c.sweep_id == sweep_id, attempts.c.state == _RUNNING)
            running = connection.execute(select(attempts).where(held)).all()
            if not running:
                return []
            holders = {driver.id: driver for driver in self._judge_drivers(connection, sweep_id)}
            return [
                (attempt, holders[attempt.driver_id]) for attempt in running if not holders[attempt.driver_id].alive
            ]

        def operation(connection: Connection, again: bool) -> None:
            revision = self._touch(connection, sweep).revision
            for attempt, driver in lost(connection):
                reason = f"its driver (process {driver.pid} on {driver.host}) died or was cut off"
                _give_up(connection, attempt, reason, 0.0, revision)
                released.add(attempt.number)

        if self._database.read(lost):  # without a lock: most polls find nothing
            self._database.write(operation)
        return sorted(released)

    # ---- trials

    def enqueue(self, sweep: str, params: Mapping[str, Any], suggestion: Mapping[str, Any] | None = None) -> int:
        return self._append(_APPEND_QUEUED, sweep, params, suggestion or {}, {"state": TrialState.QUEUED})

    def retry(self, sweep: str, number: int) -> Trial:
        def operation(connection: Connection, again: bool) -> Trial:
            row = self._touch(connection, sweep)
            this = trials.c.sweep_id == row.id, trials.c.number == number
            state = connection.scalar(select(trials.c.state).where(*this))
            if state == TrialState.FAILED:
                ended = attempts.c.sweep_id == row.id, attempts.c.number == number, attempts.c.state == _ENDED
                connection.execute(update(attempts).where(*ended).values(state=_LOST, reason="retried"))
                fresh = {"state": TrialState.QUEUED, "score": None, "cost": None, "error": None, "ended_at": None}
                values = fresh | {"metrics": {}, "artefacts": {}, "revision": row.revision}
                connection.execute(update(trials).where(*this).values(**values))
            elif not (again and state in (TrialState.QUEUED, TrialState.RUNNING)):
                is_not = "is not there" if state is None else f"is {state}"
                raise TrialStateError(f"{sweep}: trial {number} {is_not}; only a failed trial can be retried")
            return _read_trial(connection, row.id, number)

        return self._database.write(operation)

    def add(self, sweep: str, params: Mapping[str, Any], outcome: Outcome) -> int:
        if not outcome.state.ended:
            raise ValueError(f"an added trial is completed, failed or pruned, not {outcome.state}")
        return self._append(_APPEND_ENDED, sweep, params, {}, _ending(outcome))

    def _append(
        self,
        statement: Insert,
        sweep: str,
        params: Mapping[str, Any],
        suggestion: Mapping[str, Any],
        values: dict[str, Any],
    ) -> int:
        origin = _new_id()

        def operation(connection: Connection, again: bool) -> int:
            row = self._touch(connection, sweep)
            if again:
                appended = trials.c.sweep_id == row.id, trials.c.origin == origin
                number = connection.scalar(select(trials.c.number).where(*appended))
                if number is not None:
                    return int(number)
            number = _next_number(connection, row.id)
            _insert_trial(connection, statement, row, number, origin, params, suggestion, values)
            return number

        return self._database.write(operation)

    def trials(self, sweep: str, states: Collection[TrialState] | None = None, changed_since: int = 0) -> list[Trial]:
        def operation(connection: Connection) -> Sequence[AnyRow]:
            sweep_id = self._find_sweep(connection, sweep).id
            query = select(*_TRIAL_COLUMNS).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number)
            if changed_since:
                query = query.where(trials.c.revision > changed_since)
            if states is not None:
                query = query.where(trials.c.state.in_(sorted(states)))
            return connection.execute(query).all()

        return [_trial(row) for row in self._database.read(operation)]

    def revision(self, sweep: str) -> int:
        return int(self._database.read(lambda connection: self._find_sweep(connection, sweep)).revision)

    def seconds_lost(self, sweep: str, number: int) -> float:
        def operation(connection: Connection) -> float:
            sweep_id = self._find_sweep(connection, sweep).id
            lost = attempts.c.sweep_id == sweep_id, attempts.c.number == number, attempts.c.state == _LOST
            return connection.scalar(select(func.coalesce(func.sum(attempts.c.seconds), 0.0)).where(*lost)) or 0.0

        return self._database.read(operation)

    def curve(self, sweep: str, number: int) -> list[CurvePoint]:
        def operation(connection: Connection) -> Sequence[AnyRow]:
            sweep_id = self._find_sweep(connection, sweep).id
            query = _curve_points().where(attempts.c.sweep_id == sweep_id, attempts.c.number == number)
            return connection.execute(query).all()

        return [_curve_point(row) for row in self._database.read(operation)]

    def progress(self, sweep: str) -> dict[int, Progress]:
        points = curve_points.alias()
        newest = select(func.max(points.c.id)).where(points.c.token == attempts.c.token)
        point = curve_points.c.step, curve_points.c.seconds, curve_points.c.metrics
        query = (
            select(attempts.c.number, attempts.c.total, *point)
            .select_from(attempts)
            .join(curve_points, curve_points.c.id == newest.scalar_subquery())
        )

        def operation(connection: Connection) -> Sequence[AnyRow]:
            sweep_id = self._find_sweep(connection, sweep).id
            return connection.execute(query.where(attempts.c.sweep_id == sweep_id, attempts.c.state == _RUNNING)).all()

        rows = self._database.read(operation)
        return {row.number: Progress(row.step, row.total, row.seconds, row.metrics) for row in rows}

    # ---- copies

    def histories(self, sweep: str) -> list[TrialHistory]:
        def operation(connection: Connection) -> list[TrialHistory]:
            sweep_id = self._find_sweep(connection, sweep).id
            query = select(*_TRIAL_COLUMNS).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number)
            rows = [_trial(row) for row in connection.execute(query).all()]
            curves: dict[int, list[CurvePoint]] = {trial.number: [] for trial in rows}
            points = _curve_points().where(attempts.c.sweep_id == sweep_id)
            for point in connection.execute(points.add_columns(attempts.c.number)).all():
                curves[point.number].append(_curve_point(point))
            lost = dict.fromkeys(curves, 0.0)
            given_up = attempts.c.sweep_id == sweep_id, attempts.c.state != _ENDED
            for attempt in connection.execute(select(attempts).where(*given_up)).all():
                shown = (point.seconds for point in curves[attempt.number] if point.attempt == attempt.attempt)
                lost[attempt.number] += attempt.seconds if attempt.state == _LOST else max(shown, default=0.0)
            return [
                TrialHistory(
                    replace(trial, state=TrialState.QUEUED) if trial.state is TrialState.RUNNING else trial,
                    curves[trial.number],
                    lost[trial.number],
                )
                for trial in rows
            ]

        return self._database.read(operation)

    def import_sweep(self, record: SweepRecord, histories: Iterable[TrialHistory]) -> None:
        origin, kept = _new_id(), list(histories)
        if [history.trial.number for history in kept] != list(range(len(kept))):
            raise ValueError("imported trials are numbered 0, 1, 2, ... in their order")
        if any(history.trial.state is TrialState.RUNNING for history in kept):
            raise ValueError("an imported trial is not running")

        def operation(connection: Connection, again: bool) -> None:
            existing = connection.execute(select(sweeps).where(sweeps.c.name == record.name)).one_or_none()
            if existing is not None:
                if again and existing.origin == origin:
                    return
                raise self._sweep_exists(record.name)
            created = insert(sweeps).values(**vars(record), origin=origin, revision=1).returning(sweeps.c.id)
            try:
                sweep_id = connection.execute(created).scalar_one()
            except IntegrityError:  # another process created it since we looked
                raise self._sweep_exists(record.name) from None
            for table, rows in _imported_rows(sweep_id, origin, kept).items():
                if rows:
                    connection.execute(insert(table), rows)

        self._database.write(operation)

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
        """Some columns of a sweep; without any, those that are quick to read, which its configuration is not."""
        query = select(*(columns or _QUICK_COLUMNS)).where(sweeps.c.name == name)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise self._no_sweep(connection, name)
        return row

    def _no_sweep(self, connection: Connection, name: str) -> SweepNotFoundError:
        names = connection.scalars(select(sweeps.c.name).order_by(sweeps.c.name)).all()
        return SweepNotFoundError(f"store {self.url}: no sweep is named {name!r}; {nearest(name, names)}")

    def _sweep_exists(self, name: str) -> SweepExistsError:
        return SweepExistsError(f"store {self.url}: there is a sweep named {name!r} already")

    def _touch(self, connection: Connection, whose: str | Driver) -> AnyRow:
        """Raise the revision of a sweep, by its name or a driver of it, and so lock it. Returns id, name, revision."""
        statement, key = (_TOUCH_BY_NAME, whose) if isinstance(whose, str) else (_TOUCH_BY_DRIVER, whose.id)
        row = connection.execute(statement, {"whose": key}).one_or_none()
        if row is not None:
            return row
        if isinstance(whose, str):
            raise self._no_sweep(connection, whose)
        raise self._sweep_removed(whose)

    def _sweep_removed(self, driver: Driver) -> SweepNotFoundError:
        return SweepNotFoundError(f"store {self.url}: the sweep of driver {driver.id} was removed")


def _new_id() -> str:
    return uuid.uuid4().hex


def _stale(attempt: Attempt) -> StaleAttemptError:
    return StaleAttemptError(
        f"{attempt.sweep}: attempt {attempt.attempt} of trial {attempt.number} was given up as lost, or has ended"
    )


def _sweep_record(row: AnyRow) -> SweepRecord:
    return SweepRecord(row.name, row.config, row.entry_point, row.created_at)


def _trial(row: AnyRow) -> Trial:
    fields = row._asdict()
    return Trial(**fields | {"state": TrialState(fields["state"])})


def _read_trial(connection: Connection, sweep_id: int, number: int) -> Trial:
    query = select(*_TRIAL_COLUMNS).where(trials.c.sweep_id == sweep_id, trials.c.number == number)
    return _trial(connection.execute(query).one())


def _curve_points() -> Select[Any]:
    columns = attempts.c.attempt, curve_points.c.step, curve_points.c.seconds, curve_points.c.metrics
    joined = select(*columns).join(attempts, curve_points.c.token == attempts.c.token)
    return joined.order_by(curve_points.c.id)


def _curve_point(row: AnyRow) -> CurvePoint:
    return CurvePoint(row.attempt, row.step, row.seconds, row.metrics)


def _next_number(connection: Connection, sweep_id: int) -> int:
    last = connection.scalar(_LAST_NUMBER, {"sweep": sweep_id})
    return 0 if last is None else last + 1


def _floats(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _ending(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state,
        "score": None if outcome.score is None else float(outcome.score),
        "cost": None if outcome.cost is None else float(outcome.cost),
        "metrics": _floats(outcome.metrics),
        "artefacts": dict(outcome.artefacts),
        "error": outcome.error,
    }


def _insert_trial(
    connection: Connection,
    statement: Insert,
    sweep: AnyRow,
    number: int,
    origin: str,
    params: Mapping[str, Any],
    suggestion: Mapping[str, Any],
    values: dict[str, Any],
) -> None:
    row = {
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
    connection.execute(statement, row | values)


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


def _give_up(connection: Connection, attempt: AnyRow, reason: str, seconds: float, revision: int) -> None:
    """Record a running attempt as lost. It took at least as long as its learning curve shows."""
    shown = connection.scalar(select(func.max(curve_points.c.seconds)).where(curve_points.c.token == attempt.token))
    connection.execute(
        update(attempts)
        .where(attempts.c.token == attempt.token)
        .values(state=_LOST, reason=reason, seconds=max(seconds, shown or 0.0), ended_at=now())
    )
    mine = attempts.c.sweep_id == attempt.sweep_id, attempts.c.number == attempt.number
    losses = connection.scalar(select(func.count()).where(*mine, attempts.c.state == _LOST)) or 0
    values: dict[str, Any] = {"state": TrialState.QUEUED}
    if losses % MAX_ATTEMPTS == 0:
        error = f"lost {losses} times; the last time: {reason}"
        values = {"state": TrialState.FAILED, "error": error, "ended_at": now()}
    connection.execute(
        update(trials)
        .where(trials.c.sweep_id == attempt.sweep_id, trials.c.number == attempt.number)
        .values(**values, revision=revision)
    )


def _imported_rows(sweep_id: int, origin: str, histories: Sequence[TrialHistory]) -> dict[Table, list[dict[str, Any]]]:
    """Rows of trials that ran elsewhere. All their attempts but the last of an ended trial were lost."""
    rows: dict[Table, list[dict[str, Any]]] = {trials: [], attempts: [], curve_points: []}
    for history in histories:
        trial = history.trial
        key = {"sweep_id": sweep_id, "number": trial.number}
        values = {column.name: getattr(trial, column.name) for column in _TRIAL_COLUMNS}
        rows[trials].append(values | key | {"revision": 1, "origin": origin})
        shown = max((point.attempt for point in history.curve), default=0)
        tokens = {attempt: _new_id() for attempt in range(1, max(trial.attempts, shown) + 1)}
        for attempt, token in tokens.items():
            ended = trial.state.ended and attempt == len(tokens)
            values = {"token": token, "attempt": attempt, "state": _ENDED if ended else _LOST}
            rows[attempts].append(
                values | key | {"seconds": history.seconds_lost if attempt == 1 and not ended else 0.0}
            )
        for point in history.curve:
            values = {"step": point.step, "seconds": point.seconds, "metrics": _floats(point.metrics)}
            rows[curve_points].append(values | {"token": tokens[point.attempt], "origin": origin})
    return rows


# ---- leases


def _sign_of_life() -> dict[str, Any]:
    return {"seen_at": now(), "seen_monotonic": time.monotonic()}


def _renew(connection: Connection, driver: Driver) -> None:
    if not connection.execute(_RENEW, {"driver": driver.id, "monotonic": time.monotonic()}).rowcount:
        raise StoreError(f"driver {driver.id} has left its sweep, or the sweep was removed")


def _drivers() -> Select[Any]:
    """Drivers, with the database's time, and since when it answers."""
    return select(drivers, now().label("asked_at"), up_since().label("up_since"))


def _process(row: AnyRow) -> Process:
    return Process(row.host, row.pid, row.boot, row.process_started)


def _lease_holds(row: AnyRow) -> bool:
    """Whether the driver was seen within its lease.

    On the boot that the driver runs on, the lease goes by the monotonic clock, which neither jumps nor runs while the
    machine sleeps. Elsewhere it goes by the database's clock; a time of renewal that lies far in the future shows that
    this clock was set back, and does not hold the lease.
    """
    if _process(row).is_here():
        return bool(time.monotonic() - row.seen_monotonic <= row.lease_seconds)
    return bool(abs(row.asked_at - row.seen_at) <= row.lease_seconds)


def _is_alive(row: AnyRow, present_seconds: float) -> bool:
    """Whether the driver may still hold attempts, as far as a process can tell that has been present for so long.

    While a server was away nobody could renew a lease, so after its start every lease holds once more.
    """
    if _process(row).has_died():
        return False
    up_seconds = abs(row.asked_at - row.up_since)  # the clock may have been set back since
    return _lease_holds(row) or min(present_seconds, up_seconds) < row.lease_seconds


def _driver(row: AnyRow, alive: bool) -> Driver:
    return Driver(row.id, row.host, row.pid, datetime.fromtimestamp(row.seen_at, UTC), alive, row.stopping)
