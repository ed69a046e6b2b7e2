"""What a sweep is to do."""

from __future__ import annotations

from pydantic import Field, SerializeAsAny

from metta.common.config import Config
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.ranking import KeepPolicies


class SweepConfig(Config):
    """What a sweep is to do.

    Attributes:
        num_trials: the sweep ends when this many trials have completed, failed or been pruned.
        protein: the search.
        max_cost: the sweep also ends once its trials have cost this much in all, in units of the cost metric; the
            optimiser then looks for the best score for its cost until the budget nears its end.
        max_hours: hours after which whoever runs the sweep starts no new trial; those that run then end. They count
            for each run of the sweep, like the `timeout` of Optuna's `optimize`; `max_cost` counts for all of them.
        trial_timeout: seconds, from its start, after which a trial is asked to stop. It is then failed. A worker that
            does not stop is killed; in this process ("inline") only a trial that reports progress can be stopped.
        seeds_per_trial: a trial is run on so many seeds; the mean is its score, the sum its cost, and the standard
            deviation over the seeds its metric ``<metric>.std``.
        keep_policies: of which trials to keep the policies and other files they name as artefacts, and the
            checkpoints: of the "best", of those on the "pareto" front, or of "all".
        evaluation_simulations: what each trial is evaluated on; None means the Tool's own simulations.
            Typed as `Config`, because a sweep needs no simulator: the Tool that is swept validates them.
    """

    num_trials: int = Field(ge=1)
    protein: ProteinConfig
    max_cost: float | None = Field(default=None, gt=0)
    max_hours: float | None = Field(default=None, gt=0)
    trial_timeout: float | None = Field(default=None, gt=0)
    seeds_per_trial: int = Field(default=1, ge=1)
    keep_policies: KeepPolicies = "all"
    evaluation_simulations: list[SerializeAsAny[Config]] | None = None
