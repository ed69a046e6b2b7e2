"""The optimiser. Arrays in, arrays out; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metta.sweep.protein.space import SpaceError
from metta.sweep.protein.types import Belief, Decision, Importance, Observation, OtherLength, Prediction, Rule

if TYPE_CHECKING:
    from metta.sweep.protein.protein import Protein, Suggestion

__all__ = [
    "Belief",
    "Decision",
    "Importance",
    "Observation",
    "OtherLength",
    "Prediction",
    "Protein",
    "Rule",
    "SpaceError",
    "Suggestion",
]


def __getattr__(name: str) -> Any:
    """Import the optimiser when it is asked for: whoever only reads trials needs no SciPy."""
    if name not in ("Protein", "Suggestion"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metta.sweep.protein import protein

    return getattr(protein, name)
