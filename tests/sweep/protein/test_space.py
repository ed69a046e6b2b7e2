"""Every value that is suggested is of the right type and inside the bounds; encoding and decoding agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.sweep.protein.space import Space, SpaceError
from metta.sweep.protein_config import ParameterConfig

FLOATS = st.floats(1e-6, 1e6, allow_nan=False)


@st.composite
def parameters(draw: st.DrawFn) -> ParameterConfig:
    distribution = draw(
        st.sampled_from(["uniform", "log_normal", "int_uniform", "int_log_normal", "uniform_pow2", "logit_normal"])
    )
    if distribution == "logit_normal":
        low, high = sorted(draw(st.tuples(st.floats(0.001, 0.998), st.floats(0.001, 0.998))))
        return ParameterConfig(min=low, max=high + 0.001, distribution=distribution)
    if distribution in ("uniform", "log_normal"):
        low, high = sorted(draw(st.tuples(FLOATS, FLOATS)))
        return ParameterConfig(min=low, max=high * 1.01, distribution=distribution)
    low, more = draw(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
    if distribution == "uniform_pow2":
        return ParameterConfig(min=2 ** (low % 12), max=2 ** (low % 12 + 1 + more % 12), distribution=distribution)
    return ParameterConfig(min=low, max=low + more, distribution=distribution)


@given(parameters(), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_values_are_of_the_right_type_and_inside_the_bounds(config: ParameterConfig, uniform: list[float]) -> None:
    space = Space({"p": config})
    assert config.min is not None
    assert config.max is not None
    for point in space.place(np.array(uniform)[:, None]):
        value = space.decode(point)["p"]
        whole = config.distribution in ("int_uniform", "int_log_normal", "uniform_pow2")
        assert type(value) is (int if whole else float)
        assert config.min <= value <= config.max
        if config.distribution == "uniform_pow2":
            assert math.log2(value) == int(math.log2(value))


@given(parameters(), st.floats(0, 1))
def test_encoding_inverts_decoding(config: ParameterConfig, uniform: float) -> None:
    space = Space({"p": config})
    (point,) = space.place(np.array([[uniform]]))
    decoded = space.decode(point)
    np.testing.assert_allclose(space.encode(decoded), point, atol=1e-6)
    assert space.decode(space.encode(decoded))["p"] == pytest.approx(decoded["p"])


@pytest.mark.parametrize("choices", [["a", "b"], [1, True, 0, False], [None, {"x": [1]}, [1, 2], 2.5]])
def test_every_choice_comes_back_as_it_was(choices: list[Any]) -> None:
    space = Space({"c": ParameterConfig(choices=choices, distribution="categorical")})
    for choice in choices:
        back = space.decode(space.encode({"c": choice}))["c"]
        assert back == choice
        assert type(back) is type(choice)


def test_every_whole_number_is_drawn_equally_often() -> None:
    space = Space({"n": ParameterConfig(min=1, max=4, distribution="int_uniform")})
    values = [space.decode(point)["n"] for point in space.place(np.linspace(0.001, 0.999, 400)[:, None])]
    assert [values.count(n) for n in (1, 2, 3, 4)] == [100, 100, 100, 100]


def test_counts_over_an_order_of_magnitude_are_modelled_by_ratio_but_drawn_evenly() -> None:
    space = Space({"n": ParameterConfig(min=1, max=100, distribution="int_uniform")})
    columns = [float(space.encode({"n": n})[0]) for n in (1, 10, 100)]
    assert columns[1] > 0.4
    drawn = [space.decode(point)["n"] for point in space.place(np.linspace(0.005, 0.995, 100)[:, None])]
    assert np.mean(drawn) == pytest.approx(50.5, abs=1)
    assert space.decode(space.centre)["n"] in (50, 51)


def test_values_outside_the_bounds_are_kept_for_the_model_but_never_suggested() -> None:
    space = Space({"x": ParameterConfig(min=0, max=1, distribution="uniform")})
    outside = space.encode({"x": 1.5})
    assert outside[0] == pytest.approx(1.5)
    assert space.decode(space.snap(outside[None])[0])["x"] == 1.0


def test_a_parameter_that_was_added_takes_its_default_and_one_removed_is_left_out() -> None:
    space = Space({"x": ParameterConfig(min=0, max=1, distribution="uniform", default=0.25)})
    assert space.encode({"gone": 3})[0] == pytest.approx(0.25)


def test_a_space_between_two_whole_numbers_is_refused() -> None:
    with pytest.raises(SpaceError, match="n: int_uniform needs two values"):
        Space({"n": ParameterConfig(min=1.1, max=1.9, distribution="int_uniform")})


def test_fixed_values_stand_among_the_suggested() -> None:
    space = Space({"a": {"x": ParameterConfig(min=0, max=1, distribution="uniform"), "type": "adam"}, "n": [1, 2]})
    assert space.decode(space.centre) == {"a": {"x": 0.5, "type": "adam"}, "n": [1, 2]}
