"""Functions to sweep, where workers can import them."""

from __future__ import annotations

import math
import os
import random
import time
from typing import Any

from metta.sweep import RunningTrial


def parabola(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
    """Best at x = 0.7; says in which process it ran. Trial $INTERRUPT is ended as by Ctrl-C."""
    if str(trial.number) == os.environ.get("INTERRUPT"):
        raise KeyboardInterrupt
    for step in range(3):
        trial.report(step, {"accuracy": step / 10})
    return {"accuracy": 1 - (config["x"] - 0.7) ** 2, "pid": os.getpid(), "seed": trial.seed}


def hang(config: dict[str, Any], trial: RunningTrial) -> float:
    """Never ends by itself."""
    (trial.run_dir / "pid").write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def one_argument(config: dict[str, Any]) -> float:
    """Not what a sweep can call."""
    return float(config["x"])


def slowly_curved(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
    """The same, so slowly that an answer to stop comes from the driver's process in time."""
    return curved(config, trial, seconds=0.03)


def curved(config: dict[str, Any], trial: RunningTrial, seconds: float = 0.0) -> dict[str, float]:
    """Learns for 25 steps, best at lr = 0.01 and width = 0.3; stops when it is told to."""
    rng = random.Random(trial.seed)
    best = 1 - (math.log10(config["lr"]) + 2) ** 2 / 4 - (config["width"] - 0.3) ** 2
    for step in range(1, 26):
        time.sleep(seconds)
        accuracy = best * (1 - math.exp(-step / 8)) + rng.gauss(0, 0.01)
        if not trial.report(step, {"accuracy": accuracy}, total=25):
            break
    return {"accuracy": accuracy}
