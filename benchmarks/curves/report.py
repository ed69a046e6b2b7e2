"""Tables of the results that `run` stores: `python -m benchmarks.curves.report --help`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.curves.run import BUDGETS, RESULTS
from benchmarks.curves.split import KINDS, SETS, kind_of
from benchmarks.curves.tables import WORST_REGRET

Array = NDArray[np.float64]
MISSED = 0.1
"""A stopped configuration that is better than every whole run by more than this regret was stopped wrongly."""


@dataclass(frozen=True)
class Run:
    """One sweep. `marks` is [trials, 4]: spent, regret of the recommended, of the best tried, of the best whole run."""

    marks: Array
    trials: int
    stopped: int
    seconds: float

    def at(self, spent: float) -> Array:
        within = np.flatnonzero(self.marks[:, 0] <= spent + 1e-6)
        return np.asarray(self.marks[within[-1], 1:]) if len(within) else np.full(3, WORST_REGRET)


Runs = dict[tuple[str, int], Run]
"""By table and seed."""


def read(path: Path, tables: Sequence[str]) -> Runs:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        (row["table"], row["seed"]): Run(np.array(row["marks"]), row["trials"], row["stopped"], row["seconds"])
        for row in rows
        if row["table"] in tables
    }


def mean_and_error(runs: Runs, values: dict[tuple[str, int], float]) -> tuple[float, float]:
    """The mean over tables of the mean over seeds, and its standard error with the tables taken as given."""
    means, variances = [], []
    for table in sorted({table for table, _ in runs}):
        own = np.array([values[key] for key in runs if key[0] == table])
        means.append(own.mean())
        variances.append(own.var(ddof=1) / len(own) if len(own) > 1 else np.nan)
    return float(np.mean(means)), float(np.sqrt(np.sum(variances)) / len(means))


def cell(runs: Runs, budget: float, column: int = 0) -> str:
    if not runs:
        return "–"
    mean, error = mean_and_error(runs, {key: float(run.at(budget)[column]) for key, run in runs.items()})
    return f"{mean:.3f} ± {error:.3f}"


def tables(results: dict[str, Runs], budget: int) -> Iterator[str]:
    """Markdown tables."""
    budgets = [b for b in BUDGETS if b <= budget]
    yield "#### Mean regret of the recommended configuration, by whole runs spent\n"
    heads = [*map(str, budgets), *(f"{kind} at {budget}" for kind in KINDS), "sweeps", "trials", "ms a trial"]
    rows = []
    for name, runs in sorted(results.items(), key=lambda item: mean_at(item[1], budget)):
        parts = [{key: run for key, run in runs.items() if kind_of(key[0]) == kind} for kind in KINDS]
        speed = 1e3 * float(np.mean([run.seconds / run.trials for run in runs.values()]))
        trials = float(np.mean([run.trials for run in runs.values()]))
        cells = [*(cell(runs, b) for b in budgets), *(cell(part, budget) for part in parts)]
        rows.append([name, *cells, str(len(runs)), f"{trials:.0f}", f"{speed:.0f}"])
    yield _markdown(heads, rows)
    yield f"#### Tried configurations, after {budget} whole runs\n"
    yield _markdown(
        ["recommended", "best tried", "best whole run", f"stopped one better by {MISSED}", "share of trials stopped"],
        [
            [name, *(cell(runs, budget, column) for column in range(3)), _missed(runs, budget), _stopped(runs)]
            for name, runs in sorted(results.items(), key=lambda item: mean_at(item[1], budget))
        ],
    )


def ends(results: dict[str, Runs]) -> Iterator[str]:
    """A Markdown table of the spending and regret of sweeps at their end, by kind of table."""
    rows = []
    for name, runs in results.items():
        parts = [runs, *({key: run for key, run in runs.items() if kind_of(key[0]) == kind} for kind in KINDS)]
        rows.append([name, *(f"{cell(p, np.inf)}; {_spent(p)}" for p in parts), _missed(runs, np.inf), str(len(runs))])
    yield "#### Regret of the recommended configuration; whole runs spent, at the end of a sweep\n"
    yield _markdown(["all", *KINDS, f"stopped one better by {MISSED}", "sweeps"], rows)


def _spent(runs: Runs) -> str:
    return f"{np.mean([run.marks[-1, 0] for run in runs.values()]):.1f}" if runs else "–"


def mean_at(runs: Runs, budget: float) -> float:
    return mean_and_error(runs, {key: float(run.at(budget)[0]) for key, run in runs.items()})[0]


def paired(ours: Runs, theirs: Runs, budget: float) -> str:
    """Mean difference, ours minus theirs, over the tables and seeds that both have, and the ratio of means."""
    common: Runs = {key: run for key, run in ours.items() if key in theirs}
    differences = {key: float(run.at(budget)[0] - theirs[key].at(budget)[0]) for key, run in common.items()}
    mean, error = mean_and_error(common, differences)
    of_theirs, _ = mean_and_error(common, {key: float(theirs[key].at(budget)[0]) for key in common})
    return f"{mean:+.3f} ± {error:.3f} ({1.0 + mean / of_theirs:.2f})"


def _missed(runs: Runs, budget: float) -> str:
    at = np.array([run.at(budget) for run in runs.values()])
    return f"{100 * np.mean(at[:, 2] - at[:, 1] > MISSED):.0f} %"


def _stopped(runs: Runs) -> str:
    return f"{100 * np.mean([run.stopped / run.trials for run in runs.values()]):.0f} %"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| |" + "|".join(heads) + "|", "|---" * (len(heads) + 1) + "|"]
    return "\n".join([*lines, *("|" + "|".join(row) + "|" for row in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tables", default="reported", help="reported, tuned-on, all, or names with commas")
    parser.add_argument("--budget", type=int, default=20, help="whole runs: which of the results to read")
    parser.add_argument("--ends", action="store_true", help="compare the ends of sweeps, as of `run --configurations`")
    parser.add_argument("--ours", help="an optimiser whose paired differences with all others are shown")
    arguments = parser.parse_args()
    names = SETS.get(arguments.tables) or tuple(arguments.tables.split(","))
    suffix = f"-{arguments.budget}.jsonl"
    results = {
        path.name.removesuffix(suffix): read(path, names) for path in sorted(arguments.results.glob(f"*{suffix}"))
    }
    results = {name: runs for name, runs in results.items() if runs}
    for block in ends(results) if arguments.ends else tables(results, arguments.budget):
        print(block)
    if arguments.ours:
        ours = results.pop(arguments.ours)
        budgets = [b for b in BUDGETS if b <= arguments.budget]
        print(f"#### {arguments.ours} minus each other, paired (ratio of means)\n")
        rows = [[name, *(paired(ours, runs, b) for b in budgets)] for name, runs in results.items()]
        print(_markdown([*map(str, budgets)], rows))


if __name__ == "__main__":
    main()
