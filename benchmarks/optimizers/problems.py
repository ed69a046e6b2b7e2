"""Problems with a score to maximise and a cost, and the yardsticks of each.

LCBench predicts the result of training a neural network on a data set (Zimmer, Lindauer & Hutter 2021), by the
surrogate of YAHPO Gym (Pfisterer et al. 2022). The synthetic functions get a cost that grows along one axis, and noise.
The cliffs have the hyperparameters of boosted trees: most of the twelve hardly matter, and beyond a border of the
others nothing is learnt.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.optimizers import arena
from metta.sweep.protein.space import Space
from metta.sweep.protein_config import ParameterConfig

Array = NDArray[np.float64]

LCBENCH_TASKS = ("7593", "126026", "146212", "167152", "168331", "168908", "189862", "189906")
SUITES = {
    "lcbench": [f"lcbench-{task}" for task in LCBENCH_TASKS],
    "synthetic": ["branin", "hartmann6", "ackley10"],
    "cliffs": [f"cliffs-{number}" for number in range(8)],
    "arena": ["arena"],
}
"""Names of problems."""
LCBENCH_ENVIRONMENT = "LCBENCH_DATA"


@dataclass(frozen=True)
class Problem:
    """A black box.

    Attributes:
        name: the problem's name.
        parameters: its space, flat.
        evaluate: maps many sets of hyperparameters to true scores and costs [n].
        noise: standard deviation of the noise on a score that an optimiser sees.
        cheap: the cheapest value of the parameter that drives cost, for peers that require it.
    """

    name: str
    parameters: dict[str, ParameterConfig]
    evaluate: Callable[[list[Mapping[str, Any]]], tuple[Array, Array]]
    noise: float = 0.0
    cheap: dict[str, Any] | None = None


@dataclass(frozen=True)
class Yardstick:
    """The reference values for a problem's results.

    Attributes:
        best: the best score known.
        median: the median score of random hyperparameters.
        median_cost, max_cost, min_cost: the costs of random hyperparameters.
    """

    best: float
    median: float
    median_cost: float
    max_cost: float
    min_cost: float

    def regret(self, scores: Array) -> Array:
        """0 for the best known score, 1 for the median of random hyperparameters."""
        return (self.best - scores) / (self.best - self.median)


def problem(name: str, data: Path | None = None) -> Problem:
    """The problem of this name: `arena`, `branin`, `hartmann6`, `ackley10`, or `lcbench-` or `cliffs-` and a number."""
    if name == "arena":
        return Problem(name, arena.PARAMETERS, arena.Arena(), arena.NOISE, cheap={arena.STEPS: 20_000})
    if name.startswith("lcbench-"):
        return _lcbench(name.removeprefix("lcbench-"), _lcbench_folder(data))
    if name.startswith("cliffs-"):
        return _cliffs(int(name.removeprefix("cliffs-")))
    if name in _SYNTHETIC:
        return _synthetic(name)
    raise SystemExit(f"no problem {name!r}; valid: {', '.join(map(', '.join, SUITES.values()))}")


def yardstick(problem: Problem, folder: Path) -> Yardstick:
    """Measure the problem, or read an earlier measurement from `folder`."""
    path = folder / f"{problem.name}.json"
    if path.exists():
        return Yardstick(**json.loads(path.read_text()))
    measured = _measure(problem)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    return measured


def _measure(problem: Problem) -> Yardstick:
    """100,000 random sets of hyperparameters, then 30 rounds of local search from the best 100."""
    rng = np.random.default_rng(0)
    space = Space(problem.parameters)
    points = space.place(rng.random((100_000, space.dimension)))
    scores, costs = problem.evaluate([space.decode(point) for point in points])
    top = np.argsort(-scores)[:100]
    elite, elite_scores = points[top], scores[top]
    for step in range(30):
        width = 0.3 * 0.8**step
        moves = rng.standard_normal((2000, space.columns)) * width * (rng.random((2000, space.columns)) < 0.4)
        tried = space.snap(elite[rng.integers(len(elite), size=2000)] + moves)
        tried_scores, _ = problem.evaluate([space.decode(point) for point in tried])
        pool, pool_scores = np.vstack([elite, tried]), np.concatenate([elite_scores, tried_scores])
        keep = np.argsort(-pool_scores, kind="stable")[:100]
        elite, elite_scores = pool[keep], pool_scores[keep]
    return Yardstick(
        best=float(elite_scores[0]),
        median=float(np.median(scores)),
        median_cost=float(np.median(costs)),
        max_cost=float(costs.max()),
        min_cost=float(costs.min()),
    )


# LCBench


def _lcbench_folder(data: Path | None) -> Path:
    folder = data or (Path(os.environ[LCBENCH_ENVIRONMENT]) if LCBENCH_ENVIRONMENT in os.environ else None)
    if folder is None or not (folder / "model.onnx").exists():
        raise SystemExit(f"LCBench needs --data or {LCBENCH_ENVIRONMENT}: a folder with model.onnx (see README)")
    return folder


@cache
def _session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


_LCBENCH_PARAMETERS = {
    "epoch": ParameterConfig(min=1, max=52, distribution="int_uniform"),
    "batch_size": ParameterConfig(min=16, max=512, distribution="int_log_normal"),
    "learning_rate": ParameterConfig(min=1e-4, max=0.1, distribution="log_normal"),
    "momentum": ParameterConfig(min=0.1, max=0.99, distribution="uniform"),
    "weight_decay": ParameterConfig(min=1e-5, max=0.1, distribution="uniform"),
    "num_layers": ParameterConfig(min=1, max=5, distribution="int_uniform"),
    "max_units": ParameterConfig(min=64, max=1024, distribution="int_log_normal"),
    "max_dropout": ParameterConfig(min=0.0, max=1.0, distribution="uniform"),
}


def _lcbench(task: str, folder: Path) -> Problem:
    codes = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]

    def evaluate(params: list[Mapping[str, Any]]) -> tuple[Array, Array]:
        continuous = np.array([[p[name] for name in _LCBENCH_PARAMETERS] for p in params], dtype=np.float32)
        category = np.full((len(params), 1), codes[task], dtype=np.int32)
        (out,) = _session(folder).run(None, {"x_cat": category, "x_cont": continuous})
        return out[:, 1].astype(float), np.maximum(out[:, 0].astype(float), 1e-3)

    return Problem(f"lcbench-{task}", _LCBENCH_PARAMETERS, evaluate, cheap={"epoch": 1})


# Synthetic functions, of points in the unit cube


def _branin(x: Array) -> Array:
    a, b = 15.0 * x[:, 0] - 5.0, 15.0 * x[:, 1]
    quadratic = b - 5.1 / (4 * math.pi**2) * a**2 + 5.0 / math.pi * a - 6.0
    return -(quadratic**2 + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * np.cos(a) + 10.0)


_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann6(x: Array) -> Array:
    inner = (_HARTMANN_A * (x[:, None, :] - _HARTMANN_P) ** 2).sum(axis=2)
    return np.asarray(np.exp(-inner) @ np.array([1.0, 1.2, 3.0, 3.2]))


def _ackley10(x: Array) -> Array:
    z = 40.0 * (x - 0.35)
    value = -20.0 * np.exp(-0.2 * np.sqrt((z**2).mean(axis=1))) - np.exp(np.cos(2 * math.pi * z).mean(axis=1))
    return np.asarray(-(value + 20.0 + math.e))


_SYNTHETIC: dict[str, tuple[Callable[[Array], Array], int, float]] = {
    "branin": (_branin, 2, 1.0),
    "hartmann6": (_hartmann6, 6, 0.05),
    "ackley10": (_ackley10, 10, 0.2),
}


def _synthetic(name: str) -> Problem:
    """Cost grows a hundredfold along the first axis."""
    function, dimension, noise = _SYNTHETIC[name]
    parameters = {f"x{i}": ParameterConfig(min=0, max=1, distribution="uniform") for i in range(dimension)}

    def evaluate(params: list[Mapping[str, Any]]) -> tuple[Array, Array]:
        x = np.array([[p[key] for key in parameters] for p in params], dtype=float)
        return function(x), 100.0 ** x[:, 0]

    return Problem(name, parameters, evaluate, noise, cheap={"x0": 0.0})


# Cliffs, as boosted trees have them

_CLIFFS_PARAMETERS = {
    "rounds": ParameterConfig(min=3, max=2000, distribution="int_log_normal"),
    "eta": ParameterConfig(min=1e-3, max=1.0, distribution="log_normal"),
    "max_depth": ParameterConfig(min=1, max=15, distribution="int_uniform"),
    "min_child_weight": ParameterConfig(min=1.0, max=128.0, distribution="log_normal"),
    "subsample": ParameterConfig(min=0.1, max=1.0, distribution="uniform"),
    "gamma": ParameterConfig(min=1e-4, max=8.0, distribution="log_normal"),
    "alpha": ParameterConfig(min=1e-4, max=1000.0, distribution="log_normal"),
    "lambda": ParameterConfig(min=1e-4, max=1000.0, distribution="log_normal"),
    "colsample_bytree": ParameterConfig(min=0.01, max=1.0, distribution="uniform"),
    "colsample_bylevel": ParameterConfig(min=0.01, max=1.0, distribution="uniform"),
    "rate_drop": ParameterConfig(min=0.0, max=1.0, distribution="uniform"),
    "skip_drop": ParameterConfig(min=0.0, max=1.0, distribution="uniform"),
}


def _cliffs(number: int) -> Problem:
    """Accuracy of two classes: about half of the space is a plateau at chance, with a slight slope.

    `rounds` and `eta` must be large enough together; a large `min_child_weight`, `alpha` or `lambda` and a small
    `colsample_bytree` end all learning. Where the borders are depends on the number.
    """
    rng = np.random.default_rng([number, 12])
    least, depth, eta = rng.uniform(-1.0, 2.5), rng.uniform(2.0, 9.0), rng.uniform(-5.0, -1.5)
    borders = rng.uniform([0.6, 0.6, 0.6, -0.25], [1.1, 1.1, 1.1, 0.0])
    steepness, slopes, centre = rng.uniform(8.0, 30.0, 4), rng.uniform(0.0, 0.01, 12), rng.random(12)
    space = Space(_CLIFFS_PARAMETERS)

    def evaluate(params: list[Mapping[str, Any]]) -> tuple[Array, Array]:
        x = np.array([space.encode(p) for p in params])
        rounds, rate, deep, subsample = (
            np.array([float(p[name]) for p in params]) for name in ("rounds", "eta", "max_depth", "subsample")
        )
        learnt = expit(3.0 * (np.log(rounds * rate) - least))
        alive = expit(steepness * (borders - x[:, [3, 6, 7, 8]] * [1.0, 1.0, 1.0, -1.0])).prod(axis=1)
        overfit = 0.02 * np.maximum(np.log(rate) - eta, 0.0) ** 1.5 + 0.05 * (1.0 - subsample) ** 2
        quality = 1.0 - 0.25 * np.exp(-deep / depth) - overfit
        return 0.5 + 0.45 * learnt * alive * quality - (x - centre) ** 2 @ slopes, rounds * (1.0 + deep / 4.0)

    return Problem(f"cliffs-{number}", _CLIFFS_PARAMETERS, evaluate, cheap={"rounds": 3})
