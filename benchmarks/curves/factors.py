"""How far any rule of reduction factors could get: `python -m benchmarks.curves.factors --data path/to/curves`.

Random search with asynchronous halving at three rungs, without a model and without repeats, so that a sweep takes a
millisecond. It compares, on each table, the best fixed factors with those that follow from what early values tell of
the end: of all runs (R²), or of the best ones (where the best twentieth stands early), both known exactly.
"""

from __future__ import annotations

import argparse
import itertools
import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from benchmarks.curves.split import SETS
from benchmarks.curves.tables import WORST_REGRET, Table
from metta.sweep.protein.curves import END_SHARE

Array = NDArray[np.float64]
Factors = Sequence[float]
Known = Literal["all", "best"]

RUNGS = (0.1, 0.3, 0.5)
"""Shares of a run."""
GRID = ((1.0, 1.5, 2.0, 3.0, 5.0, 9.0), (1.0, 1.5, 2.0, 3.0, 5.0), (1.0, 1.5, 2.0, 3.0))
"""Factors at each rung that are tried."""
FIRST_SLOPES: dict[Known, float] = {"all": 2.0, "best": 3.0}
LATER_SLOPE, MAX_SIGNAL = 2.0, 2.5
"""How a factor grows with the ratio of signal to noise; at the first rung the best of 1, 2, 3, 4 for what is known."""
BEST_SHARE = 0.05
FAILED_SHARE = 0.5
"""The share of a run that a failed one is taken to cost."""


@dataclass(frozen=True)
class Runs:
    """What a table holds, as the simulation needs it.

    Attributes:
        regrets: [configurations].
        early: [rungs, configurations, seeds], values at the rungs.
        ends: [configurations, seeds], means of the last values.
        failed: [configurations, seeds].
    """

    regrets: Array
    early: Array
    ends: Array
    failed: NDArray[np.bool_]

    @classmethod
    def of(cls, table: Table) -> Runs:
        configurations, _, points = table.scores.shape
        shares = np.arange(1, points + 1) / points
        rungs = [int(np.abs(shares - rung).argmin()) for rung in RUNGS]
        return cls(
            np.array([table.regret(i) for i in range(configurations)]),
            np.moveaxis(table.scores[:, :, rungs], 2, 0),
            table.scores[:, :, shares > 1.0 - END_SHARE + 1e-9].mean(axis=2),
            np.asarray(np.isnan(table.scores).any(axis=2)),
        )

    def signals(self, of: Known) -> list[float]:
        """What values at each rung tell of the end, as a share of its variance, in normal scores of all runs."""
        ended = ~self.failed
        end, early = _normal_scores(self.ends[ended]), [_normal_scores(values[ended]) for values in self.early]
        if of == "all":
            return [float(np.corrcoef(each, end)[0, 1] ** 2) for each in early]
        best = end >= np.quantile(end, 1.0 - BEST_SHARE)
        return [max(0.0, float(each[best].mean() / end[best].mean())) ** 2 for each in early]


def _normal_scores(values: Array) -> Array:
    return np.asarray(ndtri((rankdata(values) - 0.5) / len(values)))


def factors_of(runs: Runs, of: Known) -> list[float]:
    """The rule of `metta.sweep.protein.stopping`, given what values at each rung tell of all runs or of the best."""
    factors, before = [], 0.0
    for rung, told in enumerate(runs.signals(of)):
        partial = min(max(0.0, (told - before) / (1.0 - before)), 0.99)
        slope = LATER_SLOPE if rung else FIRST_SLOPES[of]
        factors.append(1.0 + slope * min(math.sqrt(partial / (1.0 - partial)), MAX_SIGNAL))
        before = max(before, told)
    return factors


def regret(runs: Runs, factors: Factors, budget: float, seed: int) -> float:
    """Of the whole run that ended best, in one sweep."""
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, runs.ends.shape[1], len(runs.regrets))
    passed: list[list[float]] = [[] for _ in RUNGS]
    spent, found = 0.0, (-math.inf, WORST_REGRET)
    for configuration in rng.permutation(len(runs.regrets)).tolist():
        if spent >= budget - 1e-9:
            break
        own = configuration, seeds[configuration]
        if runs.failed[own]:
            spent += FAILED_SHARE
            continue
        share = 1.0
        for rung, values, others, factor in zip(RUNGS, runs.early, passed, factors, strict=True):
            if _stops(float(values[own]), others, factor):
                share = rung
                break
        spent += share
        if share == 1.0:
            found = max(found, (float(runs.ends[own]), float(runs.regrets[configuration])))
    return found[1]


def _stops(value: float, passed: list[float], factor: float) -> bool:
    """Whether a run stops at a rung; its value there is remembered."""
    insort(passed, value)
    rank = len(passed) - bisect_right(passed, value) + 1
    return len(passed) >= factor and rank > max(1, int(len(passed) / factor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the tables, *.npz")
    parser.add_argument("--tables", default="tuned-on", help="reported, tuned-on, all, or names with commas")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--budget", type=float, default=20.0, help="whole runs")
    arguments = parser.parse_args()
    names = SETS.get(arguments.tables) or tuple(arguments.tables.split(","))
    grid = list(itertools.product(*GRID))
    rows = np.zeros((len(names), len(grid) + 2))
    for row, name in enumerate(names):
        runs = Runs.of(Table(arguments.data / f"{name}.npz"))
        rules = [*grid, factors_of(runs, "all"), factors_of(runs, "best")]
        for column, factors in enumerate(rules):
            rows[row, column] = np.mean([regret(runs, factors, arguments.budget, s) for s in range(arguments.seeds)])
        fixed = rows[row, : len(grid)]
        best = grid[int(fixed.argmin())]
        told = f"by R² {rows[row, -2]:.3f}, by the best runs {rows[row, -1]:.3f}"
        print(f"{name:42s} no stopping {fixed[0]:.3f}, best factors {fixed.min():.3f} {best}, {told}")
    means = rows.mean(axis=0)
    fixed = means[: len(grid)]
    print(f"mean: no stopping {fixed[0]:.3f}; best fixed factors {fixed.min():.3f} {grid[int(fixed.argmin())]};")
    print(f"the best of each table {rows[:, : len(grid)].min(axis=1).mean():.3f};")
    print(f"by R² of all runs {means[-2]:.3f}; by where the best runs stand {means[-1]:.3f}")


if __name__ == "__main__":
    main()
