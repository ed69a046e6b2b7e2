"""The Gaussian process against textbook formulas and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from metta.sweep.protein.gaussian_process import GaussianProcess, Kernel, Prior, _negative_log_likelihood, draw, fit

RNG = np.random.default_rng(0)
POINTS = RNG.random((20, 3))
ERRORS = 0.1 * RNG.random(20)
TARGETS = np.sin(4 * POINTS[:, 0]) + POINTS[:, 1]
GROUPS = np.array([0, 1, 1])
VECTOR = np.log([0.4, 0.9, 1.3, 0.2, 0.01])
PRIOR = Prior.of_dimension(2, 0.5, 0.9, linear=(-2.0, 1.5), noise=(-5.0, 1.5))


def test_the_likelihood_is_that_of_a_multivariate_normal() -> None:
    kernel = Kernel.of_vector(VECTOR, GROUPS)
    covariance = kernel(POINTS, POINTS) + np.diag(kernel.noise + 1e-8 + ERRORS)
    value, _ = _negative_log_likelihood(VECTOR, POINTS, TARGETS, ERRORS, GROUPS, np.eye(2)[GROUPS])
    assert value == pytest.approx(-multivariate_normal(np.zeros(20), covariance).logpdf(TARGETS))


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences() -> None:
    one_hot = np.eye(2)[GROUPS]
    _, gradient = _negative_log_likelihood(VECTOR, POINTS, TARGETS, ERRORS, GROUPS, one_hot)
    for j in range(len(VECTOR)):
        step = 1e-5 * np.eye(len(VECTOR))[j]
        high, _ = _negative_log_likelihood(VECTOR + step, POINTS, TARGETS, ERRORS, GROUPS, one_hot)
        low, _ = _negative_log_likelihood(VECTOR - step, POINTS, TARGETS, ERRORS, GROUPS, one_hot)
        assert gradient[j] == pytest.approx((high - low) / 2e-5, rel=1e-4)


def test_the_gradients_of_the_posterior_are_those_of_finite_differences() -> None:
    model = GaussianProcess(POINTS, TARGETS, ERRORS, Kernel.of_vector(VECTOR, GROUPS))
    at = RNG.random((5, 3))
    _, _, mean_gradient, variance_gradient = model.predict_with_gradients(at)
    for j in range(3):
        step = 1e-5 * np.eye(3)[j]
        (high, high_variance), (low, low_variance) = model.predict(at + step), model.predict(at - step)
        np.testing.assert_allclose(mean_gradient[:, j], (high - low) / 2e-5, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance_gradient[:, j], (high_variance - low_variance) / 2e-5, rtol=1e-3, atol=1e-6)


def test_without_noise_it_passes_through_the_observations() -> None:
    model = GaussianProcess(POINTS, TARGETS, np.zeros(20), Kernel(np.full(3, 0.5), 1.0, 0.1, 1e-6))
    mean, variance = model.predict(POINTS)
    np.testing.assert_allclose(mean, TARGETS, atol=1e-3)
    assert (variance < 1e-4).all()


def test_a_score_with_a_large_error_is_followed_less() -> None:
    kernel = Kernel(np.full(3, 0.5), 1.0, 0.1, 1e-4)
    errors = np.zeros(20)
    errors[3] = 1.0
    model = GaussianProcess(POINTS, TARGETS + np.where(errors, 2.0, 0.0), errors, kernel)
    misfit = np.abs(model.fitted - model.targets)
    assert misfit[3] > 1.0
    assert np.delete(misfit, 3).max() < 0.1
    np.testing.assert_allclose(model.fitted, model.mean(POINTS), atol=1e-6)


def test_a_fit_finds_the_parameter_that_does_nothing() -> None:
    points = np.random.default_rng(1).random((60, 2))
    vector = fit(points, np.sin(5 * points[:, 0]), np.zeros(60), np.array([0, 1]), PRIOR, [PRIOR.mode(2)], max_steps=50)
    assert vector[1] > vector[0] + 1.0


def test_fantasies_are_a_deviation_below_expectation_and_lower_the_variance() -> None:
    model = GaussianProcess(POINTS, TARGETS, ERRORS, Kernel.of_vector(VECTOR, GROUPS))
    at = np.full((1, 3), 0.4)
    mean, variance = model.predict(at)
    dreamt = model.with_fantasies(at)
    learnt = variance / (variance + model.kernel.noise)  # the share of a surprise that is no noise
    assert dreamt.mean(at) == pytest.approx(mean - learnt * np.sqrt(variance), abs=1e-6)
    assert dreamt.predict(at)[1] < variance


def test_without_observations_what_is_drawn_is_the_prior() -> None:
    start, (means, deviations) = PRIOR.mode(2), PRIOR.vectors(2)
    draws = np.array(draw(POINTS[:0], TARGETS[:0], ERRORS[:0], GROUPS, PRIOR, start, 3000, np.random.default_rng(0)))
    np.testing.assert_allclose(draws.mean(axis=0), means, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0), deviations, rtol=0.1)


def test_draws_weigh_parameters_by_their_posterior_density() -> None:
    """Against importance sampling from the prior."""
    rng = np.random.default_rng(0)
    few, targets, errors = POINTS[:5], TARGETS[:5], ERRORS[:5]
    means, deviations = PRIOR.vectors(2)
    samples = means + deviations * rng.standard_normal((6_000, 5))
    logs = np.array([-_negative_log_likelihood(v, few, targets, errors, GROUPS, np.eye(2)[GROUPS])[0] for v in samples])
    weights = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
    draws = np.array(draw(few, targets, errors, GROUPS, PRIOR, PRIOR.mode(2), 1500, rng))
    np.testing.assert_allclose((draws.mean(axis=0) - weights @ samples) / deviations, 0.0, atol=0.2)


def test_leaving_a_group_out_is_predicting_from_the_others() -> None:
    rng = np.random.default_rng(3)
    points, errors = rng.random((12, 2)), rng.uniform(0.01, 0.3, 12)
    targets = np.sin(6.0 * points[:, 0]) + 0.1 * rng.standard_normal(12)
    kernel = Kernel(np.full(2, 0.4), 1.0, 0.1, 0.05)
    groups = np.array([7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 7])
    means = GaussianProcess(points, targets, errors, kernel).leave_group_out(groups)
    for name in (7, 3):
        left, others = groups == name, groups != name
        mean = GaussianProcess(points[others], targets[others], errors[others], kernel).mean(points[left])
        assert means[left] == pytest.approx(mean, abs=1e-6)


def test_values_at_observations_keep_what_is_rough_and_lose_what_is_error() -> None:
    rng = np.random.default_rng(3)
    points, targets = rng.random((12, 2)), rng.standard_normal(12)
    kernel = Kernel(np.full(2, 0.4), 1.0, 0.0, 0.5)
    exact = GaussianProcess(points, targets, np.zeros(12), kernel)
    assert exact.at_observations()[0] == pytest.approx(targets)
    vague = GaussianProcess(points, targets, np.full(12, 1e3), kernel)
    assert np.abs(vague.at_observations()[0]).max() < 0.1
    assert vague.at_observations()[1] == pytest.approx(kernel.signal + kernel.noise, rel=0.05)


def test_means_with_one_group_of_columns_swapped_are_those_of_the_swapped_points() -> None:
    model = GaussianProcess(POINTS, TARGETS, ERRORS, Kernel.of_vector(VECTOR, GROUPS))
    base, other = RNG.random((2, 7, 3))
    slices = [slice(0, 1), slice(1, 3)]
    for columns, means in zip(slices, model.swapped_means(base, other, slices), strict=True):
        swapped = base.copy()
        swapped[:, columns] = other[:, columns]
        assert means == pytest.approx(model.mean(swapped), rel=1e-10)
