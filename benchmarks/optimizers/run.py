"""Run optimisers on problems and store every trial: `python -m benchmarks.optimizers.run --help`."""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.optimizers.peers import OPTIMIZERS, Horizon, versions
from benchmarks.optimizers.problems import SUITES, Problem, Yardstick, problem, yardstick

RESULTS = Path(__file__).parent / "results"
COST_POINTS = (5, 10, 20, 40)
TRIAL_POINTS = (10, 20, 40, 60)
FIELDS = ("horizon", "seed", "trial", "score", "cost", "seconds", "on_bound")


def horizons(optimizer: str, unit: float) -> dict[str, Horizon]:
    """The runs of an optimiser, by name: one for all points, or for Protein, which knows its horizon, one for each."""
    if optimizer not in ("protein", "protein-8"):
        return {"any": Horizon()}
    costs = {f"cost{c}": Horizon(max_cost=c * unit) for c in COST_POINTS}
    return costs | {f"trials{n}": Horizon(num_trials=n) for n in TRIAL_POINTS}


def run(
    optimizer: str, problem: Problem, seed: int, horizon: Horizon, yardstick: Yardstick, max_trials: int
) -> Iterator[dict[str, float]]:
    """One run to its horizon; without one, through 60 trials and 40 times the median cost."""
    designer = OPTIMIZERS[optimizer](problem, seed, horizon)
    rng = np.random.default_rng([seed, 1])
    num_trials = horizon.num_trials or (0 if horizon.max_cost else TRIAL_POINTS[-1])
    max_cost = horizon.max_cost or (0.0 if horizon.num_trials else COST_POINTS[-1] * yardstick.median_cost)
    spent, trial = 0.0, 0
    while (trial < num_trials or spent < max_cost) and trial < max_trials:
        started = time.perf_counter()
        params = designer.suggest()
        seconds = time.perf_counter() - started
        scores, costs = problem.evaluate([params])
        score, cost = float(scores[0]), float(costs[0])
        started = time.perf_counter()
        designer.observe(params, score + problem.noise * rng.standard_normal(), cost)
        seconds += time.perf_counter() - started
        yield {
            "trial": trial,
            "score": score,
            "cost": cost,
            "seconds": seconds,
            "on_bound": _on_bound(problem, params),
        }
        spent, trial = spent + cost, trial + 1


def _on_bound(problem: Problem, params: dict[str, float]) -> float:
    """Share of the parameters without steps that are on a bound."""
    free = [(name, c) for name, c in problem.parameters.items() if c.distribution in ("uniform", "log_normal")]
    ends = [(params[name], bound) for name, c in free for bound in (c.min, c.max) if bound is not None]
    return sum(math.isclose(value, bound) for value, bound in ends) / len(free)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimizers", nargs="+", choices=list(OPTIMIZERS), metavar="OPTIMIZER")
    parser.add_argument("--problems", nargs="+", default=[name for suite in SUITES.values() for name in suite])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder with LCBench's model.onnx")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--horizons", nargs="+", help="only these of Protein's runs, for example cost20 trials60")
    parser.add_argument("--max-trials", type=int, default=400)
    arguments = parser.parse_args()
    for optimizer in arguments.optimizers:
        folder = arguments.out / optimizer
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "versions.json").write_text(json.dumps(versions(optimizer), indent=1) + "\n")
        for name in arguments.problems:
            black_box = problem(name, arguments.data)
            measure = yardstick(black_box, arguments.out / "yardsticks")
            path = folder / f"{name}.csv"
            done = _done(path)
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if not file.tell():
                    writer.writeheader()
                for seed in range(arguments.seeds):
                    for label, horizon in horizons(optimizer, measure.median_cost).items():
                        if (label, seed) in done or (arguments.horizons and label not in ("any", *arguments.horizons)):
                            continue
                        # Written when the run is complete, so that an interrupted run is repeated
                        rows = list(run(optimizer, black_box, seed, horizon, measure, arguments.max_trials))
                        for row in rows:
                            rounded = {key: f"{value:.7g}" for key, value in row.items()}
                            writer.writerow({"horizon": label, "seed": seed, **rounded})
                        file.flush()


def _done(path: Path) -> set[tuple[str, int]]:
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {(row["horizon"], int(row["seed"])) for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
