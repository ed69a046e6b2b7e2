"""What a sweep is to do."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, SerializeAsAny

from metta.common.config import Config
from metta.sweep.protein_config import ProteinConfig


class EvaluationConfig(Config):
    """Base of what a trial is evaluated on; the training code's rooms say what it holds."""

    name: str


class SweepConfig(Config):
    """What a sweep is to do.

    Attributes:
        num_trials: the sweep ends when this many trials have completed, failed or been pruned.
        protein: the search.
        evaluation_simulations: what each trial is evaluated on; None means the Tool's own simulations.
    """

    num_trials: int = Field(ge=1)
    protein: ProteinConfig
    evaluation_simulations: Sequence[SerializeAsAny[EvaluationConfig]] | None = None
