"""JSON as it is kept in the store: strict, with NaN and the infinities preserved as ``{"$float": "nan"}``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metta.common.errors import UserError
from metta.common.plain import plain, strict

_MARK = "$float"
_BETWEEN = secrets.token_hex(16)
"""Stands between the texts that `read_all` reads at once: no text holds it, so none can run into the next."""

_NOT_READABLE = (ValueError, TypeError, RecursionError)


class NotStorableError(UserError):
    """A value that JSON cannot hold."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a stored value that cannot be read. `reason` says why, as in ``cut JSON``."""

    reason: str


def dumps(value: Any) -> str:
    """Write `value` as strict JSON. Raises NotStorableError for what JSON cannot hold."""
    try:
        try:
            return json.dumps(value, allow_nan=False, default=plain)
        except ValueError:
            return json.dumps(_mark(value), allow_nan=False, default=lambda each: _mark(plain(each)))
    except RecursionError:
        raise NotStorableError("a value that contains itself, or is nested too deeply, cannot be stored") from None
    except (TypeError, ValueError) as error:
        raise NotStorableError(f"a value cannot be stored: {error}") from None


def loads(written: str | bytes) -> Any:
    """Read the output of `dumps`."""
    text = written if isinstance(written, str) else written.decode()
    return json.loads(text, object_hook=unmark) if _MARK in text else json.loads(text)


def read(written: Any) -> Any:
    """Read a JSON column, whatever it holds: `Unreadable` for a value that is not JSON."""
    if written is None or isinstance(written, int | float):  # SQLite makes a number of the text of one
        return written
    try:
        return loads(written)
    except _NOT_READABLE as error:
        return Unreadable(_why_unreadable(error))


def read_all(column: Sequence[Any]) -> list[Any]:
    """`read` each, faster and in less memory: names that return in many rows are kept once."""
    try:
        whole = loads("[" + f',"{_BETWEEN}",'.join(column) + "]")
        if len(whole) == 2 * len(column) - 1 and set(whole[1::2]) <= {_BETWEEN}:
            return list(whole[::2])
    except _NOT_READABLE:
        pass
    return [read(written) for written in column]


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON that is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        return "cut JSON" if cut else f"not JSON: {error}"
    return f"not JSON: {error}"


def _mark(value: Any) -> Any:
    return strict(value, lambda number: {_MARK: repr(number)})


def unmark(value: dict[str, Any]) -> Any:
    """The number that ``{"$float": "nan"}`` stands for; any other object as it is."""
    if value.keys() != {_MARK}:
        return value
    try:
        return float(value[_MARK])
    except (TypeError, ValueError):  # somebody edited it
        return value
