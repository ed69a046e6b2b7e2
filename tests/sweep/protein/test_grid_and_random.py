"""Grid and random search: which points, in which order, and how they are distributed."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest, lognorm, norm

from metta.sweep.protein import Protein
from metta.sweep.protein.grid import Grid, GridDone
from metta.sweep.protein.space import Space, SpaceError
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

Parameter = ParameterConfig


def search(method: Any, parameters: dict[str, Any], seed: int = 0, **fields: Any) -> Protein:
    return Protein(ProteinConfig(metric="m", method=method, parameters=parameters, **fields), seed=seed)


def choices(*values: Any) -> ParameterConfig:
    return ParameterConfig.model_validate({"choices": list(values)})


AXES = st.lists(
    st.one_of(
        st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True).map(lambda v: (choices(*v), v)),
        st.tuples(st.integers(-9, 9), st.integers(1, 5)).map(
            lambda ends: (
                Parameter(min=ends[0], max=ends[0] + ends[1], distribution="int_uniform"),
                list(range(ends[0], ends[0] + ends[1] + 1)),
            )
        ),
        st.tuples(st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.1, 0.25, 0.05, 3])).map(
            lambda k: (
                Parameter(min=k[0] * k[2], max=(k[0] + k[1]) * k[2], step=k[2], distribution="uniform"),
                [float(f"{(k[0] + i) * k[2]:.12g}") for i in range(k[1] + 1)],
            )
        ),
        st.tuples(st.integers(-3, 8), st.integers(1, 4)).map(
            lambda k: (
                Parameter(min=2.0 ** k[0], max=2.0 ** (k[0] + k[1]), distribution="uniform_pow2"),
                [2.0 ** (k[0] + i) for i in range(k[1] + 1)],
            )
        ),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(axes=AXES)
def test_a_grid_has_every_combination_once_and_the_last_parameter_changes_fastest(axes: list[Any]) -> None:
    protein = search("grid", {f"p{i}": config for i, (config, _) in enumerate(axes)})
    expected = list(product(*(values for _, values in axes)))

    suggested = [tuple(protein.suggest()[0].values()) for _ in expected]

    assert suggested == expected
    with pytest.raises(GridDone, match=f"all {len(expected)} points"):
        protein.suggest()


def test_a_grid_goes_on_where_it_was_and_skips_points_that_run_elsewhere() -> None:
    parameters = {"seed": choices(0, 1), "lr": Parameter(min=1, max=3, distribution="int_uniform")}
    whole = [protein.suggest()[0] for protein in [search("grid", parameters)] for _ in range(6)]
    resumed = search("grid", parameters)
    resumed.observe(whole[0], score=1.0, cost=1.0, number=0)
    resumed.observe(whole[2], score=None, cost=1.0, is_failure=True, number=1)
    resumed.suggested(2, whole[3])
    resumed.observe({"seed": 0, "lr": 7}, score=1.0, cost=1.0, number=3)

    assert [resumed.suggest()[0] for _ in range(3)] == [whole[1], whole[4], whole[5]]
    resumed.forget(2)
    assert resumed.suggest()[0] == whole[3]


def test_points_that_break_a_constraint_are_not_of_the_grid() -> None:
    parameters = {"a": choices(1, 2, 3), "b": choices(1, 2, 3)}
    grid = Grid(space := Space(parameters, ["a < b"]))

    assert [space.decode(point) for point in grid.points()] == [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert grid.size == 3


@pytest.mark.parametrize(
    ("parameter", "why"),
    [
        (Parameter(min=0.0, max=1.0, distribution="uniform"), r"p: .* continuous range; add a step \(step: 0.1\)"),
        (Parameter(min=1e-5, max=0.1, distribution="log_normal"), "add a step"),
        (Parameter(min=0, max=10**9, distribution="int_uniform"), "1,000,000,001 values are too many for a grid"),
    ],
)
def test_a_range_that_has_no_grid_is_refused_with_what_to_add(parameter: ParameterConfig, why: str) -> None:
    with pytest.raises(SpaceError, match=why):
        search("grid", {"p": parameter})


def test_random_draws_are_independent_and_depend_on_nothing_but_the_seed_and_the_number() -> None:
    parameters = {"x": Parameter(min=0, max=1, distribution="uniform"), "y": choices("a", "b")}
    one, other = search("random", parameters, seed=3), search("random", parameters, seed=3)
    first = [one.suggest()[0] for _ in range(200)]
    for number, params in enumerate(first[:5]):
        other.observe(params, score=float(number), cost=1.0, number=number)

    assert [other.suggest()[0] for _ in range(5)] == first[5:10]
    xs = [params["x"] for params in first]
    assert kstest(xs, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(xs[:-1], xs[1:])[0, 1]) < 0.25
    assert first != [search("random", parameters, seed=4).suggest()[0] for _ in range(200)]


@pytest.mark.parametrize(
    ("parameter", "distribution"),
    [
        (Parameter(min=-4, max=4, mean=0, std=1, distribution="uniform"), norm(0, 1)),
        (
            Parameter(min=np.exp(-9), max=np.exp(-1), mean=np.exp(-5), std=1, distribution="log_normal"),
            lognorm(1, scale=np.exp(-5)),
        ),
        (Parameter(min=0, max=1, beta=(2, 5), distribution="uniform"), beta(2, 5)),
    ],
)
def test_random_values_have_the_distribution_asked_for(parameter: ParameterConfig, distribution: Any) -> None:
    protein = search("random", {"p": parameter})
    values = [protein.suggest()[0]["p"] for _ in range(300)]

    assert kstest(values, distribution.cdf).pvalue > 1e-3


def test_weights_say_how_often_a_choice_is_drawn() -> None:
    protein = search(
        "random", {"p": ParameterConfig(choices=["a", "b", "c"], weights=[1, 3, 0], distribution="categorical")}
    )
    values = [protein.suggest()[0]["p"] for _ in range(400)]

    assert values.count("c") == 0
    assert 250 < values.count("b") < 350


@settings(max_examples=40, deadline=None)
@given(
    low=st.floats(0.01, 5),
    width=st.floats(1, 50),
    step=st.sampled_from([0.1, 0.25, 0.5, 1, 3]),
    log=st.booleans(),
    method=st.sampled_from(["random", "bayes"]),
)
def test_suggestions_are_multiples_of_the_step_within_the_bounds(
    low: float, width: float, step: float, log: bool, method: str
) -> None:
    high = low + width + 2 * step
    parameter = Parameter(min=low, max=high, step=step, distribution="log_normal" if log else "uniform")
    protein = search(method, {"p": parameter})
    for number in range(6):
        params, _ = protein.suggest()
        value = params["p"]
        protein.observe(params, score=value, cost=1.0, number=number)
        assert low - 1e-9 <= value <= high + 1e-9
        assert value == pytest.approx(round(value / step) * step)
        assert isinstance(value, type(step))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"min": 0, "max": 1, "distribution": "uniform", "step": 0}, "step .0. must be above 0"),
        ({"min": 1, "max": 8, "distribution": "uniform_pow2", "step": 2}, "uniform_pow2 has no step"),
        ({"min": 1, "max": 8, "distribution": "int_uniform", "step": 0.5}, "must be a whole number"),
        ({"min": 0, "max": 1, "distribution": "uniform", "std": 1}, "std needs mean"),
        ({"min": 0, "max": 1, "distribution": "uniform", "beta": (0, 1)}, "shapes of beta"),
        ({"choices": [1, 2], "weights": [1]}, "expected 2 numbers"),
        ({"choices": [1, 2], "step": 1}, "not min, max, mean, step"),
        ({"min": 0, "max": 1, "distribution": "uniform", "weights": [1]}, "weights belong to a categorical"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ParameterConfig(**fields)
