"""Tables and plots of the results stored by `run`: `python -m benchmarks.optimizers.report --help`."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.optimizers.problems import SUITES, Yardstick
from benchmarks.optimizers.run import COST_POINTS, RESULTS, TRIAL_POINTS
from metta.sweep.protein.pareto import hypervolume

Array = NDArray[np.float64]

PRICE_POINTS = tuple(range(10, 101, 10))


@dataclass(frozen=True)
class Run:
    """One run of an optimiser: [trials] of each."""

    scores: Array
    costs: Array
    seconds: Array
    on_bound: Array


Runs = dict[tuple[str, str, int], Run]
"""By problem, horizon and seed."""
Measure = Callable[[str, int], dict[tuple[str, int], float]]
"""Optimiser and point (of cost or trials) to a value by problem and seed."""


class Results:
    """The stored runs of all optimisers.

    Args:
        folder: where `run` stored them.
        problems: the problems to report.
    """

    def __init__(self, folder: Path, problems: list[str]) -> None:
        self.problems = [name for name in problems if (folder / "yardsticks" / f"{name}.json").exists()]
        self.yardsticks = {
            name: Yardstick(**json.loads((folder / "yardsticks" / f"{name}.json").read_text()))
            for name in self.problems
        }
        folders = sorted(path for path in folder.iterdir() if (path / "versions.json").exists())
        self.runs: dict[str, Runs] = {path.name: _read(path, self.problems) for path in folders}
        self.runs = {name: runs for name, runs in self.runs.items() if runs}

    def at_cost(self, optimizer: str, times: int) -> dict[tuple[str, int], float]:
        """Regret of the best trial that ended within `times` the median cost, by problem and seed."""
        return self._each(optimizer, f"cost{times}", lambda run, y: _best_within(run, y, times * y.median_cost))

    def at_trials(self, optimizer: str, trials: int) -> dict[tuple[str, int], float]:
        """Regret of the best of the first `trials` trials, by problem and seed."""
        return self._each(optimizer, f"trials{trials}", lambda run, y: float(y.regret(run.scores[:trials].max())))

    def at_price(self, optimizer: str, percent: int) -> dict[tuple[str, int], float]:
        """The Pareto front after 20 times the median cost, as regret by problem and seed: that of the best trial that
        cost no more than `percent` of the way from the cheapest to the most expensive, in logarithms."""

        def measure(run: Run, y: Yardstick) -> float:
            price = y.min_cost * (y.max_cost / y.min_cost) ** (percent / 100)
            within = (np.cumsum(run.costs) <= 20 * y.median_cost) & (run.costs <= price)
            return min(1.0, float(y.regret(run.scores[within].max()))) if within.any() else 1.0

        return self._each(optimizer, "cost20", measure)

    def hypervolumes(self, optimizer: str, times: int) -> dict[tuple[str, int], float]:
        """Share of the (score, log cost) rectangle dominated within `times` the median cost, by problem and seed."""

        def measure(run: Run, y: Yardstick) -> float:
            within = np.cumsum(run.costs) <= times * y.median_cost
            worst = float(np.log(y.max_cost))
            area = (y.best - y.median) * (worst - np.log(y.min_cost))
            return float(hypervolume(run.scores[within], np.log(run.costs[within]), y.median, worst) / area)

        return self._each(optimizer, f"cost{times}", measure)

    def _each(
        self, optimizer: str, horizon: str, measure: Callable[[Run, Yardstick], float]
    ) -> dict[tuple[str, int], float]:
        return {
            (problem, seed): measure(run, self.yardsticks[problem])
            for (problem, label, seed), run in self.runs[optimizer].items()
            if label == horizon or (label == "any" and _reaches(run, horizon, self.yardsticks[problem]))
        }


def _read(folder: Path, problems: list[str]) -> Runs:
    rows: dict[tuple[str, str, int], list[list[float]]] = {}
    for problem in problems:
        path = folder / f"{problem}.csv"
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    values = [float(row[field]) for field in ("score", "cost", "seconds", "on_bound")]
                    rows.setdefault((problem, row["horizon"], int(row["seed"])), []).append(values)
    return {key: Run(*np.array(values).T) for key, values in rows.items()}


def _reaches(run: Run, horizon: str, yardstick: Yardstick) -> bool:
    """Whether a run without a known horizon reached this horizon; a run with all its trials counts as such."""
    if horizon.startswith("trials"):
        return len(run.scores) >= int(horizon.removeprefix("trials"))
    spent = float(run.costs.sum()) / yardstick.median_cost
    return spent >= int(horizon.removeprefix("cost")) or len(run.scores) >= TRIAL_POINTS[-1]


def _best_within(run: Run, yardstick: Yardstick, budget: float) -> float:
    """A run that could not afford one trial has found nothing better than the median."""
    within = run.scores[np.cumsum(run.costs) <= budget]
    return float(yardstick.regret(within.max())) if len(within) else 1.0


def mean_ranks(results: dict[str, dict[tuple[str, int], float]]) -> dict[str, float]:
    """Mean rank of each optimiser over the (problem, seed) pairs that all of them ran; 1 is best."""
    from scipy.stats import rankdata

    common = sorted(set.intersection(*(set(of_one) for of_one in results.values())))
    table = np.array([[of_one[key] for key in common] for of_one in results.values()])
    ranks = rankdata(table, axis=0).mean(axis=1)
    return dict(zip(results, ranks.tolist(), strict=True))


def wilcoxon_holm(
    ours: dict[tuple[str, int], float], peers: dict[str, dict[tuple[str, int], float]]
) -> dict[str, float]:
    """One-sided paired Wilcoxon p-values that our regret is lower, Holm-corrected over the peers."""
    from scipy.stats import wilcoxon

    raw = {}
    for name, theirs in peers.items():
        common = sorted(set(ours) & set(theirs))
        pairs = np.array([(ours[key], theirs[key]) for key in common])
        raw[name] = float(wilcoxon(pairs[:, 0], pairs[:, 1], alternative="less").pvalue)
    corrected, largest = {}, 0.0
    for position, name in enumerate(sorted(raw, key=lambda key: raw[key])):
        largest = max(largest, min(1.0, (len(raw) - position) * raw[name]))
        corrected[name] = largest
    return corrected


def tables(results: Results) -> Iterator[str]:
    """Markdown tables of the optimisers that ran everything, then of the others next to Protein; nan: not run."""
    complete = _complete(results)
    runs = {name: results.runs[name] for name in complete}
    costs = {point: {name: results.at_cost(name, point) for name in complete} for point in COST_POINTS}
    ranks = {point: mean_ranks(of_all) for point, of_all in costs.items() if all(of_all.values())}
    yield "#### Mean normalised regret at a cost, in times the median random cost\n"
    yield _table(runs, {f"{point}x": _mean(results.at_cost, point) for point in COST_POINTS})
    yield "#### Mean normalised regret after a number of trials\n"
    yield _table(runs, {f"{point}": _mean(results.at_trials, point) for point in TRIAL_POINTS})
    yield "#### Mean rank at a cost\n"
    yield _table(complete, {f"{point}x": of_all.__getitem__ for point, of_all in ranks.items()})
    yield "#### Hypervolume of score and log cost, share of the rectangle above the median score, below the top cost\n"
    yield _table(runs, {f"{point}x": _mean(results.hypervolumes, point) for point in COST_POINTS})
    if "protein" in complete:
        peers = {name: of_one for name, of_one in costs[20].items() if name != "protein"}
        p_values = wilcoxon_holm(costs[20]["protein"], peers)
        yield "#### Protein's regret is lower at 20 times the median cost: Wilcoxon, Holm-corrected p\n"
        yield _table(p_values, {"p": p_values.__getitem__})
        if partial := [name for name in results.runs if name not in complete]:
            yield "#### Incomplete optimisers: mean normalised regret, and Protein's in the same runs\n"
            yield _table(partial, _beside_protein(results))
    yield "#### Milliseconds per trial (suggest and observe), and share of continuous values suggested on a bound\n"
    yield _table(
        results.runs,
        {
            "median": lambda name: 1e3 * float(np.median(_pooled(results.runs[name], "seconds"))),
            "95th percentile": lambda name: 1e3 * float(np.percentile(_pooled(results.runs[name], "seconds"), 95)),
            "on a bound": lambda name: float(np.mean(_pooled(results.runs[name], "on_bound"))),
        },
    )


def _beside_protein(results: Results) -> dict[str, Callable[[str], float]]:
    """Columns: the number of runs that a peer shares with Protein, and the regret of both in these runs."""

    def column(measure: Measure, point: int, ours: bool) -> Callable[[str], float]:
        def mean(name: str) -> float:
            theirs, protein = measure(name, point), measure("protein", point)
            shared = theirs.keys() & protein.keys()
            return float(np.mean([(protein if ours else theirs)[key] for key in shared] or [np.nan]))

        return mean

    columns: dict[str, Callable[[str], float]] = {
        "runs": lambda name: len({(problem, seed) for problem, _, seed in results.runs[name]})
    }
    points = (("20x", results.at_cost, 20), ("20 trials", results.at_trials, 20), ("60 trials", results.at_trials, 60))
    for label, measure, point in points:
        columns |= {label: column(measure, point, False), f"Protein, {label}": column(measure, point, True)}
    return columns


def _complete(results: Results) -> list[str]:
    """Optimisers that have every run to 20 times the median cost that any optimiser has."""
    counts = {name: len(results.at_cost(name, 20)) for name in results.runs}
    return [name for name, count in counts.items() if count == max(counts.values())]


def _mean(measure: Measure, point: int) -> Callable[[str], float]:
    return lambda name: float(np.mean(list(measure(name, point).values()) or [np.nan]))


def _pooled(runs: Runs, field: str) -> Array:
    return np.concatenate([getattr(run, field) for run in runs.values()])


def _table(names: Iterable[str], columns: dict[str, Callable[[str], float]]) -> str:
    """One row per name, one column per measure."""
    rows = {name: [column(name) for column in columns.values()] for name in names}
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(f"{value:.3g}" for value in row) + " |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def plots(results: Results, folder: Path, suite: str) -> None:
    """Regret against trials, against spending, and Pareto fronts: one small PNG each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    complete = _complete(results)
    for kind, measure, points, label in (
        ("regret_trials", results.at_trials, TRIAL_POINTS, "trials"),
        ("regret_cost", results.at_cost, COST_POINTS, "spent, in times the median cost"),
        ("pareto", results.at_price, PRICE_POINTS, "cost of the trial, percent of the most expensive (in logarithms)"),
    ):
        figure, axes = plt.subplots(figsize=(6, 4))
        for name in complete:
            mine = name == "protein"
            means = [_mean(measure, point)(name) for point in points]
            axes.plot(points, means, "o-", label=name, linewidth=2.5 if mine else 1, color="black" if mine else None)
        axes.set(xlabel=label, ylabel="mean normalised regret", ylim=(0, 1))
        axes.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(folder / f"{suite}_{kind}.png", dpi=80)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--suite", choices=list(SUITES), default="lcbench")
    parser.add_argument("--plots", type=Path, help="folder to write plots to")
    parser.add_argument("--page", type=Path, help="file to write the tables to, between two `<!-- SUITE -->`")
    arguments = parser.parse_args()
    results = Results(arguments.results, SUITES[arguments.suite])
    text = "\n".join(tables(results))
    if arguments.page:
        mark = f"<!-- {arguments.suite} -->"
        before, _, after = arguments.page.read_text().split(mark)
        arguments.page.write_text(f"{before}{mark}\n\n{text}\n{mark}{after}")
    else:
        print(text)
    if arguments.plots:
        plots(results, arguments.plots, arguments.suite)


if __name__ == "__main__":
    main()
