"""What user code gives becomes plain data, or is refused in a sentence."""

from __future__ import annotations

import enum
import json
import math
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.common.plain import copied, plain, plain_float, plain_number, shown


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


class Scalar:
    """A number of a library such as torch: it has `item`, `tolist` and `__float__`, and is no `Real`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value

    def tolist(self) -> Any:
        return self.value

    def __float__(self) -> float:
        return float(self.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same_types(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(same_types(one[key], other[key]) for key in one)
    return not isinstance(one, list) or all(map(same_types, one, other))


@given(JSON)
def test_json_data_stay_as_they_are(value: Any) -> None:
    for back in (plain(value), copied(value)):
        assert back == value
        assert same_types(back, value)


def test_a_copy_shares_nothing_that_can_be_changed() -> None:
    value: dict[str, Any] = {"layers": [64, [32]], "inner": {"a": [1]}}
    for back in (plain(value), copied(value)):
        back["layers"][1].append(10)
        back["inner"]["a"].append(2)
    assert value == {"layers": [64, [32]], "inner": {"a": [1]}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(2**62 + 1), 2**62 + 1),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("adam"), "adam"),
        (np.array(3), 3),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([True, False]), [True, False]),
        (np.array([None, Decimal("1.5")], dtype=object), [None, 1.5]),
        (Scalar(0.25), 0.25),
        (Scalar([[1.0], [2.0]]), [[1.0], [2.0]]),
        (Decimal("0.1"), 0.1),
        (Decimal(10**30), 10**30),
        (Fraction(6, 2), 3),
        (Fraction(1, 3), 1 / 3),
        (10**400, 10**400),
        (Size.LARGE, 3),
        (Colour.RED, "red"),
        ((1, (2, 3)), [1, [2, 3]]),
        (MappingProxyType({"a": (np.int8(1),)}), {"a": [1]}),
        (math.inf, math.inf),
    ],
)
def test_numbers_arrays_and_tuples_become_plain(value: Any, expected: Any) -> None:
    found = plain({"v": [value]})["v"][0]
    assert found == expected
    assert same_types(found, expected)
    json.dumps(found)


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), Decimal("nan"), Decimal("sNaN"), Scalar(math.nan)])
def test_nan_stays_nan(value: Any) -> None:
    assert math.isnan(plain(value))
    assert math.isnan(plain_number(value))


ITSELF: list[Any] = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, "is a set, which has no order; use a list"),
        (frozenset(), "is a set"),
        ({1: 2}, r"the key 1, which is not text"),
        (b"raw", r"b'raw' \(bytes\) is not JSON data"),
        (1j, "is not JSON data"),
        (np.complex128(1j), "is not JSON data"),
        (np.datetime64("2024-01-01"), "is not JSON data"),
        (object, "is not JSON data"),
        (Decimal("1e999999999"), "is too large"),
        (Fraction(10**400, 3), "is too large"),
        (ITSELF, "contain themselves"),
    ],
)
def test_what_json_has_no_word_for_is_refused(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        plain([value])


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), "1", np.str_("1"), b"1", None, [1], {}, 1j, np.array([1, 2]), Scalar("1"), object()]
)
def test_what_is_not_one_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="is not a number"):
        plain_number(value)


@given(st.integers())
def test_whole_numbers_are_exact(value: int) -> None:
    for given_as in (value, Fraction(value), Scalar(value), Decimal(value)):
        assert plain_number(given_as) == value
        assert type(plain_number(given_as)) is int


def test_a_number_beyond_floats_is_whole_but_no_float() -> None:
    assert plain_number(10**400) == 10**400
    assert plain_float(np.int8(3)) == 3.0
    with pytest.raises(TypeError, match=r"is too large: the largest number is 1.8e308"):
        plain_float(10**400)
    with pytest.raises(TypeError, match="is too large"):
        plain_float(10**5000)


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    class Secret:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(Secret()) == "(Secret that cannot be shown)"
    assert shown(10**5000) == "(int that cannot be shown)"
    assert shown("x" * 100, 10) == "'xxxxxx..."
