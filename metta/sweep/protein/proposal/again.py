"""Deliberate repeats: hyperparameters that were tried before, because one run says little."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metta.common.counts import count_text
from metta.sweep.protein.choosing import repeat_gains, whole_rows
from metta.sweep.protein.evidence import Known
from metta.sweep.protein.history import History
from metta.sweep.protein.proposal.first import random_point
from metta.sweep.protein.proposal.rule import Proposal
from metta.sweep.protein.proposal.untried import ALL_TRIED, is_exhausted

REPEAT_SHARE, REPEATS_AFTER, ENOUGH_GAIN = 0.35, 6.0, 0.03
"""Repeats take at most this share of the cost, there are none before so many whole runs were spent, and one that is
expected to raise the expectation of the best by so many standard deviations of the scores is always worth its cost.
Tuned on `benchmarks/curves` (its tuned-on tables) as part of the whole policy."""
LATE = 0.75
"""The share of a budget from which on one repeat is made where nothing else has shown how much runs differ. Chosen by
hand."""


class Repeat:
    """Applies with `repeats`, where one more run of a configuration raises the expected best enough.

    It is the configuration with the largest knowledge gradient. None is repeated twice at the same time, none that
    costs more than is left of the budget, and none where repeats have shown that runs are free of noise. Where every
    point has been tried, nothing is left but to repeat: then the limits do not hold, and one is repeated twice at the
    same time if all others are being repeated too.

    Late in a budget the first repeat needs no such gain if nothing else has shown how much runs differ: it shows what
    the recommended configuration may give when it is trained again.
    """

    def __call__(self, history: History) -> Proposal | None:
        if not history.search.repeats:
            return None
        exhausted = history.search.config.method == "bayes" and is_exhausted(history)
        if not self._may_repeat(history, exhausted):
            return None
        known = history.evidence.known
        assert known is not None
        affordable = ~(known.data.costs > np.exp(history.budget.log_left))  # also where a cost is not known
        if not exhausted and self._noise_is_unclear(history, known):
            typical = _typical(known, affordable)
            if typical is not None:
                return _repeat(history, known, typical, "how much runs with different seeds differ is not known")
        try:
            score = history.surrogate.score
        except np.linalg.LinAlgError:
            return None
        mean, variance = score.at_observations()
        whole, rows = whole_rows(history)
        noise = float(np.mean(score.errors[rows] * known.wholes[whole]))
        gains = repeat_gains(mean[rows], variance[rows], noise)
        running = np.isin(known.numbers[whole], list(_running_repeats(history)))
        if not exhausted:
            gains[~affordable[whole]] = -np.inf
        if not (exhausted and running.all()):
            gains[running] = -np.inf
        chosen = int(np.lexsort((mean[rows], gains))[-1])
        enough = min(ENOUGH_GAIN, gain_of_new(len(known.numbers), history.evidence.whole_runs))
        if gains[chosen] < enough and not exhausted:
            return None
        gain = f"one more raises the expected best by {gains[chosen]:.3f} standard deviations of the scores"
        return _repeat(history, known, int(whole[chosen]), gain, f"{ALL_TRIED}; " if exhausted else "")

    @staticmethod
    def _noise_is_unclear(history: History, known: Known) -> bool:
        if history.budget.progress < LATE or history.evidence.repeat_runs or _running_repeats(history):
            return False
        return not known.noise.clear

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


def _typical(known: Known, affordable: NDArray[np.bool_]) -> int | None:
    """Row of the best affordable configuration that costs no more than the median of those with a whole run, if any."""
    whole = np.flatnonzero(known.wholes)
    costs = np.nan_to_num(known.data.costs[whole], nan=np.inf)
    cheap = whole[(costs <= np.median(costs)) & affordable[whole]]
    return int(cheap[np.argmax(known.data.scores[cheap])]) if len(cheap) else None


def _repeat(history: History, known: Known, row: int, why: str, why_now: str = "") -> Proposal:
    first, count = history[int(known.numbers[row])], int(known.wholes[row])
    reason = f"{why_now}{count_text(count, 'whole run')} so far; {why}"
    info = {"source": "repeat", "repeat_of": first.number, "reason": reason}
    return Proposal(first.point, info, first.params, first.number, deliberate=True)


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
