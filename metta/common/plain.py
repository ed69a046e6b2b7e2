"""Plain data: values from user code, converted to the types of JSON."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from numbers import Integral, Rational, Real
from typing import Any

_MOST_DIGITS = 4300
"""The most digits of a whole number that Python converts from or to text."""
_JSON_SCALARS = (bool, int, float, str)


def plain(value: Any) -> Any:
    """Convert a value from user code to plain JSON-like data, and return a copy.

    Numbers and arrays of NumPy, torch and the standard library become Python numbers; tuples become lists. NaN and the
    infinities are kept.

    Raises:
        TypeError: it contains a value that JSON cannot express; the message names it and says why.

    Example:
        >>> from decimal import Decimal
        >>> plain({"layers": (64, 32), "rate": Decimal("0.5")})
        {'layers': [64, 32], 'rate': 0.5}
    """
    try:
        return _plain(value)
    except RecursionError:
        raise TypeError("the data are nested too deeply, or contain themselves") from None


def plain_number(value: Any) -> int | float:
    """Convert a number of any library to a plain one. Whole numbers stay exact; NaN and the infinities are kept.

    Raises:
        TypeError: it is not one number. Booleans and text are not numbers.

    Example:
        >>> plain_number(Decimal("3")), plain_number(Decimal("0.25"))
        (3, 0.25)
    """
    if isinstance(value, str | bytes | bytearray | bool):
        raise _no_number(value)
    try:
        if isinstance(value, Real | Decimal):
            return _of_number(value)
        if callable(getattr(value, "item", None)):
            return _of_item(value)
        return float(value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        raise _no_number(value) from None


def plain_float(value: Any) -> float:
    """Convert a number of any library to a float.

    Raises:
        TypeError: it is not one number, or it is larger than a float can be.
    """
    number = plain_number(value)
    try:
        return float(number)
    except OverflowError:
        raise TypeError(f"{shown(value)} is too large: the largest number is 1.8e308") from None


def copied(value: Any) -> Any:
    """A deep copy; fast for plain data."""
    if value is None or type(value) in _JSON_SCALARS:
        return value
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) is list:
        return [copied(item) for item in value]
    return copy.deepcopy(value)


def strict(value: Any, write: Callable[[float], Any] = str) -> Any:
    """JSON data with NaN and the infinities replaced, which strict JSON cannot hold.

    Args:
        value: numbers, text, and dicts, lists and tuples of them. Anything else is unchanged.
        write: returns the replacement; by default text: "nan", "inf", "-inf".

    Example:
        >>> strict({"loss": [1.0, float("nan")]})
        {'loss': [1.0, 'nan']}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else write(float(value))
    if isinstance(value, Mapping):
        return {key: strict(item, write) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item, write) for item in value]
    return value


def shown(value: Any, limit: int = 80) -> str:
    """The value as Python shows it, cut to `limit` characters; its type if Python cannot show it."""
    try:
        text = repr(value)
    except Exception:
        text = f"({type(value).__name__} that cannot be shown)"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Real | Decimal):
        return plain_number(value)
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Set):
        raise TypeError(f"{shown(value)} is a set, which has no order; use a list")
    if callable(getattr(value, "tolist", None)):
        return _of_array(value)
    raise _no_data(value)


def _of_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{shown(value)} has the key {shown(key)}, which is not text")
    return {str.__str__(key): _plain(item) for key, item in value.items()}


def _of_array(value: Any) -> Any:
    """The value of an array or a scalar with `tolist`, such as those of NumPy and torch."""
    try:
        inner = value.tolist()
    except (TypeError, ValueError, RuntimeError):
        raise _no_data(value) from None
    if inner is not None and not isinstance(inner, (*_JSON_SCALARS, list, tuple)):
        raise _no_data(value)
    return _plain(inner)


def _of_number(value: Any) -> int | float:
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Rational) and value.denominator == 1:
        return int(value.numerator)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        if value.adjusted() >= _MOST_DIGITS:
            raise OverflowError
        return int(value)
    if isinstance(value, Decimal) and value.is_nan():
        return math.nan
    return float(value)


def _of_item(value: Any) -> int | float:
    """The number in a scalar or one-element array with `item`."""
    inner = value.item()
    if isinstance(inner, bool) or not isinstance(inner, Real | Decimal):
        raise TypeError
    return _of_number(inner)


def _no_number(value: Any) -> TypeError:
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):
        return TypeError(f"{shown(value)} is too large: the largest number is 1.8e308")
    return TypeError(f"{shown(value)} is not a number")


def _no_data(value: Any) -> TypeError:
    return TypeError(
        f"{shown(value)} ({type(value).__name__}) is not JSON data: "
        "null, a boolean, a number, text, a list, or a mapping with text as keys"
    )
