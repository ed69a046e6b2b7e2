"""Logarithm of expected improvement, with gradients, and what is added to it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr

Array = NDArray[np.float64]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_SQRT_HALF_PI = 0.5 * math.log(0.5 * math.pi)


def log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z)), accurate far into the lower tail.

    Ament et al. 2023, "Unexpected improvements to expected improvement" (arXiv 2310.20708), eq. 9.
    """
    result = np.empty_like(z)
    upper = z > -1.0
    near = z[upper]
    result[upper] = np.log(np.exp(-0.5 * near**2 - _LOG_SQRT_2PI) + near * ndtr(near))
    far = z[~upper]
    ratio = np.log(erfcx(-far / math.sqrt(2.0)) * np.abs(far)) + _LOG_SQRT_HALF_PI
    tail = np.where(far < -1e5, -2.0 * np.log(np.abs(far)), _log1mexp(np.minimum(ratio, -1e-300)))
    result[~upper] = -0.5 * far**2 - _LOG_SQRT_2PI + tail
    return result


def log_expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """log EI over `best` for maximisation, where means and variances [n] are those of a Gaussian process."""
    deviation = np.sqrt(variance)
    return np.asarray(np.log(deviation) + log_h((mean - best) / deviation))


def log_expected_improvement_gradient(
    mean: Array, variance: Array, mean_gradient: Array, variance_gradient: Array, best: float
) -> tuple[Array, Array]:
    """log EI [n] and its gradient [n, columns]."""
    deviation = np.sqrt(variance)
    z = (mean - best) / deviation
    value = log_h(z)
    deviation_gradient = variance_gradient / (2.0 * deviation[:, None])
    slope = np.exp(log_ndtr(z) - value)  # h'(z) / h(z), for h' = Phi
    z_gradient = (mean_gradient - z[:, None] * deviation_gradient) / deviation[:, None]
    gradient = deviation_gradient / deviation[:, None] + slope[:, None] * z_gradient
    return np.log(deviation) + value, gradient


def _log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0."""
    return np.where(x > -math.log(2.0), np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
