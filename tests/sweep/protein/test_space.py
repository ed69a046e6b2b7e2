"""Every value that is suggested is of the right type and inside the bounds; encoding and decoding agree."""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.sweep.protein.space import Numeric, Space, SpaceError
from metta.sweep.protein_config import ParameterConfig

FLOATS = st.floats(1e-6, 1e6, allow_nan=False)
WIDTHS = st.floats(1e-3, 1e3) | st.just(1e-9)


@st.composite
def whole_ranges(draw: st.DrawFn, distribution: str) -> ParameterConfig:
    """Ranges of whole numbers of any size: small, beyond what floats hold exactly, and from small to large."""
    edge = draw(st.sampled_from([1, 7, 10**6, 2**40, 2**53 - 1, 2**63, 10**30]))
    low = edge + draw(st.integers(0, 10**6))
    high = low + draw(st.integers(1, 50) | st.integers(1, 10**6) | st.integers(1, 2**70))
    if distribution == "int_uniform" and draw(st.booleans()):
        low, high = -high, draw(st.sampled_from([-low, low]))
    return ParameterConfig(min=low, max=high, distribution=distribution)


@st.composite
def parameters(draw: st.DrawFn) -> ParameterConfig:
    distribution = draw(
        st.sampled_from(["uniform", "log_normal", "int_uniform", "int_log_normal", "uniform_pow2", "logit_normal"])
    )
    if distribution == "logit_normal":
        low, high = sorted(draw(st.tuples(st.floats(0.001, 0.998), st.floats(0.001, 0.998))))
        return ParameterConfig(min=low, max=high + 0.001, distribution=distribution)
    if distribution == "uniform":
        low = draw(FLOATS | st.floats(-1e6, 1e6))
        return ParameterConfig(min=low, max=low + draw(WIDTHS) * max(abs(low), 1e-6), distribution=distribution)
    if distribution == "log_normal":
        low = draw(FLOATS | st.sampled_from([1e-300, 1e300]))
        return ParameterConfig(min=low, max=low * (1.0 + draw(WIDTHS)), distribution=distribution)
    if distribution == "uniform_pow2":
        low_power, powers = draw(st.tuples(st.integers(-60, 60), st.integers(1, 20)))
        ends = [Fraction(2) ** power for power in (low_power, low_power + powers)]
        within = draw(st.sampled_from([Fraction(1), Fraction(11, 16)]))  # bounds that are no powers themselves
        low, high = (int(end) if end.denominator == 1 else float(end) for end in (ends[0] * within, ends[1] / within))
        return ParameterConfig(min=low, max=high, distribution=distribution)
    return draw(whole_ranges(distribution))


@given(parameters(), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_values_are_of_the_right_type_and_inside_the_bounds(config: ParameterConfig, uniform: list[float]) -> None:
    space = Space({"p": config})
    assert config.min is not None
    assert config.max is not None
    for point in [*space.place(np.array([*uniform, 0.0, 1.0])[:, None]), space.centre]:
        value = space.decode(point)["p"]
        assert config.min <= value <= config.max
        if config.distribution == "uniform_pow2":
            assert math.frexp(value)[0] == 0.5
            assert type(value) is (int if value >= 1 else float)
        else:
            assert type(value) is (int if config.distribution.startswith("int_") else float)


@given(parameters(), st.floats(0, 1))
def test_snapping_a_point_twice_moves_it_once(config: ParameterConfig, uniform: float) -> None:
    space = Space({"p": config})
    points = space.place(np.array([[uniform]]))
    np.testing.assert_allclose(space.snap(points), points, atol=1e-9)


@given(parameters(), st.floats(0, 1))
def test_encoding_inverts_decoding(config: ParameterConfig, uniform: float) -> None:
    space = Space({"p": config})
    (point,) = space.place(np.array([[uniform]]))
    decoded = space.decode(point)
    np.testing.assert_allclose(space.encode(decoded), point, atol=1e-6)
    assert space.decode(space.encode(decoded))["p"] == pytest.approx(decoded["p"], rel=1e-9)


@given(whole_ranges("int_uniform"), st.integers(0, 40))
def test_whole_numbers_come_back_exactly_where_the_range_is_no_finer_than_floats(
    config: ParameterConfig, step: int
) -> None:
    assert isinstance(config.min, int)
    assert isinstance(config.max, int)
    (parameter,) = Space({"p": config}).parameters
    value = min(config.min + step, config.max)
    back = parameter.decode(np.array(parameter.encode(value)))
    assert type(back) is int
    exact = isinstance(parameter, Numeric) and parameter.scale == "linear" and config.max - config.min < 2**50
    assert back == value if exact else config.min <= back <= config.max


@pytest.mark.parametrize("distribution", ["int_uniform", "int_log_normal"])
def test_each_of_a_few_whole_numbers_beyond_floats_is_drawn(distribution: str) -> None:
    low = 2**53 - 1
    space = Space({"n": ParameterConfig(min=low, max=low + 11, distribution=distribution)})
    drawn = [space.decode(point)["n"] for point in space.place(np.linspace(0.001, 0.999, 240)[:, None])]
    assert [drawn.count(low + i) for i in range(12)] == [20] * 12


def test_a_range_from_0_to_the_largest_64_bit_number_is_drawn_evenly_from_all_of_it() -> None:
    space = Space({"n": ParameterConfig(min=0, max=2**63, distribution="int_uniform")})
    drawn = [space.decode(point)["n"] for point in space.place(np.linspace(0, 1, 5)[:, None])]
    assert drawn == [0, 2**61, 2**62, 3 * 2**61, 2**63]
    assert space.decode(space.encode({"n": 2**63}))["n"] == 2**63


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0.125, 8, [0.125, 0.25, 0.5, 1, 2, 4, 8]),
        (0.1, 0.7, [0.125, 0.25, 0.5]),
        (2**68 + 1, 2**70, [2**69, 2**70]),
        (5e-324, 1.5e-323, [5e-324, 1e-323]),
    ],
)
def test_powers_of_two_are_exact_and_drawn_equally_often(low: float, high: float, values: list[float]) -> None:
    space = Space({"p": ParameterConfig(min=low, max=high, distribution="uniform_pow2")})
    drawn = [space.decode(point)["p"] for point in space.place(np.linspace(0.001, 0.999, 50 * len(values))[:, None])]
    assert sorted(set(drawn)) == values
    assert all(type(value) is (int if value >= 1 else float) for value in drawn)
    if low > 1e-300:
        assert {drawn.count(value) for value in values} == {50}


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.text(), st.floats(), st.integers(), st.integers(min_value=10**308),
    st.decimals(), st.fractions(), st.complex_numbers(), st.binary(), st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()), st.sets(st.integers()), st.just(10**5000), st.just(np.zeros(3)),
)  # fmt: skip


@given(parameters() | st.just(ParameterConfig(choices=[1, "a", None], distribution="categorical")), ANYTHING)
def test_any_value_has_a_finite_place_or_is_refused_with_the_name_of_the_parameter(
    config: ParameterConfig, value: Any
) -> None:
    space = Space({"lr": config})
    with contextlib.suppress(SpaceError):
        assert np.isfinite(space.encode({"lr": value})).all()
        return
    with pytest.raises(SpaceError, match=r"^lr: "):
        space.encode({"lr": value})


LOG = ParameterConfig(min=0.001, max=1, distribution="log_normal")
SHARE = ParameterConfig(min=0.5, max=0.99, distribution="logit_normal")
COUNT = ParameterConfig(min=1, max=50, distribution="int_uniform")
KIND = ParameterConfig(choices=["adam", "sgd", [64, 32], None, 1], distribution="categorical")


@pytest.mark.parametrize(
    ("config", "value", "message"),
    [
        (LOG, "O.01", "p: 'O.01' is not a number; it is searched in 0.001 to 1, log scale"),
        (LOG, 0, "p: 0 is not above 0, and p is on a log scale"),
        (LOG, math.nan, "p: nan is not finite; it is searched in 0.001 to 1, log scale"),
        (LOG, True, "p: True is not a number; it is searched in 0.001 to 1, log scale"),
        (SHARE, 1, "p: 1 is not between 0 and 1, and p is on a logit scale"),
        (COUNT, None, "p: None is not a number; it is searched in 1 to 50, whole numbers"),
        (COUNT, Decimal(10**400), f"p: {str(10**400)[:77]}... is too large; it is searched in 1 to 50, whole numbers"),
        (KIND, "Adam", "p: 'Adam' is not one of the choices: adam, sgd, [64, 32], null, 1 (did you mean 'adam'?)"),
        (KIND, "1", "p: '1' is not one of the choices: adam, sgd, [64, 32], null, 1 (did you mean 1?)"),
        (KIND, True, "p: True is not one of the choices: adam, sgd, [64, 32], null, 1"),
    ],
)
def test_a_value_without_a_place_is_refused_with_what_is_possible(
    config: ParameterConfig, value: Any, message: str
) -> None:
    with pytest.raises(SpaceError) as refused:
        Space({"p": config}).encode({"p": value})
    assert str(refused.value) == message


def test_a_count_of_nothing_lies_below_a_range_of_counts() -> None:
    space = Space({"n": COUNT})
    columns = [float(space.encode({"n": n})[0]) for n in (-3, 0, 1, 2)]
    assert columns[0] == columns[1] < columns[2] < columns[3]


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), Decimal("0.5"), Fraction(1, 2), np.float16(0.5)])
def test_numbers_of_any_library_have_the_place_of_plain_ones(value: Any) -> None:
    space = Space({"p": LOG})
    assert space.encode({"p": value}) == space.encode({"p": 0.5})


@pytest.mark.parametrize(
    ("value", "choice"),
    [((64, 32), [64, 32]), (np.array([64, 32]), [64, 32]), (Decimal(1), 1), (np.int8(1), 1), (None, None)],
)
def test_a_choice_is_known_in_any_form(value: Any, choice: Any) -> None:
    space = Space({"p": KIND})
    assert space.decode(space.encode({"p": value})) == {"p": choice}


def test_what_is_handed_out_is_a_copy() -> None:
    space = Space({"layers": ParameterConfig(choices=[[64], [128]], distribution="categorical"), "betas": [0.9, 0.99]})
    for _ in range(2):
        values = space.decode(space.centre)
        assert values == {"layers": [64], "betas": [0.9, 0.99]}
        values["layers"].append(10)
        values["betas"].append(10)


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
