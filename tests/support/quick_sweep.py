"""A sweep that `tools/run.py` can start, of a function that only waits: for control from other terminals."""

from __future__ import annotations

import random
import time
from typing import Any

from metta.sweep.function import FunctionSweep, RunningTrial, function_sweep

STEPS = 5


def wait_and_score(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
    """Best at x = 0.7; noise from the trial's seed."""
    noise = random.Random(trial.seed).gauss(0, 0.02)
    for step in range(1, STEPS + 1):
        time.sleep(config["seconds"] / STEPS)
        trial.report(step, {"reward": step / STEPS})
    if config["x"] > config["fail_above"]:
        raise RuntimeError(f"x = {config['x']} is above {config['fail_above']}")
    return {"score": 1 - (config["x"] - 0.7) ** 2 + noise}


def quick_sweep(
    sweep_name: str, num_trials: int = 4, seconds: float = 0.2, fail_above: float = 2.0, num_workers: int = 1
) -> FunctionSweep:
    """Search x in 0..1 for `num_trials` trials of `seconds` each."""
    return function_sweep(
        wait_and_score,
        {"x": {"min": 0, "max": 1, "distribution": "uniform"}, "seconds": seconds, "fail_above": fail_above},
        metric="score",
        num_trials=num_trials,
        name=sweep_name,
        num_workers=num_workers,
        seed=3,
    )
