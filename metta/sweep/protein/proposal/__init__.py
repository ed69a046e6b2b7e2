"""How the next trial is chosen: the first rule that applies decides.

Another way to choose is one class with the protocol `ProposalRule`, and its place in `RULES`. Another acquisition or
utility of cost is one class with the protocol `model.Acquisition`, and its maker in place of
`ExpectedImprovement.of` there.
"""

from __future__ import annotations

import numpy as np

from metta.sweep.protein.acquisition import ExpectedImprovement
from metta.sweep.protein.history import History
from metta.sweep.protein.proposal.again import Repeat, Resample
from metta.sweep.protein.proposal.first import Baseline, FirstDesign, LongerOwn, UntilScored, random_proposal
from metta.sweep.protein.proposal.methods import GridPoint, RandomDraw
from metta.sweep.protein.proposal.model import FromCurves, FromModel, RandomShare
from metta.sweep.protein.proposal.rule import Proposal, ProposalRule
from metta.sweep.protein.proposal.untried import fresh

__all__ = ["RULES", "Proposal", "ProposalRule", "propose"]

RULES: tuple[ProposalRule, ...] = (
    Repeat(),
    GridPoint(),
    RandomDraw(),
    Baseline(),
    FirstDesign(),
    UntilScored(),
    LongerOwn(),
    Resample(),
    RandomShare(),
    FromCurves(ExpectedImprovement.of),
    FromModel(ExpectedImprovement.of),
)


def propose(history: History) -> Proposal:
    """What to try next, a function of the history alone: nothing twice while another point is left.

    Independent draws may be equal: with the method "random" they are.
    """
    try:
        proposal = next(proposal for rule in RULES if (proposal := rule(history)) is not None)
    except np.linalg.LinAlgError as error:
        proposal = random_proposal(history, f"the model failed: {error}")
    return proposal if history.search.config.method == "random" else fresh(proposal, history)
