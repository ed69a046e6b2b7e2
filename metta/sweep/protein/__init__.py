"""The optimiser. Arrays in, arrays out; no I/O."""

from metta.sweep.protein.protein import Observation, Protein, Suggestion
from metta.sweep.protein.space import SpaceError

__all__ = ["Observation", "Protein", "SpaceError", "Suggestion"]
