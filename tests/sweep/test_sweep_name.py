"""Names of sweeps: which rule is broken, and one name for what looks the same."""

from __future__ import annotations

import unicodedata

import pytest

from metta.common.errors import UserError
from metta.sweep import optimize
from metta.sweep.sweep_name import name_problem, normalised, shortened, slug


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


def test_a_name_that_is_far_too_long_is_shown_in_part() -> None:
    search = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}
    with pytest.raises(UserError, match="2000000 characters") as caught:
        optimize(lambda config, trial: 0.0, search, "score", 1, name="a" * 2_000_000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my sweep!", "my-sweep-"),
        ("..a/b\n", "a-b-"),
        ("--fast", "fast"),
        ("?!", "sweep"),
        ("gro\u0308\u00dfe", "größe"),
    ],
)
def test_a_name_is_made_of_text_for_people(text: str, name: str) -> None:
    assert slug(text) == name


@pytest.mark.parametrize("letter", ["a", "ö", "\N{HIRAGANA LETTER A}", "\U0001d400"])
def test_long_names_are_cut_and_stay_different(letter: str) -> None:
    names = {shortened(letter * 100 + end) for end in "xyz"}
    assert len(names) == 3
    assert [name_problem(name) for name in names] == [None] * 3
    assert shortened(letter * 50) == letter * 50
