"""The first trials, before there is a model of the score."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.design import cheap_point
from metta.sweep.protein.evidence import Known
from metta.sweep.protein.history import History
from metta.sweep.protein.pareto import pareto_front
from metta.sweep.protein.proposal.rule import Proposal
from metta.sweep.protein.run_length import RunLength
from metta.sweep.protein.start import LONGER_OWN_VALUES, OWN_VALUES, start
from metta.sweep.protein.surrogate import Data, log_costs

Array = NDArray[np.float64]

LONGER = 1.5
"""A run is clearly longer from so many times the length on. Chosen by hand."""


class Baseline:
    """Applies to trial 0, unless `seed_with_search_center` is off: the Tool's own values, or the search centre."""

    def __call__(self, history: History) -> Proposal | None:
        search = history.search
        if history.trials or not search.settings.seed_with_search_center:
            return None
        begin = start(search.space, search.own_values)
        info = {"source": begin.source} | ({"fallback": begin.remark} if begin.remark else {})
        return Proposal(begin.point, info, begin.values if begin.source == OWN_VALUES else None)


class FirstDesign:
    """Applies until as many trials were made as `Budget.first_trials` says: points that fill the space evenly."""

    def __call__(self, history: History) -> Proposal | None:
        settings = history.search.settings
        first = history.budget.first_trials(settings.num_random_samples) + settings.seed_with_search_center
        return random_proposal(history) if len(history.trials) < first else None


class LongerOwn:
    """Applies once where the length of a run is searched: the Tool's own values with as long a run as a trial may cost.

    That is what anybody would try, and what longer runs of other hyperparameters have to beat. It does not apply where
    something that costs no more scored better than the own values.
    """

    def __call__(self, history: History) -> Proposal | None:
        if history.own is None or not history.search.learns_curves:
            return None
        length, known, space = history.run_length, history.evidence.known, history.search.space
        if length is None or known is None or (row := _own_on_front(history, known)) is None:
            return None
        own, longest = known.data.points[row], self._longest(history, length, known.data, row)
        tried = length.longest_of(own, np.array([trial.point for trial in history.trials]))
        if longest < LONGER * length.of(own) or tried >= LONGER * length.of(own):
            return None
        point = space.snap(length.with_length(own, longest)[None])[0]
        if not space.allows(point[None])[0]:
            return None
        return Proposal(point, {"source": LONGER_OWN_VALUES, "pareto_point": history.own})

    @staticmethod
    def _longest(history: History, length: RunLength, data: Data, row: int) -> float:
        """The longest run with the hyperparameters of a row that a trial may cost."""
        now, log_cost = length.of(data.points[row]), float(log_costs(data.costs[[row]])[0])
        limit = history.budget.log_cost_limit(history.data.costs, history.search.settings)
        growth = math.log(length.parameter.high / now)
        return now * math.exp(growth if math.isnan(log_cost) else min(growth, limit - log_cost))


def _own_on_front(history: History, known: Known) -> int | None:
    """The row of the Tool's own values, if no whole run that cost no more has a better score."""
    whole = np.flatnonzero(known.wholes)
    front = whole[pareto_front(known.data.scores[whole], np.nan_to_num(known.data.costs[whole], nan=np.inf))]
    rows = front[known.numbers[front] == history.own]
    return int(rows[0]) if len(rows) else None


class UntilScored:
    """Applies while no trial has a score, because nothing can be learnt without one."""

    def __call__(self, history: History) -> Proposal | None:
        return None if history.has_score else random_proposal(history, "no trial has a score yet")


def random_proposal(history: History, fallback: str | None = None) -> Proposal:
    """The next point of the first design, for a reason where one is given."""
    return Proposal(random_point(history), {"source": "random"} | ({"fallback": fallback} if fallback else {}))


def random_point(history: History) -> Array:
    """The next of the first trials: at the cheap end where the budget ends the sweep, else from everywhere."""
    space, index, data = history.search.space, len(history.trials), history.data
    shift = np.random.default_rng(history.search.seed).random(space.dimension)
    if not history.budget.limited or history.budget.trials_are_scarce:
        return np.asarray(space.quasi_random([index], shift)[0])
    costed = ~np.isnan(data.costs)
    return cheap_point(space, index, data.points[costed], data.costs[costed], shift)
