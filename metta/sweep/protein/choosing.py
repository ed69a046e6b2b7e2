"""Which configuration is recommended, what is believed of the others, and what a repeat of each is worth."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from metta.sweep.protein.curves import Standardised
from metta.sweep.protein.history import History
from metta.sweep.protein.types import Belief, Observation

Array = NDArray[np.float64]

BEST_DRAWS = 4096
"""Draws of all configurations' scores: the standard error of a probability is then below 0.01."""
CAUTION = 0.5
"""Deviations below its expectation at which a configuration counts when one is recommended. Measured on
`benchmarks/curves` (its tuned-on tables) as part of the whole policy."""
_DRAW_BEST = 14
_MOST_NUMBERS = 1_000_000
"""The most numbers that are drawn at once, to bound the memory with very many configurations."""


def recommended(history: History, allowed: Collection[int]) -> Observation:
    """The first trial of the configuration that is recommended, where the optimiser learns from curves.

    Args:
        allowed: numbers of the first trials of the configurations that come into question.
    """
    known = history.evidence.known
    assert known is not None
    mean, variance = history.surrogate.score.at_observations()
    whole, rows = whole_rows(history)
    may = np.isin(known.numbers[whole], list(allowed))
    if may.any():
        chosen = int(whole[may][cautious_order(mean[rows[may]], variance[rows[may]])[0]])
    else:  # none is among the best of a large sweep, which the model was made of
        scores = np.where(np.isin(known.numbers, list(allowed)) & (known.wholes > 0), known.data.scores, -np.inf)
        chosen = int(np.argmax(scores))
    found = history[int(known.numbers[chosen])].observation
    assert found is not None
    return found


def beliefs(history: History) -> list[Belief]:
    """What is believed of each configuration with a whole run, in the order of their numbers.

    Raises:
        LookupError: there is no whole run yet.
    """
    surrogate, known, scale = history.surrogate, history.evidence.known, history.evidence.scale
    assert known is not None
    assert scale is not None
    sign, (whole, rows) = history.search.sign, whole_rows(history)
    mean, variance = (column[rows] for column in surrogate.score.at_observations())
    probabilities = best_probabilities(mean, variance, np.random.default_rng([history.search.seed, _DRAW_BEST]))
    targets = Standardised(scale, known.data.scores)
    again = (known.noise.variance + known.last_noise) * targets.slope(mean) ** 2
    reach = known.noise.half_width * np.sqrt(variance + again)
    middle, bottom, top = targets.inverse(mean), targets.inverse(mean - reach), targets.inverse(mean + reach)
    low, high = (bottom, top) if sign > 0 else (-top, -bottom)
    deviation = targets.inverse(mean + np.sqrt(variance)) / 2.0 - targets.inverse(mean - np.sqrt(variance)) / 2.0
    columns = (known.numbers[whole], known.wholes[whole], probabilities, sign * middle, deviation, low, high)
    return [Belief(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def whole_rows(history: History) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the configurations with a whole run in `Evidence.known` and in the model of the score.

    Of a large sweep the model, and so these, have only the best configurations and some of the others.
    """
    known, modelled = history.evidence.known, history.surrogate.rows
    assert known is not None
    rows = np.flatnonzero(known.wholes[modelled])
    return modelled[rows], rows


def cautious_order(mean: Array, variance: Array) -> NDArray[np.intp]:
    """Indices [n] of configurations, from the one whose expectation, less some deviations, is the highest.

    Args:
        mean, variance: [n], of the true mean score of each.
    """
    return np.argsort(-(mean - CAUTION * np.sqrt(variance)), kind="stable")


def best_probabilities(mean: Array, variance: Array, rng: np.random.Generator) -> Array:
    """The probability [n] that each configuration is the best, given independent normal beliefs."""
    wins = np.zeros(len(mean))
    at_once = max(1, _MOST_NUMBERS // len(mean))
    for first in range(0, BEST_DRAWS, at_once):
        draws = rng.standard_normal((min(at_once, BEST_DRAWS - first), len(mean)))
        wins += np.bincount((mean + np.sqrt(variance) * draws).argmax(axis=1), minlength=len(mean))
    return wins / BEST_DRAWS


def repeat_gains(mean: Array, variance: Array, noise: float) -> Array:
    """Knowledge gradient [n]: how much one more run of each raises the expectation of the best.

    Frazier, Powell & Dayanik 2008, "A knowledge-gradient policy for sequential information collection", eq. 4.3-4.6,
    with independent beliefs.

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
