"""Which configuration to repeat with another seed, and which one to recommend."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

BEST_DRAWS = 4096
CAUTION = 0.5
"""Deviations below its expectation at which a configuration counts when one is recommended."""


def cautious_best(mean: Array, variance: Array) -> int:
    """Index of the configuration whose expectation, less some deviations, is the highest.

    Args:
        mean, variance: [n], of the true mean score of each.
    """
    return int(np.argmax(mean - CAUTION * np.sqrt(variance)))


def best_probabilities(mean: Array, variance: Array, rng: np.random.Generator) -> Array:
    """The probability [n] that each configuration is the best, for independent normal beliefs."""
    draws = mean + np.sqrt(variance) * rng.standard_normal((BEST_DRAWS, len(mean)))
    return np.bincount(draws.argmax(axis=1), minlength=len(mean)) / BEST_DRAWS


def repeat_gains(mean: Array, variance: Array, noise: float) -> Array:
    """Knowledge gradient [n]: by how much one more run of each raises the expectation of the best.

    Frazier, Powell & Dayanik 2008, "A knowledge-gradient policy for sequential information collection", eq. 4.3-4.6,
    for independent beliefs.

    Args:
        mean, variance: [n], of the true mean score of each configuration.
        noise: variance of one run.
    """
    if len(mean) < 2:
        return np.zeros(len(mean))
    change = variance / np.sqrt(variance + noise)
    first, second = np.argsort(-mean, kind="stable")[:2]
    rival = np.full(len(mean), mean[first])
    rival[first] = mean[second]
    z = -np.abs(mean - rival) / change
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    return np.asarray(change * (z * ndtr(z) + density))
