"""How much runs with different seeds differ, as told by repeats and by how smooth scores are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from metta.sweep.protein.noise import LEVELS, NO_SEED_NOISE, PRIOR, SeedNoise, seed_noise

Array = NDArray[np.float64]
GROUPS = np.arange(2)


def scores_of(deviation: float, runs: int = 1, configurations: int = 24) -> tuple[Array, Array]:
    """Points, and normal scores of a smooth function whose values have a variance of about 1.5."""
    rng = np.random.default_rng(0)
    points = rng.random((configurations, 2))
    true = 3.0 * np.sin(3.0 * points[:, 0]) - 2.0 * points[:, 1]
    scores = true[:, None] + deviation * rng.standard_normal((configurations, runs))
    return points, norm.ppf((rankdata(scores).reshape(scores.shape) - 0.5) / scores.size)


def noise_of(points: Array, scores: Array) -> SeedNoise:
    return seed_noise(points, scores.tolist(), GROUPS, float(scores.var()))


def test_smooth_scores_show_without_a_repeat_that_there_is_little_noise() -> None:
    quiet, noisy = noise_of(*scores_of(0.0)), noise_of(*scores_of(2.0))
    assert quiet.weights[1] > 0.9
    assert quiet.variance < 0.1
    assert noisy.weights[1] < PRIOR[1] + 0.1
    assert noisy.variance > 0.2


def test_few_scores_show_nothing() -> None:
    found = noise_of(*scores_of(0.0, configurations=2))
    assert found.weights == pytest.approx(PRIOR, abs=0.15)
    assert found.scales == pytest.approx(np.array(LEVELS) * 0.455, abs=0.01)


@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.5])
def test_many_repeats_show_the_noise_whatever_was_expected(deviation: float) -> None:
    points, scores = scores_of(deviation, runs=6)
    assert noise_of(points, scores).variance == pytest.approx(scores.var(axis=1, ddof=1).mean(), rel=0.1)


def test_repeats_outweigh_the_model() -> None:
    """Scores are smooth where configurations ran once, but repeats of one differ by as much as all others."""
    rng = np.random.default_rng(0)
    points = rng.random((24, 2))
    scores = [[2.0 * float(x) - 1.0] for x in points[:, 0]]
    assert seed_noise(points, scores, GROUPS, 1.0).weights[1] > 0.8
    scores[3] = [-1.0, 1.0, 0.0, 0.9]
    assert seed_noise(points, scores, GROUPS, 1.0).weights[1] < 0.1


def test_an_interval_holds_as_many_runs_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = SeedNoise(np.array([0.3, 0.7]), np.array([0.4, 0.02]), np.array([2.0, 8.0]))
    part = rng.choice(2, size=200_000, p=found.weights)
    variances = found.scales[part] * found.freedom[part] / rng.chisquare(found.freedom[part])
    inside = np.abs(np.sqrt(variances) * rng.standard_normal(len(part))) < found.half_width * np.sqrt(found.variance)
    assert inside.mean() == pytest.approx(0.95, abs=0.002)


def test_without_noise_intervals_are_those_of_a_normal_distribution() -> None:
    assert NO_SEED_NOISE.variance == 0.0
    assert NO_SEED_NOISE.half_width == pytest.approx(1.96, abs=0.001)


def test_equal_scores_are_no_problem() -> None:
    found = seed_noise(np.random.default_rng(0).random((5, 2)), [[0.0]] * 5, GROUPS, 0.0)
    assert 0.0 < found.variance < 0.01
    assert np.isfinite(found.half_width)


def test_noise_is_the_same_share_of_the_variance_on_another_scale() -> None:
    points, scores = scores_of(0.5, runs=3)
    here, there = noise_of(points, scores), seed_noise(points, scores.tolist(), GROUPS, 100.0)
    assert there.variance / 100.0 == pytest.approx(here.variance / scores.var())
    assert there.weights == pytest.approx(here.weights)
