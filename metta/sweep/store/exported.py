"""The allowed content of a ``.json`` file of `export_sweep`.

The file may come from anybody, so all of it is checked before use. Limits exist because a small file can cause
unlimited work.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from metta.common.config import reasons
from metta.common.errors import nearest
from metta.sweep.store import encoding
from metta.sweep.store.files import TransferError, read_text, refusal
from metta.sweep.store.protocol import CurvePoint, StoredDecision, SweepRecord, TrialHistory
from metta.sweep.store.results import LARGEST_NUMBER
from metta.sweep.trial import Trial, TrialState

FORMAT = "metta-sweep 1"

MOST_TRIALS = 1_000_000
MOST_POINTS = 20_000_000
"""The limit for all learning curves together."""
MOST_DECISIONS = 10_000_000
MOST_ATTEMPTS = 10_000
"""The limit for one trial."""
MOST_DEPTH = 200
"""The limit for the nesting of lists and objects."""

T = TypeVar("T")
_RECORD = TypeAdapter(SweepRecord)
_HISTORIES = TypeAdapter(list[TrialHistory])
_DECISIONS = TypeAdapter(list[StoredDecision])


class _FaultError(Exception):
    """A fault in the content of a file, with its location."""


def load(place: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        TransferError: the file cannot be read, or was not written by `export_sweep`.
    """
    text = read_text(place)
    try:
        whole = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise _not_exported(place, "it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _not_exported(place, f"it is not JSON: {error}") from None
    except (ValueError, _FaultError) as error:
        raise _not_exported(place, str(error)) from None
    if not isinstance(whole, dict):
        raise _not_exported(place, "it contains no JSON object")
    if whole.get("format") != FORMAT:
        raise _not_exported(place, f"its format is {reprlib.repr(whole.get('format'))}, not {FORMAT!r}")
    return whole


def record(place: str | Path, value: Any) -> SweepRecord:
    """The record of the sweep, from the value of ``sweep``.

    Raises:
        TransferError: it is not a valid record.
    """
    _check_names(place, "sweep", SweepRecord, value)
    found = _checked(place, "sweep", _RECORD, value)
    for name in ("config", "entry_point"):
        _check_depth(place, f"sweep.{name}", getattr(found, name))
    return replace(found, created_at=_utc(place, "sweep.created_at", found.created_at))


def histories(place: str | Path, value: Any) -> list[TrialHistory]:
    """The trials, from the value of ``trials``. A trial that was running is queued.

    Raises:
        TransferError: they are not valid trials, or their numbers do not ascend.
    """
    if not isinstance(value, list):
        raise _not_exported(place, "trials: not a list")
    if len(value) > MOST_TRIALS:
        raise _not_exported(place, f"it has {len(value):,} trials; at most {MOST_TRIALS:,} are read")
    for number, each in enumerate(value):
        _check_all_names(place, f"trials.{number}", each)
    found = _checked(place, "trials", _HISTORIES, value)
    _check_numbers(place, [history.trial.number for history in found])
    _check_counts(place, found)
    return [replace(history, trial=_trial(place, history.trial)) for history in found]


def decisions(place: str | Path, value: Any) -> list[StoredDecision]:
    """The decisions about the trials, from the value of ``decisions``.

    Raises:
        TransferError: they are not valid decisions.
    """
    if not isinstance(value, list) or len(value) > MOST_DECISIONS:
        raise _not_exported(place, f"decisions: not a list of at most {MOST_DECISIONS:,}")
    for number, each in enumerate(value):
        _check_names(place, f"decisions.{number}", StoredDecision, each)
    found = _checked(place, "decisions", _DECISIONS, value)
    for each in found:
        _check_depth(place, f"decisions of trial {each.number}", each.details)
    return found


def exportable(history: TrialHistory) -> TrialHistory:
    """A trial as `histories` reads it. Its number of attempts is limited, because it may have been edited by hand."""
    curve = [replace(point, attempt=_limited(point.attempt)) for point in history.curve]
    return replace(history, trial=replace(history.trial, attempts=_limited(history.trial.attempts)), curve=curve)


def _limited(attempts: int) -> int:
    return max(0, min(attempts, MOST_ATTEMPTS))


# ---- structure


def _object(pairs: Sequence[tuple[str, Any]]) -> Any:
    read = dict(pairs)
    if len(read) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _FaultError(f"{reprlib.repr(twice)} appears twice in one object")
    return encoding.unmark(read)


def _checked(place: str | Path, where: str, adapter: TypeAdapter[T], value: Any) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _not_exported(place, f"{where}.{reasons(error.errors(include_url=False)[:1])}") from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise _not_exported(place, f"{where}: {error}") from None


def _check_all_names(place: str | Path, where: str, history: Any) -> None:
    """Check the names of all fields of a trial's history; their types are checked later."""
    _check_names(place, where, TrialHistory, history)
    if isinstance(history, Mapping):
        _check_names(place, f"{where}.trial", Trial, history.get("trial"))
        curve = history.get("curve")
        for number, point in enumerate(curve if isinstance(curve, list) else []):
            _check_names(place, f"{where}.curve.{number}", CurvePoint, point)


def _check_names(place: str | Path, where: str, kind: type, value: Any) -> None:
    if isinstance(value, Mapping) and (unknown := next((name for name in value if name not in _names(kind)), None)):
        near = nearest(unknown, sorted(_names(kind)))
        raise _not_exported(place, f"{where}: {reprlib.repr(unknown)} is unknown; {near}")


@cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind) if field.name not in ("damage", "holder"))


def _check_depth(place: str | Path, where: str, value: Any) -> None:
    if too_deep(value):
        raise _not_exported(place, f"{where}: it is nested more than {MOST_DEPTH} levels deep")


def too_deep(value: Any) -> bool:
    """Whether lists and objects are nested more than `MOST_DEPTH` levels deep in a value."""
    level: Iterable[Any] = [value]
    for _ in range(MOST_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, Mapping | list | tuple)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        if not level:
            return False
    return True


# ---- values


def _check_numbers(place: str | Path, numbers: Sequence[int]) -> None:
    for before, number in zip([-1, *numbers], numbers, strict=False):
        if number <= before:
            follows = f"after {before}" if before >= 0 else "at the start"
            raise refusal(place, f"trial {number} {follows}; the numbers must be 0 or more, and ascend")
    if numbers and numbers[-1] > LARGEST_NUMBER:
        raise refusal(place, f"trial {numbers[-1]}: the largest number of a trial is {LARGEST_NUMBER}")


def _check_counts(place: str | Path, found: Sequence[TrialHistory]) -> None:
    if (points := sum(len(history.curve) for history in found)) > MOST_POINTS:
        raise refusal(place, f"its learning curves have {points:,} points; at most {MOST_POINTS:,} are read")
    for history in found:
        attempts = [history.trial.attempts, *(point.attempt for point in history.curve)]
        if min(attempts) < 0 or max(attempts) > MOST_ATTEMPTS:
            wrong = min(attempts) if min(attempts) < 0 else max(attempts)
            raise refusal(place, f"trial {history.trial.number}: attempts: {wrong} is not in 0 to {MOST_ATTEMPTS:,}")


def _trial(place: str | Path, trial: Trial) -> Trial:
    where = f"trial {trial.number}"
    for name in ("params", "suggestion"):
        _check_depth(place, f"{where}: {name}", getattr(trial, name))
    moments = {name: getattr(trial, name) for name in ("created_at", "started_at", "ended_at")}
    moments = {name: _utc(place, f"{where}: {name}", moment) for name, moment in moments.items() if moment is not None}
    state = TrialState.QUEUED if trial.state is TrialState.RUNNING else trial.state
    return replace(trial, state=state, **moments)


def _utc(place: str | Path, where: str, moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _not_exported(place, f"{where}: {moment} is out of range") from None


def _not_exported(place: str | Path, reason: str) -> TransferError:
    return refusal(place, f"not a sweep exported as JSON: {reason}")
