"""Sweeps in which the length of a run is searched, and runs report while they train.

    uv run python -m benchmarks.curves.lengths run --methods random asha protein --seeds 10 --out results
    uv run python -m benchmarks.curves.lengths report --out results

The problems are those of `benchmarks/optimizers` whose cost is that of a length: LCBench (epochs; it needs its data)
and the arena's recorded curves (steps). A run reports twenty times at most what shorter runs with the same
hyperparameters would give. There are three limits, with the mean over random hyperparameters as the unit of cost:
"trials", 20 of them; "budget", 20 units; "both". Regret is that of the recommended configuration: 0 is the best known,
1 the median.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.optimizers.problems import Problem, problem, yardstick
from metta.sweep.protein import Protein
from metta.sweep.protein.space import Space
from metta.sweep.protein_config import ProteinConfig

YARDSTICKS = Path(__file__).parents[1] / "optimizers" / "results" / "yardsticks"
LENGTHS = {"arena": "total_timesteps"}
"""The hyperparameter that is the length of a run; of LCBench it is the epoch."""
NOT_TUNED_ON = (168910, 167161, 167181, 167201, 189354, 126025, 189873, 3945, 126029, 167149, 167200, 189905)
"""Those of docs/benchmarks.md, "Problems that nothing was tuned on"."""
METHODS: dict[str, dict[str, Any]] = {
    "protein": {"early_stopping": "protein", "repeats": True},
    "asha": {"early_stopping": "asha"},
    "random": {},
}
LIMITS = ("trials", "budget", "both")
TRIALS, REPORTS, MOST_TRIALS = 20, 20, 1000


class Sweep:
    """One sweep of a problem.

    Args:
        unit: what a run costs on average.
    """

    def __init__(self, problem: Problem, method: str, limit: str, seed: int, unit: float) -> None:
        self._problem, self._length = problem, LENGTHS.get(problem.name, "epoch")
        self._budget = TRIALS * unit if limit != "trials" else np.inf
        self._trials = TRIALS if limit != "budget" else MOST_TRIALS
        options = dict(METHODS[method])
        if method == "protein":
            options["num_trials"] = None if limit == "budget" else TRIALS
            options["max_cost"] = None if limit == "trials" else self._budget
        config = ProteinConfig(
            metric="score",
            goal="maximize",
            parameters=problem.parameters,
            method="bayes" if method == "protein" else "random",
        )
        self._protein = Protein(config, seed=seed, **options)
        self._stops = "early_stopping" in options
        self._rng = np.random.default_rng([seed, 1])

    def run(self) -> dict[str, Any]:
        """The true score of the recommended configuration, and what the sweep took."""
        spent, made, stopped = 0.0, 0, 0
        while spent < self._budget and made < self._trials:
            params, info = self._protein.suggest()
            cost, whole = self._train(params, info["number"], info)
            spent, made, stopped = spent + cost, made + 1, stopped + (not whole)
        try:
            best: Any = self._protein.best().params
        except LookupError:
            return {"score": None, "spent": spent, "trials": made, "stopped": stopped}
        (score,), _ = self._problem.evaluate([best])
        return {"score": float(score), "spent": spent, "trials": made, "stopped": stopped}

    def _train(self, params: dict[str, Any], number: int, info: dict[str, Any]) -> tuple[float, bool]:
        """Train until the end, or until the sweep stops it; return the cost, and whether it came to the end."""
        total = params[self._length]
        lowest = self._problem.parameters[self._length].min or 1
        steps = np.unique(np.linspace(min(lowest, total), total, REPORTS).astype(int))
        scores, costs = self._problem.evaluate([params | {self._length: int(step)} for step in steps])
        scores = scores + self._problem.noise * self._rng.standard_normal(len(scores))
        costs = np.maximum.accumulate(costs)
        curve: list[tuple[float, float, float]] = []
        for step, cost, score in zip(steps.tolist(), costs.tolist(), scores.tolist(), strict=True):
            curve.append((step, cost, score))
            if step < total and self._stops and not self._protein.decide(number, curve, total).go_on:
                break
        whole, (_, cost, score) = len(curve) == len(steps), curve[-1]
        self._protein.observe(
            params,
            score if whole else None,
            cost,
            number=number,
            info=info,
            curve=curve,
            total_steps=total,
            stopped=not whole,
        )
        return float(cost), whole


def mean_cost(problem: Problem) -> float:
    """What a run with random hyperparameters costs on average."""
    space = Space(problem.parameters)
    points = space.random(1000, np.random.default_rng(0))
    return float(np.mean(problem.evaluate([space.decode(point) for point in points])[1]))


def run(names: list[str], methods: list[str], limits: list[str], seeds: int, data: Path | None, out: Path) -> None:
    """Run what `out` does not have yet; each sweep is one line of a file by method."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = problem(name, data)
        scale, unit = yardstick(found, YARDSTICKS), mean_cost(found)
        for method, limit, seed in product(methods, limits, range(seeds)):
            path = out / f"{method}.jsonl"
            key = {"problem": name, "limit": limit, "seed": seed}
            if any(key.items() <= row.items() for row in _rows(path)):
                continue
            row = key | Sweep(found, method, limit, seed, unit).run()
            score = scale.median if row["score"] is None else row["score"]
            row["regret"] = float(scale.regret(np.array([score]))[0])
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def report(out: Path) -> None:
    """Mean regret with its standard error over seeds, by limit and kind of problem."""
    for path in sorted(out.glob("*.jsonl")):
        rows = _rows(path)
        for limit, kind in product(LIMITS, ("arena", "lcbench")):
            found = [row for row in rows if row["limit"] == limit and row["problem"].startswith(kind)]
            seeds = sorted({row["seed"] for row in found})
            means = [np.mean([row["regret"] for row in found if row["seed"] == seed]) for seed in seeds]
            if len(means) > 1:
                error = np.std(means, ddof=1) / np.sqrt(len(means))
                print(f"{path.stem:12} {limit:7} {kind:8} {np.mean(means):.3f} ± {error:.3f} ({len(found)} sweeps)")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["run", "report"])
    parser.add_argument("--problems", nargs="+", default=["arena", *(f"lcbench-{task}" for task in NOT_TUNED_ON)])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--limits", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder with LCBench's model.onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    arguments = parser.parse_args()
    if arguments.part == "report":
        report(arguments.out)
    else:
        problems, methods, limits = arguments.problems, arguments.methods, arguments.limits
        run(problems, methods, limits, arguments.seeds, arguments.data, arguments.out)


if __name__ == "__main__":
    main()
