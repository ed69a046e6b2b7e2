"""Something quick to sweep: a noiseless parabola that can also fail, return NaN, or be interrupted."""

from __future__ import annotations

import math
import time
from pathlib import Path

from metta.common.config import Config
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

TOOL_CLASS = "tests.support.parabola:Parabola"


class Parabola(Config):
    """Score ``1 - (x - 0.7)^2``, best at x = 0.7, at a cost of ``seconds_per_step`` for each of `steps`.

    Attributes:
        fail_above: an x above this raises.
        nan_above: an x above this scores NaN.
        interrupt_once: a path; the first attempt that does not find it makes it and is interrupted, as by Ctrl-C.
    """

    x: float = 0.5
    steps: int = 2
    seconds_per_step: float = 0.0
    fail_above: float = math.inf
    nan_above: float = math.inf
    interrupt_once: str = ""

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        return cls.model_validate(spec.tool).evaluate(report)

    def evaluate(self, report: Report) -> TrialResult:
        score = 1 - (self.x - 0.7) ** 2
        for step in range(1, self.steps + 1):
            time.sleep(self.seconds_per_step)
            report(Progress(step, self.steps, step * 0.5, {"score": score}))
        if self.interrupt_once and not Path(self.interrupt_once).exists():
            Path(self.interrupt_once).touch()
            raise KeyboardInterrupt
        if self.x > self.fail_above:
            raise RuntimeError(f"x = {self.x} is above {self.fail_above}")
        if self.x > self.nan_above:
            score = math.nan
        return TrialResult({"score": score, "work": 10.0 * self.x}, cost=self.steps * 0.5)


def parabola_definition(num_trials: int, tool: Parabola | None = None, **changes: object) -> SweepDefinition:
    """The definition of a sweep of x over 0..1."""
    protein = ProteinConfig(metric="score", parameters={"x": ParameterConfig(min=0.0, max=1.0, distribution="uniform")})
    definition = SweepDefinition(
        protein=protein,
        num_trials=num_trials,
        seed=1,
        tool_class=TOOL_CLASS,
        tool=(tool or Parabola()).model_dump(),
    )
    return definition.model_copy(update=changes)


def prepare_parabola(definition: SweepDefinition, attempt: Attempt) -> TrialSpec:
    """Put an attempt's x on the definition's tool."""
    tool = Parabola.model_validate(definition.tool).update(attempt.params)
    return TrialSpec(attempt.number, attempt.attempt, TOOL_CLASS, tool.model_dump(), [], run_dir="")
