"""The overhead of a sweep on top of training and evaluation: the sweep of the arena in a separate process, from its
start to its exit.

    uv run python -m benchmarks.scale.overhead
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TO_REACH = 0.02

Span = tuple[float, float]
"""Start and end, by the machine's monotonic clock, which all its processes share."""


def record(path: Path, command_line: list[str]) -> None:
    """Run ``tools/run.py``, and write the times of trials, evaluations and the imports for the first training."""
    from metta.rl.launch import start_fork_server
    from metta.tools.train import TrainTool

    spans: dict[str, list[Span]] = defaultdict(list)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.monotonic()
            try:
                return function(*arguments)
            finally:
                spans[name].append((started, time.monotonic()))

        return call

    def imports() -> None:
        import metta.rl.trainer
        import metta.sim.evaluate  # noqa: F401

    def trial(*arguments: Any) -> Any:
        if not spans["imports"]:
            start_fork_server()  # as the trial does
            timed("imports", imports)()
        return run(*arguments)

    run = TrainTool._run
    for name, function in {
        "_run": timed("trials", trial),
        "_evaluate": timed("evaluations", TrainTool._evaluate),
    }.items():
        setattr(TrainTool, name, function)
    sys.argv[1:] = command_line
    try:
        runpy.run_path(str(ROOT / "tools" / "run.py"), run_name="__main__")
    finally:
        path.write_text(json.dumps(spans))


def measure(num_trials: int, overrides: list[str]) -> dict[str, float]:
    """Seconds of the parts of a sweep, in chronological order; their sum is the wall time."""
    arguments = ["sweep_name=overhead", f"num_trials={num_trials}"]
    sweep = ["experiments.sweep_arena.sweep_optimizer", "--args", *arguments, "--overrides", *overrides]
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder, "spans.json")
        started = time.monotonic()
        subprocess.run(
            ["uv", "run", "python", "-m", "benchmarks.scale.overhead", "--record", str(recorded), *sweep],
            cwd=ROOT,
            env={**os.environ, "METTA_DATA_DIR": folder},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        ended = time.monotonic()
        spans = json.loads(recorded.read_text())
    trials = spans["trials"]
    imports, evaluation, in_trials = (_total(spans[name]) for name in ("imports", "evaluations", "trials"))
    return {
        "start": trials[0][0] - started,
        "imports": imports,
        "training": in_trials - evaluation - imports,
        "evaluation": evaluation,
        "between trials": _total([(end, start) for (_, end), (start, _) in pairwise(trials)]),
        "end": ended - trials[-1][1],
    }


def _total(spans: list[Span]) -> float:
    return sum(end - start for start, end in spans)


def main() -> None:
    if sys.argv[1:2] == ["--record"]:
        record(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--overrides", nargs="*", default=["seed=0"], help="of the sweep")
    arguments = parser.parse_args()

    parts = measure(arguments.trials, arguments.overrides)
    wall = sum(parts.values())
    for name, seconds in {**parts, "total": wall}.items():
        print(f"{name:>16}: {seconds:7.2f} s {seconds / wall:8.2%}")
    overhead = wall - parts["training"] - parts["evaluation"]
    print(f"overhead: {overhead:.2f} s, {overhead / wall:.2%} of the wall time (target: {TO_REACH:.0%})")
    own = overhead - parts["imports"]
    print(f"without the imports that any training needs, torch and mettagrid: {own:.2f} s, {own / wall:.2%}")


if __name__ == "__main__":
    main()
