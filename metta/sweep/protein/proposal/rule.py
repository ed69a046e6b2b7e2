"""What a rule of proposal is, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.history import History

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Proposal:
    """What to try next.

    Attributes:
        point: [columns]; one that the space can decode.
        info: what is said of it, JSON-compatible: its `source`, and what the source knows.
        params: hyperparameters, nested or flat, where they are given already; otherwise those of the point.
        repeat_of: number of the trial that it repeats with another seed, or None.
        deliberate: whether the point may have been tried before.
    """

    point: Array
    info: dict[str, Any]
    params: Mapping[str, Any] | None = None
    repeat_of: int | None = None
    deliberate: bool = False


class ProposalRule(Protocol):
    """One way to choose what is tried next. Its docstring says when it applies."""

    def __call__(self, history: History) -> Proposal | None:
        """The next trial, as a function of the history alone; None where the rule does not apply.

        Raises:
            LinAlgError: the model failed; then a random point is tried.
        """
        ...
