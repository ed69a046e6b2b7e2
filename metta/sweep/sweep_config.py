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
        max_cost: the sweep also ends once its trials have cost this much in all, in units of the cost metric; the
            optimiser then looks for the best score for its cost until the budget nears its end.
        evaluation_simulations: what each trial is evaluated on; None means the Tool's own simulations.
            Typed by `Config` alone, for a sweep needs no simulator: the Tool that is swept validates them.
    """

    num_trials: int = Field(ge=1)
    protein: ProteinConfig
    max_cost: float | None = Field(default=None, gt=0)
    evaluation_simulations: list[SerializeAsAny[Config]] | None = None
