"""What the models are given, and what they make of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metta.sweep.protein.importance import total_effects
from metta.sweep.protein.space import Space
from metta.sweep.protein.surrogate import Data, ScoreScale, Surrogate
from metta.sweep.protein_config import ParameterConfig

Array = NDArray[np.float64]


def data_of(points: Array, scores: Array, costs: Array, failed: NDArray[np.bool_]) -> Data:
    return Data(points, np.where(failed, np.nan, scores), np.zeros(len(points)), costs, failed)


def test_a_few_failures_near_the_optimum_are_remembered_among_thousands_of_successes() -> None:
    rng = np.random.default_rng(0)
    space = Space({f"x{i}": ParameterConfig(min=0, max=1, distribution="uniform") for i in range(3)})
    points = np.vstack([rng.random((2500, 3)), np.clip(0.6 + 0.1 * rng.standard_normal((300, 3)), 0, 1)])
    failed = np.abs(points - [0.66, 0.6, 0.6]).max(axis=1) < 0.05
    assert 5 < failed.sum() < 20
    data = data_of(points, -((points - 0.6) ** 2).sum(axis=1), np.ones(len(points)), failed)
    crash, optimum = np.array([0.66, 0.6, 0.6]), np.array([0.58, 0.6, 0.6])
    success = np.exp(Surrogate(space, data, {}, {}).log_success(np.array([crash, optimum])))
    assert success[0] < 0.1
    assert success[1] > 0.9


@pytest.mark.parametrize("failures", [0, 3, 90, 100])
def test_a_balanced_choice_keeps_failures_and_the_best(failures: int) -> None:
    scores = np.arange(100.0)
    failed = scores < failures
    chosen = data_of(np.zeros((100, 1)), scores, np.ones(100), failed).balanced(20)
    assert len(chosen.scores) == 20
    assert chosen.failed.sum() == {0: 0, 3: 3, 90: 10, 100: 20}[failures]
    assert failures == 100 or np.nanmax(chosen.scores) == 99


def test_the_slope_of_the_score_scale_is_that_of_finite_differences() -> None:
    scale = ScoreScale(np.array([-1e3, -50.0, 0.0, 1.0, 2.0, 3.0, 5.0]))
    at = np.array([-1e3, -20.0, 1.3, 4.0])
    np.testing.assert_allclose(scale.slope(at), (scale(at + 1e-4) - scale(at - 1e-4)) / 2e-4, rtol=1e-5)


def test_shares_of_the_variance_are_those_known_and_none_is_over_one() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.random((2, 20_000, 3))
    swapped = np.stack([np.where(np.arange(3) == j, others, points) for j in range(3)])
    linear = total_effects(points @ [1.0, 2.0, 0.0], swapped @ [1.0, 2.0, 0.0])
    np.testing.assert_allclose(linear, [0.2, 0.8, 0.0], atol=0.01)
    for seed in range(20):
        few = np.random.default_rng(seed).random((2, 64))
        steep = np.exp(8 * few)
        assert total_effects(steep[0], steep[1:]).max() <= 1
    assert (total_effects(np.ones(9), np.ones((3, 9))) == 0).all()
