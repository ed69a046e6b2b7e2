"""The optimiser. Arrays in, arrays out; no I/O."""

from metta.sweep.protein.protein import Importance, Observation, Prediction, Protein, Suggestion
from metta.sweep.protein.space import SpaceError

__all__ = ["Importance", "Observation", "Prediction", "Protein", "SpaceError", "Suggestion"]
