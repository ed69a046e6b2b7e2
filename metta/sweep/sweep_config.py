"""The settings of a sweep."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from metta.common.config import Config
from metta.sweep.protein.types import ETA, Rule
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.ranking import Goal, KeepPolicies

SeedsPerTrial = Annotated[int, Field(ge=1)] | Literal["auto"]


class SweepConfig(Config):
    """The settings of a sweep.

    Attributes:
        num_trials: the sweep ends when this many trials have completed, failed or been pruned. A grid
            (``protein.method="grid"``) has at most one trial per point, and by default all of them.
        protein: the search.
        target: the sweep also ends when a completed trial has a score at least as good as this.
        max_cost: the budget: the sweep also ends when its trials have cost this much in total, in units of the cost
            metric. With a budget the optimiser looks for the best score for its cost, until the budget is nearly spent.
        max_runs: the budget in whole runs, of which a trial that was stopped early counts for its share. The sweep also
            ends when it is spent; then `num_trials` is only a limit, and the savings from stopping pay for more trials.
        max_hours: after this many hours a driver starts no new trial; running trials end normally. It applies to each
            run of the sweep, like the `timeout` of Optuna's `optimize`; `max_cost` applies to all runs together.
        trial_timeout: seconds after which a trial is asked to stop; it is then failed. A worker that does not stop is
            killed; in this process ("inline") only a trial that reports progress can be stopped.
        seeds_per_trial: the number of seeds on which each trial runs. Its score is the mean, its cost the sum, and its
            metric ``<metric>.std`` the standard deviation over the seeds. With "auto" a trial has one seed, and the
            optimiser repeats promising configurations, each time as a new trial with another seed.
        early_stopping: the rule that stops unpromising trials: "protein" learns during the sweep how well early values
            predict the end; "asha", "median" and "hyperband" are the rules of that name; "off" stops none. See
            docs/early_stopping.md.
        min_share: no trial is stopped before this share of a whole run, or before its first report.
        rungs: the steps of a trial at which "asha" or "median" may stop it, instead of shares of a whole run.
        eta: of the trials that reach a rung of "asha" or "hyperband", the best 1 / `eta` continue.
        progress_metric: the metric that trials report while they run and that stands for the score; by default the one
            that the Tool declares, or else the sweep's own metric.
        progress_goal: whether a better trial has a higher or a lower `progress_metric`; by default as the sweep's goal.
        keep_policies: which trials keep their policies, other artefacts and checkpoints: the "best", those on the
            "pareto" front, or "all".
        evaluation_simulations: the simulations that each trial is evaluated on; None means the Tool's own. They are
            typed as `Config`, because a sweep needs no simulator; the swept Tool validates them.
    """

    num_trials: int | None = Field(default=None, ge=1)
    protein: ProteinConfig
    target: float | None = Field(default=None, allow_inf_nan=False)
    max_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_runs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    trial_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seeds_per_trial: SeedsPerTrial = 1
    early_stopping: Rule = "off"
    min_share: float = Field(default=0.04, gt=0, lt=1)
    rungs: list[Annotated[int, Field(ge=1)]] = []
    eta: float = Field(default=ETA, gt=1)
    progress_metric: str | None = None
    progress_goal: Goal | None = None
    keep_policies: KeepPolicies = "all"
    evaluation_simulations: list[SerializeAsAny[Config]] | None = None

    @model_validator(mode="after")
    def _check_rungs(self) -> Self:
        if self.rungs and self.early_stopping not in ("asha", "median"):
            raise ValueError(f"rungs are for early_stopping=asha or median, not for {self.early_stopping}")
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs must increase, not {self.rungs}")
        return self

    @model_validator(mode="after")
    def _check_progress(self) -> Self:
        if self.progress_goal is not None and self.progress_metric is None:
            raise ValueError(
                f"progress_goal={self.progress_goal} is the direction of progress_metric, which is not set"
            )
        return self

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        grid = self.protein.method == "grid"
        if self.num_trials is None and not grid:
            raise ValueError("num_trials is missing: only a grid has a number of trials by default")
        if grid and self.seeds_per_trial == "auto":
            raise ValueError(
                "seeds_per_trial=auto repeats promising configurations, but a grid has each point once; "
                "give seeds_per_trial=3, or the seed as a parameter with choices"
            )
        return self
