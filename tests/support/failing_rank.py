"""A sweep of real training whose second trial fails on the second rank."""

from __future__ import annotations

import os

from metta.sweep.trial import Report, TrialResult, TrialSpec
from metta.tools.sweep import SweepTool
from metta.tools.train import TrainTool
from tests.support.small_sweep import small_sweep, small_train


class FailingRank(TrainTool):
    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        if spec.number == 1 and os.environ["RANK"] == "1":
            raise ValueError("no more ore")
        return super().run_trial(spec, report)


def failing_sweep(sweep_name: str, num_trials: int = 3) -> SweepTool:
    def factory(run_name: str) -> TrainTool:
        return FailingRank.model_validate(small_train(run_name).model_dump(mode="json"))

    return small_sweep(sweep_name, num_trials).model_copy(update={"train_tool_factory": factory})
