from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.common.command_line import read_value, readings, split_pairs
from metta.common.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e5", 1e5),
        ("-1.", -1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("10", 10),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("[1, 2.5, [x]]", [1, 2.5, ["x"]]),
        ("{a: 1e-3, b: {c: no}}", {"a": 1e-3, "b": {"c": "no"}}),
        ("'12'", "12"),
        ("a # b", "a # b"),
        ("#tag", "#tag"),
        ("a: b: c", "a: b: c"),
        ("[1, 2", "[1, 2"),
        ("*star", "*star"),
        ("&a [*a]", "&a [*a]"),
        ("!!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd []"),
        ("!!timestamp 3", "!!timestamp 3"),
        ("!!bool q", "!!bool q"),
    ],
)
def test_values_are_yaml_and_anything_else_is_text(text: str, value: Any) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


@given(st.text())
def test_any_text_can_be_read_and_stays_available_as_typed(text: str) -> None:
    assert readings(text)[0] == read_value(text)
    assert readings(text)[-1] == text


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back(number: float) -> None:
    assert read_value(repr(number)) == number


def test_lists_can_be_read_as_text() -> None:
    assert readings("[1, {a: 2e3}]") == [[1, {"a": 2e3}], ["1", {"a": "2e3"}], "[1, {a: 2e3}]"]


def test_pairs() -> None:
    assert split_pairs(["a=1", "b.c=x=y", "d="], "--args") == {"a": "1", "b.c": "x=y", "d": ""}
    with pytest.raises(UserError, match=r"^--args: expected NAME=VALUE, got 'b'$"):
        split_pairs(["a=1", "b"], "--args")
    with pytest.raises(UserError, match=r"^--args: a is given twice \('1' and '2'\)$"):
        split_pairs(["a=1", "a=2"], "--args")
