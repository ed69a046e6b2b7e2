"""JSON as it is kept in the store: strict, with NaN and the infinities preserved as ``{"$float": "nan"}``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

_MARK = "$float"


def dumps(value: Any) -> str:
    """Write `value` as strict JSON. Raises TypeError for what JSON cannot hold."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain_number)
    except ValueError:
        return json.dumps(_mark(value), allow_nan=False)


def loads(written: str | bytes) -> Any:
    """Read what `dumps` wrote."""
    text = written if isinstance(written, str) else written.decode()
    return json.loads(text, object_hook=_unmark) if _MARK in text else json.loads(text)


def _plain_number(value: Any) -> int | float:
    """NumPy's scalars are numbers, but not of the types that json knows."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be kept in the store: it is not JSON data")


def _mark(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _mark(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = _plain_number(value)
    return number if math.isfinite(number) else {_MARK: repr(number)}


def _unmark(value: dict[str, Any]) -> Any:
    return float(value[_MARK]) if value.keys() == {_MARK} else value
