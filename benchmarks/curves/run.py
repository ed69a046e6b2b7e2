"""Run optimisers on recorded learning curves: `python -m benchmarks.curves.run --help`."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
from pathlib import Path

from benchmarks.curves.split import SETS
from benchmarks.curves.tables import Maker, Mark, Sweep, Table, sweep

os.environ.setdefault("OMP_NUM_THREADS", "1")

BUDGETS = (5, 10, 20, 40)
RESULTS = Path(__file__).parent / "results"


def maker(name: str) -> Maker:
    """An optimiser by its name, or by "module:Class"."""
    from benchmarks.curves.peers import OPTIMIZERS

    if ":" in name:
        module, attribute = name.split(":")
        made: Maker = getattr(importlib.import_module(module), attribute)
        return made
    return OPTIMIZERS[name]


def done(path: Path) -> set[tuple[str, int]]:
    """The tables and seeds in a file of results."""
    if not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["table"], row["seed"]) for row in rows}


def kept(result: Sweep) -> list[Mark]:
    """The marks that are reported."""
    marks = [result.at(budget) for budget in (*BUDGETS, math.inf)]
    return [mark for i, mark in enumerate(marks) if mark not in marks[:i]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "optimizers", nargs="+", metavar="OPTIMIZER", help="a name in peers.OPTIMIZERS, or module:Class"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the tables, *.npz")
    parser.add_argument("--tables", default="reported", help="reported, tuned-on, all, or names with commas")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=20.0, help="whole runs")
    parser.add_argument(
        "--configurations", type=int, help="end after this many configurations, regardless of their cost"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results, one file per optimiser")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = SETS.get(arguments.tables) or tuple(arguments.tables.split(","))
    for name in names:
        table = Table(arguments.data / f"{name}.npz")
        for optimizer in arguments.optimizers:
            path = arguments.out / f"{optimizer.replace(':', '.')}-{arguments.budget:g}.jsonl"
            ran = done(path)
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                if (name, seed) in ran:
                    continue
                result = sweep(maker(optimizer), table, seed, arguments.budget, arguments.configurations)
                row = {
                    "table": name,
                    "seed": seed,
                    "trials": result.trials,
                    "configurations": result.configurations,
                    "stopped": result.stopped,
                    "seconds": round(result.seconds, 3),
                    "marks": [[round(x, 5) for x in (m.spent, m.regret, m.tried, m.whole)] for m in kept(result)],
                }
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
