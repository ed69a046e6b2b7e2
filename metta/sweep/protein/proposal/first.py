"""The first trials, before there is a model of the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.design import cheap_point
from metta.sweep.protein.history import History
from metta.sweep.protein.proposal.rule import Proposal
from metta.sweep.protein.start import OWN_VALUES, start

Array = NDArray[np.float64]


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
