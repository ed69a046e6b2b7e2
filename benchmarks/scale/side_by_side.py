"""Trials per hour on this machine: `local` and `ray` against `inline` sweeps run side by side.

    uv run python -m benchmarks.scale.side_by_side

Each contestant trains the same number of trials of one size on the arena, one core to a trial, from the start of its
first process to the end of its last one. The best of several rounds counts, because other load only slows a round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from metta.sweep.executor.resources import this_machine, thread_variables

ROOT = Path(__file__).parents[2]
REACH = {"local": 0.93, "ray": 0.88}


def seconds(commands: Sequence[Sequence[str]]) -> float:
    """How long the commands take, run at the same time, each with one thread and its own data directory."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        running = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **thread_variables(1), "METTA_DATA_DIR": f"{folder}/{index}"},
            )
            for index, command in enumerate(commands)
        ]
        if any(process.wait() for process in running):
            raise RuntimeError("a sweep failed")
        return time.perf_counter() - started


def sweep(num_trials: int, steps: int, seed: int, *overrides: str) -> list[str]:
    """The command of a sweep whose trials are all of about one size."""
    command = [sys.executable, "tools/run.py", "experiments.sweep_arena.sweep_optimizer"]
    command += ["--args", "sweep_name=s", f"num_trials={num_trials}", f"total_timesteps={steps}", "device=cpu"]
    command += ["min_batch_size=8000", "max_batch_size=8400", "--overrides", f"seed={seed}", *overrides]
    return command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12, help="per core")
    parser.add_argument("--steps", type=int, default=400_000, help="agent steps of a trial")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()

    cores = this_machine().cores
    all_trials = arguments.trials * cores
    contestants = {
        "inline": [sweep(arguments.trials, arguments.steps, seed) for seed in range(cores)],
        **{name: [sweep(all_trials, arguments.steps, 0, f"executor={name}", f"num_workers={cores}")] for name in REACH},
    }
    per_hour: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.repeats):
        for name, commands in contestants.items():
            per_hour[name].append(3600 * all_trials / seconds(commands))
            print(f"{name:>8}: {per_hour[name][-1]:.0f} trials per hour", flush=True)
    for name, target in REACH.items():
        ratio = max(per_hour[name]) / max(per_hour["inline"])
        print(f"{name:>8} / {cores} inline sweeps side by side: {ratio:.3f} (target: {target})")


if __name__ == "__main__":
    main()
