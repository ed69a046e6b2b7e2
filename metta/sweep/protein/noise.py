"""How much runs of one configuration with different seeds differ, from repeats and from how smooth scores are.

In reinforcement learning seeds make about a third of all differences between runs; in other tasks they make hardly any.
So the prior has both kinds of tasks. Repeats tell them apart, by differences that are compared with those of all runs
on a scale that keeps distances. Without repeats, so does a model of the score: if it explains the scores better as
exact ones than as noisy ones, there is little noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, ndtri, stdtr

from metta.sweep.protein.gaussian_process import Groups, fit, log_posterior
from metta.sweep.protein.surrogate import normal_score_prior, spread

Array = NDArray[np.float64]

LEVELS, PRIOR = (0.4, 0.02), (0.7, 0.3)
"""The variance between runs with different seeds in noisy and in quiet tasks, as a share of the variance of all whole
runs, and how likely either kind of task is. The mean, 0.3, was measured on `benchmarks/curves`; see
docs/benchmarks.md, "How much seeds differ"."""
PRIOR_REPEATS = (2.0, 8.0)
"""Either level counts as if so many repeats had shown it. Measured with the levels."""
MAX_EVIDENCE = 4.0
"""By so many units of log probability at most the model prefers a level, because it may be wrong and repeats are not.
Chosen by hand."""
MAX_POINTS, FIT_STEPS = 24, 5
"""Configurations that the model explains, and steps of its fit to either level. Set by the time of a suggestion."""
CLEAR = 0.9
"""The probability of either kind of noise from which on it counts as known. Chosen by hand."""
_LEAST_VARIANCE = 1e-3
"""Of whole runs, where all are equal."""


@dataclass(frozen=True)
class SeedNoise:
    """What is known of the variance of one whole run round the mean of its configuration.

    A mixture of scaled inverse chi-squared distributions (Gelman et al., "Bayesian data analysis", section 3.2).

    Attributes:
        weights, scales, freedom: of its parts. Weights add up to 1, scales are variances, freedom is in degrees.
    """

    weights: Array
    scales: Array
    freedom: Array

    @property
    def variance(self) -> float:
        return float(self.weights @ self.scales)

    @property
    def clear(self) -> bool:
        """Whether it is known which kind of task this is."""
        return float(self.weights.max()) >= CLEAR

    @cached_property
    def half_width(self) -> float:
        """Deviations from the middle to the ends of an interval with 95 % of all runs: more than of a normal
        distribution, because the variance is not known exactly."""
        if self.variance == 0.0:
            return float(ndtri(0.975))
        ratios = np.sqrt(self.variance / self.scales)

        def beyond(deviations: float) -> float:
            return float(self.weights @ stdtr(self.freedom, ratios * deviations)) - 0.975

        return float(brentq(beyond, 0.0, 1e3))


NO_SEED_NOISE = SeedNoise(np.ones(1), np.zeros(1), np.ones(1))


def seed_noise(points: Array, scores: Sequence[Sequence[float]], groups: Groups, total_variance: float) -> SeedNoise:
    """The noise of a sweep's whole runs.

    Args:
        points: [n, columns], configurations with a whole run.
        scores: [n], of the whole runs of each, on a scale that keeps distances. Ranks would not do: where a sweep has
            come near to the best, they make large differences of small ones, which look like noise.
        groups: [columns], the parameter of each column.
        total_variance: of all whole runs on the scale of the result, which may be another: the noise's share is equal.
    """
    variance = float(np.var([score for each in scores for score in each]))
    total = max(total_variance, _LEAST_VARIANCE)
    levels, before = np.array(LEVELS), np.array(PRIOR_REPEATS)
    freedom = before + sum(len(each) - 1 for each in scores)
    repeated = sum(float(np.var(each)) * len(each) for each in scores)
    squares = total * (before * levels + (repeated / variance if variance else 0.0))
    # The likelihood of the repeats for either level, with the variance integrated out
    logs = gammaln(0.5 * freedom) - gammaln(0.5 * before)
    logs += 0.5 * (before * np.log(before * total * levels) - freedom * np.log(squares))
    keep = spread(np.arange(len(points)), MAX_POINTS)
    rows, runs = tuple(map(tuple, points[keep].tolist())), tuple(len(scores[row]) for row in keep)
    means = tuple(float(np.mean(scores[row])) for row in keep)
    explained = np.array(_explained(rows, means, runs, tuple(groups.tolist())))
    logs += np.log(PRIOR) + np.clip(explained - explained.max(), -MAX_EVIDENCE, 0.0)
    weights = np.exp(logs - logs.max())
    return SeedNoise(weights / weights.sum(), squares / freedom, freedom)


@lru_cache(maxsize=8)
def _explained(
    points: tuple[tuple[float, ...], ...], means: tuple[float, ...], runs: tuple[int, ...], groups: tuple[int, ...]
) -> tuple[float, ...]:
    """How well a model of the score explains the differences between configurations, with either level of noise.

    It is remembered, because most trials are stopped early and change none of this.

    Args:
        points, groups: as for `seed_noise`.
        means: [n], of the scores of each.
        runs: [n], of each configuration.

    Returns:
        The logarithm of the highest posterior density of the kernel's parameters, for each of `LEVELS`.
    """
    scores, dimension = np.array(means), groups[-1] + 1
    targets = (scores - scores.mean()) / (float(scores.std()) or 1.0)
    prior = normal_score_prior(dimension)
    start, found = prior.mode(dimension), []
    for level in LEVELS:
        observed = np.array(points), targets, level / np.array(runs), np.array(groups, dtype=np.intp), prior
        start = fit(*observed, [start], FIT_STEPS)
        found.append(log_posterior(*observed, start))
    return tuple(found)
