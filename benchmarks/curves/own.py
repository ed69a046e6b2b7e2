"""Sweeps that begin with good values: is what they recommend better than those, and how often is it worse?

    uv run python -m benchmarks.curves.own run --data path/to/curves --out results
    uv run python -m benchmarks.curves.own report --out results

Users begin with hyperparameters that they have chosen. Here these are the best of some random configurations of a
table, `--draws`, by their mean over all seeds. The sweep knows them as the Tool's own values.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves.ours import Ours
from benchmarks.curves.run import done
from benchmarks.curves.split import SETS
from benchmarks.curves.tables import Table, sweep

BUDGETS = (5.0, 10.0, 20.0)
WORSE = 0.05
"""A recommendation is worse than the own values if its regret is larger by more than this."""
_DRAW_OWN = 99


def own_values(table: Table, seed: int, draws: int) -> int:
    """The best of so many random configurations."""
    drawn = np.random.default_rng([seed, _DRAW_OWN]).choice(len(table.truth), draws, replace=False)
    return int(drawn[np.argmax(table.truth[drawn])])


def run(data: Path, names: tuple[str, ...], draws: int, seeds: range, out: Path) -> None:
    """Run what `out` does not have yet; each sweep is one line of a file by the number of draws."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"own-{draws}.jsonl"
    ran = done(path)
    for name in names:
        table = Table(data / f"{name}.npz")
        for seed in seeds:
            if (name, seed) in ran:
                continue
            own = own_values(table, seed, draws)
            options = {"early_stopping": "protein", "repeats": True, "own_values": table.rows[own]}
            result = sweep(partial(Ours, options=options), table, seed, max(BUDGETS))
            regrets = [round(result.at(budget).regret, 5) for budget in BUDGETS]
            row = {"table": name, "seed": seed, "own": round(table.regret(own), 5), "regrets": regrets}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def report(out: Path) -> None:
    """Print the regret of own values and of recommendations, with standard errors, and how often those are worse."""
    for path in sorted(out.glob("own-*.jsonl")):
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        for kind in ("tuned-on", "reported"):
            found = [row for row in rows if row["table"] in SETS[kind]]
            seeds = sorted({row["seed"] for row in found})
            if len(seeds) < 2:
                continue
            values = np.array([[row["own"], *row["regrets"]] for row in found])
            of_seed = np.array([values[[row["seed"] == seed for row in found]].mean(axis=0) for seed in seeds])
            errors = of_seed.std(axis=0, ddof=1) / np.sqrt(len(seeds))
            cells = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(values.mean(axis=0), errors, strict=True)]
            worse = float(np.mean(values[:, -1] > values[:, 0] + WORSE))
            print(f"{path.stem} {kind}: own, then at {BUDGETS}: {', '.join(cells)}; worse: {worse:.1%} of {len(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["run", "report"])
    parser.add_argument("--data", type=Path, help="folder with the tables, *.npz")
    parser.add_argument("--tables", choices=SETS, default="reported")
    parser.add_argument("--draws", type=int, default=8, help="the own values are the best of so many configurations")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    arguments = parser.parse_args()
    if arguments.part == "report":
        report(arguments.out)
    elif arguments.data is None:
        parser.error("run needs --data")
    else:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        run(arguments.data, SETS[arguments.tables], arguments.draws, seeds, arguments.out)


if __name__ == "__main__":
    main()
