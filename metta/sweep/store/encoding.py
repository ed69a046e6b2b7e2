"""JSON as stored: strict, with NaN and the infinities preserved as ``{"$float": "nan"}``."""

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
"""Separates the texts that `read_all` parses together. No text contains it, so none can run into the next."""

_NOT_READABLE = (ValueError, TypeError, RecursionError)


class NotStorableError(UserError):
    """A value that JSON cannot represent."""


@dataclass(frozen=True)
class Unreadable:
    """Replaces a stored value that cannot be read. `reason` says why, for example ``truncated JSON``."""

    reason: str


def dumps(value: Any) -> str:
    """Write `value` as strict JSON. Raises NotStorableError for a value that JSON cannot represent."""
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
    """Read any value of a JSON column: `Unreadable` if it is not JSON."""
    if written is None or isinstance(written, int | float):  # SQLite converts numeric text to a number
        return written
    try:
        return loads(written)
    except _NOT_READABLE as error:
        return Unreadable(_why_unreadable(error))


def read_all(column: Sequence[Any]) -> list[Any]:
    """`read` each, faster and with less memory: names repeated in many rows are kept once."""
    try:
        whole = loads("[" + f',"{_BETWEEN}",'.join(column) + "]")
        if len(whole) == 2 * len(column) - 1 and set(whole[1::2]) <= {_BETWEEN}:
            return list(whole[::2])
    except _NOT_READABLE:
        pass
    return [read(written) for written in column]


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        return "truncated JSON" if cut else f"not JSON: {error}"
    return f"not JSON: {error}"


def _mark(value: Any) -> Any:
    return strict(value, lambda number: {_MARK: repr(number)})


def unmark(value: dict[str, Any]) -> Any:
    """The number that ``{"$float": "nan"}`` stands for; any other object unchanged."""
    if value.keys() != {_MARK}:
        return value
    try:
        return float(value[_MARK])
    except (TypeError, ValueError):  # edited by hand
        return value
