"""A TrainTool that trains nothing, apart from the tests so that workers import little."""

from __future__ import annotations

from pathlib import Path

from metta.sweep.trial import Report, TrialResult, TrialSpec
from metta.tools.train import TrainTool
from tests.sweep.executor.probe import Probe


class ProbeTrainTool(TrainTool):
    """A TrainTool that waits in place of training: SweepTool runs it like any other."""

    wait_for: str = ""

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        tool = cls.model_validate(spec.tool)
        result = Probe(wait_for=tool.wait_for).run(Path(spec.run_dir), spec.attempt, report)
        return TrialResult({"reward": tool.trainer.ppo.clip_coef}, result.cost, stopped=result.stopped)
