"""Constraints: read safely, checked at the start, and never broken by a suggestion."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.common.errors import UserError
from metta.sweep import Protein, ProteinConfig, ProteinSettings
from metta.sweep.constraints import Constraint, ConstraintError
from metta.sweep.observations import search_centre

PATHS = ["trainer.batch_size", "trainer.minibatch_size", "lr", "optimizer.name", "eval.batch_size"]


def test_a_choice_that_does_not_exist_is_refused() -> None:
    parameters = {"kind": {"choices": ["adam", "sgd"]}, "lr": {"min": 0, "max": 1, "distribution": "uniform"}}
    ProteinConfig(metric="a", parameters=parameters, constraints=["kind == 'adam' or lr < 0.01", "'sgd' != kind"])
    with pytest.raises(ValueError, match="kind is never 'Adam'; did you mean 'adam'"):
        ProteinConfig(metric="a", parameters=parameters, constraints=["kind == 'Adam' or lr < 0.01"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("minibatch_sise <= lr", "did you mean 'minibatch_size'"),
        ("batch_size <= 5", "'batch_size' is ambiguous: trainer.batch_size, eval.batch_size"),
        ("lr", "'lr' is not a comparison"),
        ("lr + 1", "is not a comparison"),
        ("lr < ", "cannot be read"),
        ("1 < 2", "names no hyperparameter"),
        ("__import__('os').system('x') == 0", r"__import__\('os'\).system\('x'\)\" is not allowed"),
        ("lr in (1, 2)", "compare with"),
        ("lr.__class__ == 1", "no hyperparameter 'lr.__class__'"),
        ("(lr := 3) > 2", "is not allowed"),
        ("[x for x in lr] == lr", "is not allowed"),
        ("lr and lr < 1", "'lr' is not a comparison"),
        ("(lr < 1) < 2", "is not allowed"),
        ("lr" + " + 1" * 100_000 + " < 2", "500 characters"),
    ],
)
def test_what_is_no_constraint_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConstraintError, match=why):
        Constraint.parse(text, PATHS)


def test_a_config_refuses_a_constraint_on_what_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="did you mean 'y'"):
        config(["x < yy"])


@pytest.mark.parametrize("text", ["kind < 3", "x + kind > 1"])
def test_what_cannot_be_compared_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(UserError, match="constraint"):
        search_centre(config([text]))


def test_constraints_that_nothing_meets_are_refused_at_the_start() -> None:
    with pytest.raises(UserError, match="none meets the constraints: x \\+ y > 3"):
        search_centre(config(["x + y > 3"]))


def config(constraints: list[str], **settings: Any) -> ProteinConfig:
    return ProteinConfig(
        metric="score",
        parameters={
            "x": {"min": 0, "max": 1, "distribution": "uniform"},
            "y": {"min": 0, "max": 1, "distribution": "uniform"},
            "n": {"min": 1, "max": 64, "distribution": "int_log_normal"},
            "m": {"min": 1, "max": 64, "distribution": "uniform_pow2"},
            "kind": {"choices": ["a", "b", True, None]},
            "width": {"choices": [16, 32, 64]},
            "limit": 40,
        },
        constraints=constraints,
        settings=ProteinSettings(**settings),
    )


@pytest.mark.parametrize("settings", [{}, {"resample_frequency": 2}, {"seed_with_search_center": False}])
@pytest.mark.parametrize("max_cost", [None, 30.0])
def test_no_suggestion_breaks_a_constraint(settings: dict[str, Any], max_cost: float | None) -> None:
    constraints = ["x < y", "m <= n", "n <= limit", "kind == 'a' or x < 0.2", "width % m == 0", "kind != None"]
    protein = Protein(
        config(constraints, num_random_samples=3, random_suggestions=64, suggestions_per_pareto=8, **settings),
        seed=0,
        num_trials=20,
        max_cost=max_cost,
    )
    protein.observe(
        {"x": 0.9, "y": 0.1, "n": 64, "m": 64, "kind": None, "width": 16, "limit": 40}, score=99.0, cost=1.0, number=0
    )
    for _ in range(14):
        params, _ = protein.suggest()
        x, y, n, m, kind, width = (params[name] for name in ("x", "y", "n", "m", "kind", "width"))
        assert x < y
        assert m <= n <= 40
        assert kind == "a" or x < 0.2
        assert width % m == 0
        assert kind is not None
        protein.observe(params, score=x - y, cost=1.0)


NUMBERS = st.integers(-5, 5)
NAMES = st.sampled_from(["a.x", "y", "z"])


@st.composite
def sides(draw: st.DrawFn, depth: int = 2) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(NAMES) if draw(st.booleans()) else str(draw(NUMBERS))
    op = draw(st.sampled_from(["+", "-", "*", "/", "//", "%"]))
    return f"({draw(sides(depth - 1))} {op} {draw(sides(depth - 1))})"


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["compare", "chain", "not", "and", "or"])) if depth else "compare"
    if kind == "not":
        return f"not ({draw(conditions(depth - 1))})"
    if kind in ("and", "or"):
        return f"({draw(conditions(depth - 1))}) {kind} ({draw(conditions(depth - 1))})"
    ops = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    text = f"{draw(sides())} {draw(ops)} {draw(sides())}"
    return f"{text} {draw(ops)} {draw(sides())}" if kind == "chain" else text


@settings(max_examples=150, deadline=None)
@given(text=conditions(), x=NUMBERS, y=NUMBERS, z=NUMBERS)
def test_a_constraint_means_what_it_means_in_python(text: str, x: int, y: int, z: int) -> None:
    if not any(isinstance(node, ast.Name) for node in ast.walk(ast.parse(text))):
        return
    constraint = Constraint.parse(text, ["a.x", "y", "z"])
    values = {"a.x": x, "y": y, "z": z}
    try:
        expected = bool(eval(text.replace("a.x", "x"), {"x": float(x), "y": float(y), "z": float(z)}))
    except ZeroDivisionError:
        return
    assert bool(constraint.holds(values)) == expected
    arrays = {path: np.array([value, value], dtype=float) for path, value in values.items()}
    assert list(np.broadcast_to(constraint.holds(arrays), 2)) == [expected] * 2


def test_a_division_by_zero_does_not_hold() -> None:
    assert not Constraint.parse("1 / x > 1 / x", ["x"]).holds({"x": 0})
    assert not Constraint.parse("0 / x == 0", ["x"]).holds({"x": np.array([0.0])})[0]
