"""A trial that sleeps, so that the rest of a sweep's time is that of the driver, the store and the executor."""

from __future__ import annotations

import math
import time

import numpy as np

from metta.common.config import Config
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

TOOL_CLASS = "benchmarks.scale.sleeper:Sleeper"
SPREAD = 0.8
"""Standard deviation of the logarithm of a trial's seconds: one in twenty takes over three times the median."""


class Sleeper(Config):
    """Sleeps for a time drawn from a heavy-tailed (log-normal) distribution, then scores a smooth function.

    Attributes:
        x, y, z: hyperparameters, in 0..1.
        mean_seconds: the mean of the distribution.
        progress_seconds: how often progress is reported.
    """

    x: float = 0.5
    y: float = 0.5
    z: float = 0.5
    mean_seconds: float = 60.0
    progress_seconds: float = 1.0

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        tool = cls.model_validate(spec.tool)
        started, seconds, step = time.monotonic(), tool.seconds(spec.number), 0
        while (left := started + seconds - time.monotonic()) > 0:
            time.sleep(min(left, tool.progress_seconds))
            step += 1
            report(Progress(step, None, time.monotonic() - started, {"score": tool.score()}))
        return TrialResult({"score": tool.score()}, cost=time.monotonic() - started)

    def seconds(self, number: int) -> float:
        """How long trial `number` takes."""
        draw = np.random.default_rng([11, number]).standard_normal()
        return self.mean_seconds * math.exp(SPREAD * draw - SPREAD**2 / 2)

    def score(self) -> float:
        return 1 - (self.x - 0.7) ** 2 - (self.y - 0.3) ** 2 - 0.5 * (self.z - 0.6) ** 2
