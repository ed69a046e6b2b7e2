"""How often the interval of another run contains other runs of the same configuration.

    uv run python -m benchmarks.curves.intervals --data path/to/curves --budget 20 --seeds 3

`metta-sweep best` gives the interval that training again will fall into with a probability of 95 %. Here Protein sweeps
the tables that have several seeds, and its intervals are compared with the runs of the seeds that it did not use. A run
that failed is outside. The command also prints how probable the best configuration was thought to be the best of those
with a whole run, and how often it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.curves.ours import Ours
from benchmarks.curves.run import maker
from benchmarks.curves.split import SETS
from benchmarks.curves.tables import Space, Table, seed_orders, sweep


@dataclass(frozen=True)
class Believed:
    """What a sweep believed of a configuration, and what is true.

    Attributes:
        best: it was recommended.
        inside: the share of the runs that the sweep has not seen which were in the interval.
        probability: with which it was thought to be the best of those with a whole run.
        right: whether it is.
    """

    best: bool
    inside: float
    probability: float
    right: bool


def believed(table: Table, seed: int, budget: float) -> list[Believed]:
    """All configurations with a whole run in a sweep of a table."""
    made: list[Ours] = []

    def make(space: Space, seed: int, points: int, budget: float) -> Ours:
        ours = maker("protein")(space, seed, points, budget)
        assert isinstance(ours, Ours)
        made.append(ours)
        return ours

    sweep(make, table, seed, budget)
    (ours,) = made
    params = {o.number: dict(o.params) for o in ours.protein.observations}
    tried = [table.rows.index(each) for each in params.values()]
    beliefs = ours.protein.beliefs()
    rows = [table.rows.index(params[belief.number]) for belief in beliefs]
    truly_best = max(rows, key=lambda row: float(table.truth[row]))
    found = []
    for belief, row in zip(beliefs, rows, strict=True):
        unseen = table.scores[row, seed_orders(table, seed)[row][tried.count(row) :], -1]
        inside = float(np.mean((belief.low <= unseen) & (unseen <= belief.high))) if len(unseen) else np.nan
        found.append(Believed(belief.number == ours.recommend(), inside, belief.probability, row == truly_best))
    return found


def summary(found: Iterable[Believed]) -> str:
    every = list(found)
    best = [each for each in every if each.best]
    return (
        f"inside: best {_percent(each.inside for each in best)}, all {_percent(each.inside for each in every)}; "
        f"the best is the best: thought {_percent(each.probability for each in best)}, "
        f"true {_percent(each.right for each in best)} ({len(best)} sweeps)"
    )


def _percent(shares: Iterable[float]) -> str:
    return f"{100.0 * float(np.nanmean(list(shares))):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the tables, *.npz")
    parser.add_argument("--tables", default="reported", help="reported, tuned-on, all, or names with commas")
    parser.add_argument("--seeds", type=int, default=3, help="sweeps of each table")
    parser.add_argument("--budget", type=float, default=20.0, help="whole runs")
    options = parser.parse_args()
    everything: list[Believed] = []
    for name in SETS.get(options.tables) or tuple(options.tables.split(",")):
        table = Table(options.data / f"{name}.npz")
        if table.scores.shape[1] == 1:
            continue
        found = [each for seed in range(options.seeds) for each in believed(table, seed, options.budget)]
        print(f"{name}: {summary(found)}", flush=True)
        everything += found
    print(f"all tables: {summary(everything)}")


if __name__ == "__main__":
    main()
