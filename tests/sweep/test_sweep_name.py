"""Names of sweeps: which rule is broken, and one name for what looks the same."""

from __future__ import annotations

import unicodedata

import pytest

from metta.sweep.sweep_name import name_problem, normalised


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "it is empty"),
        ("a/b", "not '/'"),
        ("a b\n", r"not ' ', '\n'"),
        (".hidden", "begins with '.'"),
        ("-x", "begins with '-'"),
        ("a" * 101, "101 characters"),
        ("\N{HIRAGANA LETTER A}" * 70, "210 bytes"),
    ],
)
def test_a_broken_rule_is_named(name: str, problem: str) -> None:
    assert problem in (name_problem(name) or "")


@pytest.mark.parametrize("name", ["arena-1.2_b", "a" * 100, "größe", "\N{HIRAGANA LETTER A}" * 60])
def test_a_good_name(name: str) -> None:
    assert name_problem(name) is None


def test_one_name_however_it_is_typed() -> None:
    composed = "größe"
    assert normalised(unicodedata.normalize("NFD", composed)) == composed
