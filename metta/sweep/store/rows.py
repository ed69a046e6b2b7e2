"""Converts rows of the tables to objects. Any row can be read: unreadable parts are described in `damage`."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Text, case, literal, null, type_coerce
from sqlalchemy.exc import MultipleResultsFound

from metta.sweep.store import encoding
from metta.sweep.store.encoding import Unreadable
from metta.sweep.store.process import Process
from metta.sweep.store.protocol import CurvePoint, Driver, StoredDecision, SweepRecord
from metta.sweep.store.results import as_float, as_step, is_trial_number
from metta.sweep.store.schema import curve_points, trials
from metta.sweep.trial import Progress, Trial, TrialState

if TYPE_CHECKING:
    from sqlalchemy import Column, CursorResult, Row

    AnyRow = Row[*tuple[Any, ...]]


def _written(column: Column[Any]) -> ColumnElement[Any]:
    """A JSON column as its stored text."""
    return type_coerce(column, Text).label(column.name)


TRIAL_COLUMNS: tuple[ColumnElement[Any], ...] = (
    trials.c.number,
    trials.c.state,
    _written(trials.c.params),
    _written(trials.c.suggestion),
    trials.c.attempts,
    trials.c.score,
    trials.c.cost,
    _written(trials.c.metrics),
    _written(trials.c.artefacts),
    trials.c.error,
    trials.c.created_at,
    trials.c.started_at,
    trials.c.ended_at,
    trials.c.dropped,
    trials.c.cost_metric,
    trials.c.stopped,
    trials.c.share,
)
"""The fields of `Trial`, in its order."""

BRIEF_COLUMNS = tuple(
    literal("{}", Text).label(column.name)
    if column.name in ("suggestion", "artefacts")
    else case((trials.c.state.in_([TrialState.COMPLETED, TrialState.PRUNED]), null()), else_=column).label(column.name)
    if column.name == "error"  # the error of a failure says whether the failure counts
    else column
    for column in TRIAL_COLUMNS
)
"""The same columns without the largest ones."""

POINT_COLUMNS = curve_points.c.step, curve_points.c.seconds, curve_points.c.metrics

_BATCH = 1000
_STATES = {state.value: state for state in TrialState}
_JSON_FIELDS = ("params", "suggestion", "metrics", "artefacts")
_FIELDS = [str(column.name) for column in TRIAL_COLUMNS]
_JSON_PLACES = [_FIELDS.index(name) for name in _JSON_FIELDS]
_METRICS = [column.name for column in TRIAL_COLUMNS].index("metrics")
_MAY_BE_FLOAT = frozenset((float, type(None)))
_MAY_BE_TEXT = frozenset((str, type(None)))
_MAY_BE_TIME = frozenset((datetime, type(None)))


# ---- trials


def read_trials(result: CursorResult[Any], metrics: Collection[str] | None = None) -> list[Trial]:
    """Trials from rows of `TRIAL_COLUMNS`. A row without a valid number cannot be identified and is skipped.

    Args:
        metrics: only these are kept; all if None.

    Raises:
        MultipleResultsFound: two rows have the same number.
    """
    read = [trial for batch in result.partitions(_BATCH) for trial in _read_batch(batch, metrics)]
    if len({trial.number for trial in read}) < len(read):
        raise MultipleResultsFound
    return read


def _only(metrics: Any, names: Collection[str]) -> Any:
    if not isinstance(metrics, dict) or not metrics:
        return metrics
    return {name: metrics[name] for name in names if name in metrics} or _OTHERS


_OTHERS = {"": 0.0}
"""Replaces metrics that are all filtered out, so that the trial still differs from one that measured nothing."""


def read_trial(row: AnyRow) -> Trial:
    """The trial from a row of `TRIAL_COLUMNS` that was found by its number."""
    (trial,) = _read_batch([row])
    return trial


def has_params(row: AnyRow) -> bool:
    """Whether the hyperparameters of a row of `TRIAL_COLUMNS` can be read."""
    return isinstance(encoding.read(row.params), dict)


def _read_batch(batch: Iterable[AnyRow], metrics: Collection[str] | None = None) -> Iterator[Trial]:
    columns = [list(column) for column in zip(*batch, strict=True)]
    for place in _JSON_PLACES:
        columns[place] = encoding.read_all(columns[place])
    if metrics is not None:
        columns[_METRICS] = [_only(each, metrics) for each in columns[_METRICS]]
    for fields in zip(*columns, strict=True):
        if is_trial_number(fields[0]):
            yield Trial(fields[0], _STATES[fields[1]], *fields[2:]) if _is_valid(*fields) else _repair(*fields)


def _is_valid(
    number: Any,
    state: Any,
    params: Any,
    suggestion: Any,
    attempts: Any,
    score: Any,
    cost: Any,
    metrics: Any,
    artefacts: Any,
    error: Any,
    created_at: Any,
    started_at: Any,
    ended_at: Any,
    dropped: Any,
    cost_metric: Any,
    stopped: Any,
    share: Any,
) -> bool:
    """Whether each field has its type, as in every row that this program wrote."""
    return (
        type(state) is str
        and state in _STATES
        and type(attempts) is int
        and type(params) is type(suggestion) is type(metrics) is type(artefacts) is dict
        and {float}.issuperset(map(type, metrics.values()))
        and {str}.issuperset(map(type, artefacts.values()))
        and _MAY_BE_FLOAT.issuperset((type(score), type(cost), type(share)))
        and _MAY_BE_TEXT.issuperset((type(error), type(dropped), type(cost_metric), type(stopped)))
        and _MAY_BE_TIME.issuperset((type(created_at), type(started_at), type(ended_at)))
    )


def _repair(number: int, state: Any, *rest: Any) -> Trial:
    """The trial from a row that was edited by hand: its readable parts, with the unreadable ones listed in `damage`."""
    damage: list[str] = []
    stored = dict(zip(_FIELDS[2:], rest, strict=True))
    read: dict[str, Any] = {name: _object(name, stored[name], damage) for name in _JSON_FIELDS}
    read["metrics"] = _numbers("metrics", read["metrics"], damage)
    read["artefacts"] = _texts("artefacts", read["artefacts"], damage)
    read["attempts"] = _whole("attempts", stored["attempts"], damage)
    for name in ("score", "cost", "share", "created_at", "started_at", "ended_at"):
        read[name] = _known(name, stored[name], damage)
    for name in ("error", "dropped", "cost_metric", "stopped"):
        read[name] = _text(name, stored[name], damage)
    return Trial(number, _state(state, damage), **read, damage=tuple(damage))


def _state(value: Any, damage: list[str]) -> TrialState:
    if isinstance(value, str) and value in _STATES:
        return _STATES[value]
    damage.append(f"state: {reprlib.repr(value)} is not one of {', '.join(_STATES)}")
    return TrialState.FAILED


# ---- fields


def _known(name: str, value: Any, damage: list[str]) -> Any:
    if isinstance(value, Unreadable):
        damage.append(f"{name}: {value.reason}")
        return None
    return value


def _object(name: str, value: Any, damage: list[str]) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if not isinstance(value, Unreadable):
        value = Unreadable(f"{reprlib.repr(value)} is not a JSON object")
    return _known(name, value, damage) or {}


def _numbers(name: str, values: Mapping[str, Any], damage: list[str]) -> dict[str, float]:
    read = {key: _number(value) for key, value in values.items()}
    damage += [f"{name}: {key}: {reprlib.repr(values[key])} is not a number" for key in read if read[key] is None]
    return {key: value for key, value in read.items() if value is not None}


def _number(value: Any) -> float | None:
    return as_float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _texts(name: str, values: Mapping[str, Any], damage: list[str]) -> dict[str, str]:
    damage += [
        f"{name}: {key}: {reprlib.repr(value)} is not text" for key, value in values.items() if type(value) is not str
    ]
    return {key: value for key, value in values.items() if type(value) is str}


def _text(name: str, value: Any, damage: list[str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    damage.append(f"{name}: {reprlib.repr(value)} is not text")
    return None


def _whole(name: str, value: Any, damage: list[str]) -> int:
    if isinstance(value, int):
        return value
    damage.append(f"{name}: {reprlib.repr(value)} is not a whole number")
    return 0


# ---- sweeps and curves


def read_sweep_record(row: AnyRow) -> SweepRecord:
    damage: list[str] = []
    config = _object("config", encoding.read(row.config), damage)
    entry_point = encoding.read(row.entry_point)
    if entry_point is not None:
        entry_point = _object("entry_point", entry_point, [])  # only what needs it complains of an empty one
    created_at = _known("created_at", row.created_at, []) or datetime.fromtimestamp(0, UTC)  # stops nothing
    return SweepRecord(str(row.name), config, entry_point, created_at, "; ".join(damage) or None)


def read_curve_point(row: AnyRow) -> CurvePoint:
    return CurvePoint(as_step(row.attempt), *_read_point(row))


def read_decision(row: AnyRow) -> StoredDecision:
    details = _object("details", encoding.read(row.details), [])
    return StoredDecision(as_step(row.number), str(row.kind), str(row.reason), details, readable_number(row.at))


def read_progress(row: AnyRow) -> Progress:
    step, seconds, metrics = _read_point(row)
    return Progress(step, None if row.total is None else as_step(row.total), seconds, metrics)


def _read_point(row: AnyRow) -> tuple[int, float, dict[str, float]]:
    metrics = _numbers("metrics", _object("metrics", encoding.read(row.metrics), []), [])
    return as_step(row.step), readable_number(row.seconds), metrics


def readable_number(value: Any) -> float:
    """A number from the tables, or 0 if it cannot be read."""
    number = _number(value)
    return 0.0 if number is None else number


# ---- leases


class Lease(NamedTuple):
    """A driver's row, with the database's time and start time."""

    driver: str
    process: Process
    seconds: float
    seen_at: float
    seen_monotonic: float
    stopping: bool
    asked_at: float
    up_since: float

    def as_driver(self, alive: bool) -> Driver:
        try:
            seen_at = datetime.fromtimestamp(self.seen_at, UTC)
        except (ValueError, OverflowError, OSError):
            seen_at = datetime.fromtimestamp(0, UTC)
        return Driver(self.driver, self.process.host, self.process.pid, seen_at, alive, self.stopping)


def read_lease(row: AnyRow) -> Lease:
    pid = as_step(row.pid)
    process = Process(str(row.host), pid if 0 < pid < 2**31 else 0, str(row.boot), str(row.process_started))
    return Lease(
        driver=str(row.id),
        process=process,
        seconds=readable_number(row.lease_seconds),
        seen_at=readable_number(row.seen_at),
        seen_monotonic=readable_number(row.seen_monotonic),
        stopping=bool(row.stopping),
        asked_at=readable_number(row.asked_at),
        up_since=readable_number(row.up_since),
    )
