"""Functions to sweep, where workers can import them."""

from __future__ import annotations

import os
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
