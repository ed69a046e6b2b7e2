"""Which configuration is recommended, with which length of its runs, what is believed of the others, and what a repeat
of each is worth."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from metta.sweep.protein.curves import Standardised
from metta.sweep.protein.history import History, point_key
from metta.sweep.protein.surrogate import exp
from metta.sweep.protein.types import Belief, Observation, OtherLength

Array = NDArray[np.float64]

BEST_DRAWS = 4096
"""Draws of all configurations' scores: the standard error of a probability is then below 0.01."""
CAUTION = 0.5
"""Deviations below its expectation at which a configuration counts when one is recommended. Measured on
`benchmarks/curves` (its tuned-on tables) as part of the whole policy."""
LEADING, LENGTHS = 3, 200
"""So many of the best configurations may be recommended with another length, and so many lengths are compared. Chosen
by hand: of many configurations, the model would choose one of which it expects too much."""
SURE = 1.0
"""A length that was not tried counts as so many deviations worse than expected, and is recommended where it promises so
many of the difference more than what was tried: by its own beliefs the model is then right in five of six cases. Set
after two sweeps of the arena, in which far shorter runs promised less than that and disappointed."""
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


def with_other_length(history: History, allowed: Collection[int], max_cost: float) -> OtherLength | None:
    """One of the best configurations with a length that was not tried, where that promises more within a cost.

    Args:
        allowed: numbers of the first trials of the configurations that cost at most `max_cost`.

    Returns:
        None where no length is searched, no cost is known, or what was tried within the cost may be as good.
    """
    known, length = history.evidence.known, history.run_length
    if known is None or length is None or np.isnan(known.data.costs).all():
        return None
    surrogate, space = history.surrogate, history.search.space
    whole, rows = whole_rows(history)
    mean, variance = (column[rows] for column in surrogate.score.at_observations())
    leading = whole[cautious_order(mean, variance)[:LEADING]]
    points = space.snap(length.of_all_lengths(known.data.points[leading], LENGTHS))
    costs = exp(surrogate.log_cost(points))
    expected, spread = surrogate.score.predict(points)
    spread = spread + surrogate.score.kernel.noise
    untried = [point_key(point) not in history.tried for point in points]
    may = untried & space.allows(points) & (costs <= max_cost)
    promised = np.where(may, expected - SURE * np.sqrt(spread), -np.inf)
    chosen, within = int(np.argmax(promised)), np.isin(known.numbers[whole], list(allowed))
    best = np.flatnonzero(within)[cautious_order(mean[within], variance[within])[:1]]
    surely = expected[chosen] - SURE * np.sqrt(spread[chosen] + variance[best]) > mean[best]
    unknown = bool(allowed) and not within.any()  # none of them is among the best of a large sweep, as above
    if promised[chosen] == -np.inf or unknown or not surely.all():
        return None
    score, deviation, low, high = (float(each[0]) for each in _told(history, expected[[chosen]], spread[[chosen]]))
    return OtherLength(
        number=int(known.numbers[leading[chosen // LENGTHS]]),
        params=space.decode(points[chosen]),
        changed=length.parameter.path,
        value=length.parameter.decode(points[chosen, [length.column]]),
        score=score,
        score_std=deviation,
        low=low,
        high=high,
        cost=float(costs[chosen]),
    )


def beliefs(history: History) -> list[Belief]:
    """What is believed of each configuration with a whole run, in the order of their numbers.

    Raises:
        LookupError: there is no whole run yet.
    """
    known, (whole, rows) = history.evidence.known, whole_rows(history)
    assert known is not None
    mean, variance = (column[rows] for column in history.surrogate.score.at_observations())
    probabilities = best_probabilities(mean, variance, np.random.default_rng([history.search.seed, _DRAW_BEST]))
    columns = (known.numbers[whole], known.wholes[whole], probabilities, *_told(history, mean, variance))
    return [Belief(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _told(history: History, mean: Array, variance: Array) -> tuple[Array, Array, Array, Array]:
    """Expected scores and their deviations, and the ends of the intervals of another run, in the units of the metric.

    Args:
        mean, variance: [n], of the true mean scores, as the model gives them.
    """
    known, scale, sign = history.evidence.known, history.evidence.scale, history.search.sign
    assert known is not None
    assert scale is not None
    targets = Standardised(scale, known.data.scores)
    again = (known.noise.variance + known.last_noise) * targets.slope(mean) ** 2
    reach = known.noise.half_width * np.sqrt(variance + again)
    middle, bottom, top = targets.inverse(mean), targets.inverse(mean - reach), targets.inverse(mean + reach)
    low, high = (bottom, top) if sign > 0 else (-top, -bottom)
    deviation = targets.inverse(mean + np.sqrt(variance)) / 2.0 - targets.inverse(mean - np.sqrt(variance)) / 2.0
    return sign * middle, deviation, low, high


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
    return np.argsort(-_cautious(mean, variance), kind="stable")


def _cautious(mean: Array, variance: Array) -> Array:
    return np.asarray(mean - CAUTION * np.sqrt(variance))


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
