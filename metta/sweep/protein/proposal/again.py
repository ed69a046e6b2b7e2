"""Deliberate repeats: hyperparameters that were tried before, because one run says little."""

from __future__ import annotations

import math

import numpy as np

from metta.sweep.protein.choosing import repeat_gains, score_rows
from metta.sweep.protein.history import History
from metta.sweep.protein.proposal.first import random_point
from metta.sweep.protein.proposal.rule import Proposal
from metta.sweep.protein.proposal.untried import ALL_TRIED, is_exhausted

REPEAT_SHARE, REPEATS_AFTER, ENOUGH_GAIN = 0.35, 6.0, 0.03
"""Repeats take at most this share of the cost, there are none before so many whole runs were spent, and one that is
expected to raise the expectation of the best by so many standard deviations of the scores is always worth its cost.
Tuned on `benchmarks/curves` (its tuned-on tables) as part of the whole policy."""


class Repeat:
    """Applies with `repeats`, where one more run of a configuration raises the expected best enough.

    It is the configuration with the largest knowledge gradient. None is repeated twice at the same time, and none where
    repeats have shown that runs are free of noise. Where every point has been tried, nothing is left but to repeat:
    then the limits do not hold, and one is repeated twice at the same time if all others are being repeated too.
    """

    def __call__(self, history: History) -> Proposal | None:
        if not history.search.repeats:
            return None
        exhausted = history.search.config.method == "bayes" and is_exhausted(history)
        if not self._may_repeat(history, exhausted):
            return None
        known = history.evidence.known
        assert known is not None
        try:
            score = history.surrogate.score
        except np.linalg.LinAlgError:
            return None
        mean, variance = score.at_observations()
        whole = np.flatnonzero(known.wholes)
        rows, numbers, runs = score_rows(known)[whole], known.numbers[whole], known.wholes[whole]
        noise = float(np.mean(score.errors[rows] * runs))
        gains = repeat_gains(mean[rows], variance[rows], noise)
        running = np.isin(numbers, list(_running_repeats(history)))
        if not (exhausted and running.all()):
            gains[running] = -np.inf
        chosen = int(np.lexsort((mean[rows], gains))[-1])
        enough = min(ENOUGH_GAIN, gain_of_new(len(known.numbers), history.evidence.whole_runs))
        if gains[chosen] < enough and not exhausted:
            return None
        first, count = history[int(numbers[chosen])], int(runs[chosen])
        reason = (
            f"{f'{ALL_TRIED}; ' if exhausted else ''}{count} whole run{'s' * (count > 1)} so far; one more raises the"
            f" expected best by {gains[chosen]:.3f} standard deviations of the scores"
        )
        info = {"source": "repeat", "repeat_of": first.number, "reason": reason}
        return Proposal(first.point, info, first.params, first.number, deliberate=True)

    @staticmethod
    def _may_repeat(history: History, exhausted: bool) -> bool:
        evidence = history.evidence
        if evidence.known is None or evidence.noiseless:
            return False
        if exhausted:
            return True
        if evidence.whole_runs < REPEATS_AFTER:
            return False
        return evidence.repeat_runs + len(_running_repeats(history)) < REPEAT_SHARE * evidence.whole_runs


def gain_of_new(configurations: int, whole_runs: float) -> float:
    """What new configurations for the cost of a whole run raise the expected best by, in standard deviations of scores.

    The largest of n normal scores is expected near sqrt(2 ln n) (Boucheron, Lugosi & Massart 2013, "Concentration
    inequalities", theorem 2.5), and one more raises that by 1 / (n sqrt(2 ln n)). So far a whole run paid for
    n / `whole_runs` of them.
    """
    return 1.0 / (whole_runs * math.sqrt(2.0 * math.log(max(configurations, 2))))


class Resample:
    """Applies every `resample_frequency` trials: the hyperparameters on the Pareto front that were tried least often.

    Of those the best, within the bounds as they now are.
    """

    def __call__(self, history: History) -> Proposal | None:
        frequency = history.search.settings.resample_frequency
        if not frequency or history.next_number % frequency:
            return None
        space, data = history.search.space, history.data
        points = space.snap(data.points[history.front[::-1]])
        points = points[space.allows(points)]
        if not len(points):
            return Proposal(random_point(history), {"source": "resample"})
        tried = [int((np.abs(data.points - point).max(axis=1) < 1e-9).sum()) for point in points]
        return Proposal(np.asarray(points[int(np.argmin(tried))]), {"source": "resample"}, deliberate=True)


def _running_repeats(history: History) -> set[int]:
    """Numbers of the trials that are being repeated now."""
    return {trial.repeat_of for trial in history.outstanding if trial.repeat_of is not None}
