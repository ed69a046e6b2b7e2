"""The methods that learn nothing: grid search and random search."""

from __future__ import annotations

import numpy as np

from metta.sweep.protein.history import History
from metta.sweep.protein.proposal.rule import Proposal


class GridPoint:
    """The first point of the grid that no trial has, finished or not.

    Raises:
        GridDone: every point has a trial.
    """

    def __call__(self, history: History) -> Proposal | None:
        search = history.search
        if search.config.method != "grid":
            return None
        known = np.array([trial.point for trial in history.trials]).reshape(-1, search.space.columns)
        return Proposal(search.grid.first_new(known), {"source": "grid"})


class RandomDraw:
    """An independent draw from the distributions of the parameters.

    It depends on the seed and the trial's number only, so trials in parallel, and sweeps that are resumed or extended,
    need to know of no other trial.
    """

    def __call__(self, history: History) -> Proposal | None:
        search = history.search
        if search.config.method != "random":
            return None
        rng = np.random.default_rng([search.seed, history.next_number])
        return Proposal(np.asarray(search.space.random(1, rng)[0]), {"source": "random"})
