"""What a sweep is to do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from metta.common.config import Config
from metta.sweep.protein.types import Rule
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.ranking import KeepPolicies

SeedsPerTrial = Annotated[int, Field(ge=1)] | Literal["auto"]


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
            deviation over the seeds its metric ``<metric>.std``. With "auto" a trial has one seed, and the optimiser
            repeats promising configurations, each time as a trial of its own with another seed.
        early_stopping: when a trial that does not look promising is stopped: "protein" learns in the sweep how well
            early values tell the end; "asha", "median" and "hyperband" are the rules of that name; "off" stops none.
            See docs/early_stopping.md.
        min_share: no trial is stopped before this share of a whole run, nor before its first report.
        progress_metric: the metric that trials report while they run and that stands for the score; left out, the one
            that the Tool declares, or else the sweep's own metric.
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
    seeds_per_trial: SeedsPerTrial = 1
    early_stopping: Rule = "off"
    min_share: float = Field(default=0.04, gt=0, lt=1)
    progress_metric: str | None = None
    keep_policies: KeepPolicies = "all"
    evaluation_simulations: list[SerializeAsAny[Config]] | None = None
