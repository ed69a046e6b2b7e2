"""Expected improvement against quadrature and finite differences; Pareto fronts against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from metta.sweep.protein.acquisition import ExpectedImprovement, log_expected_improvement, log_h
from metta.sweep.protein.pareto import hypervolume, pareto_front
from metta.sweep.protein.space import Space
from metta.sweep.protein.surrogate import Data, Surrogate
from metta.sweep.protein_config import ParameterConfig

PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 5)), min_size=1, max_size=20)


def test_expected_improvement_is_its_integral() -> None:
    mean, variance, best = 0.3, 0.5, 0.7
    expected, _ = quad(lambda y: (y - best) * norm.pdf(y, mean, math.sqrt(variance)), best, 20)
    found = log_expected_improvement(np.array([mean]), np.array([variance]), best)[0]
    assert found == pytest.approx(math.log(expected))


def test_log_h_is_smooth_and_rises_into_the_far_tail() -> None:
    z = np.concatenate([-np.logspace(8, -2, 400), np.linspace(0, 5, 50)])
    values = log_h(z)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()
    assert log_h(np.array([-1.0, -1.0 + 1e-9])) == pytest.approx(math.log(norm.pdf(1) - norm.sf(1)))


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    space = Space({f"x{i}": ParameterConfig(min=0, max=1, distribution="uniform") for i in range(3)})
    points = rng.random((15, 3))
    data = Data(
        points, -((points - 0.3) ** 2).sum(axis=1), np.zeros(15), np.exp(points[:, 0]), np.zeros(15, dtype=bool)
    )
    surrogate = Surrogate(space, data, {}, {}, rng)
    acquisition = ExpectedImprovement(
        surrogate, surrogate.draws, [max(model.fitted) for model in surrogate.draws], 0.7, 0.9, log_budget=1.0
    )
    at = rng.random((6, 3))
    value, gradient = acquisition.with_gradient(at)
    np.testing.assert_allclose(value, acquisition(at))
    for j in range(3):
        step = 1e-6 * np.eye(3)[j]
        slope = (acquisition(at + step) - acquisition(at - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-3, atol=1e-4)


@given(PAIRS)
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    scores, costs = np.array(pairs, dtype=float).T
    front = set(zip(scores[pareto_front(scores, costs)], costs[pareto_front(scores, costs)], strict=True))
    expected = {
        (s, c)
        for s, c in zip(scores, costs, strict=True)
        if not any(t >= s and d <= c and (t, d) != (s, c) for t, d in zip(scores, costs, strict=True))
    }
    assert front == expected


def test_hypervolume_counts_overlaps_once() -> None:
    assert hypervolume(np.array([1.0, 2.0, 0.5]), np.array([1.0, 2.0, 1.5]), 0.0, 3.0) == pytest.approx(3.0)
