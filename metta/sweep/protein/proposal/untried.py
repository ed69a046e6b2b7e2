"""No point is proposed twice while another one is left, deliberate repeats apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.history import History, point_key
from metta.sweep.protein.proposal.rule import Proposal

Array = NDArray[np.float64]

MOST_POINTS = 2**16
"""Spaces with more points than this are sampled, not enumerated."""
SAMPLES = 1024
"""Points that are sampled from a larger space, and that are compared in any."""
ALL_TRIED = "every point of the space has been tried"


def untried(history: History) -> Array:
    """Points [n, columns] that no trial has, finished or running, at most `SAMPLES`, spread over all that are left.

    None is missing where the space is enumerated; of a larger one they are the first of a quasi-random sequence.
    """
    space = history.search.space
    if (size := space.size) is not None and size <= MOST_POINTS:
        points = space.grid()
        points = points[space.allows(points)]
    else:
        points = space.quasi_random(
            np.arange(SAMPLES), np.random.default_rng(history.search.seed).random(space.dimension)
        )
    left = points[[point_key(point) not in history.tried for point in points]]
    return left[:: -(-len(left) // SAMPLES)] if len(left) else left


def is_exhausted(history: History) -> bool:
    """Whether trials, finished or running, have every point of a space that is small enough to be enumerated."""
    space = history.search.space
    size = space.size
    if size is None or size > MOST_POINTS or (not space.constrained and len(history.tried) < size):
        return False
    return not len(untried(history))


def fresh(proposal: Proposal, history: History) -> Proposal:
    """The proposal, with a random untried point where it is an accidental repeat; it says where none is left."""
    if proposal.deliberate or point_key(proposal.point) not in history.tried:
        return proposal
    left = untried(history)
    if not len(left):
        reasons = [proposal.info["fallback"]] if "fallback" in proposal.info else []
        return replace(proposal, info=proposal.info | {"fallback": "; ".join([*reasons, ALL_TRIED])})
    rng = np.random.default_rng([history.search.seed, history.next_number])
    return replace(proposal, point=left[rng.integers(len(left))])
