"""What a sweep is to do."""

from __future__ import annotations

from pydantic import Field, SerializeAsAny

from metta.common.config import Config
from metta.sweep.protein_config import ProteinConfig


class SweepConfig(Config):
    """What a sweep is to do.

    Attributes:
        num_trials: the sweep ends when this many trials have completed, failed or been pruned.
        protein: the search.
        evaluation_simulations: what each trial is evaluated on; None means the Tool's own simulations.
            Typed by `Config` alone, for a sweep needs no simulator: the Tool that is swept validates them.
    """

    num_trials: int = Field(ge=1)
    protein: ProteinConfig
    evaluation_simulations: list[SerializeAsAny[Config]] | None = None
