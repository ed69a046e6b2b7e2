"""A problem made of real trials: the learning curves of sweeps of `experiments.sweep_arena`.

Every point of a curve is the result of training with these hyperparameters for that many steps (the learning rate is
constant, so a shorter training is the beginning of a longer one). Between the points the score is their mean, weighted
by a normal density of the distance (Nadaraya 1964; Watson 1964), which is not the model of any optimiser measured here.

To create the data again, run `python -m benchmarks.optimizers.arena STORE SWEEP [STORE SWEEP ...]`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein_config import ParameterConfig

Array = NDArray[np.float64]

DATA = Path(__file__).parent / "data" / "arena.csv"
STEPS = "total_timesteps"
PARAMETERS = {
    "learning_rate": ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal"),
    "clip_coef": ParameterConfig(min=0.05, max=0.3, distribution="uniform"),
    "ent_coef": ParameterConfig(min=1e-4, max=1e-2, distribution="log_normal"),
    "gae_lambda": ParameterConfig(min=0.8, max=0.99, distribution="uniform"),
    "batch_size": ParameterConfig(min=4096, max=32768, distribution="int_log_normal"),
    STEPS: ParameterConfig(min=20_000, max=400_000, distribution="int_log_normal"),
}
WIDTHS = np.array([0.086, 0.225, 1.355, 0.18, 0.375, 0.086])
"""Widths of the normal density, as shares of the ranges. They predict a whole trial best from all others (R² 0.81)."""
NOISE = 0.004
"""Standard deviation of the reward per step between neighbouring points of a curve."""
STEPS_PER_SECOND = 28_000.0
"""Measured on the trials whose machine was otherwise idle."""
_BLOCK = 1000


class Arena:
    """Scores (reward per step) and costs (seconds) of hyperparameters."""

    def __init__(self) -> None:
        with DATA.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._points = _unit_cube(rows) / WIDTHS
        self._scores = np.array([float(row["reward_per_step"]) for row in rows])

    def __call__(self, params: list[Mapping[str, Any]]) -> tuple[Array, Array]:
        points = _unit_cube(params) / WIDTHS
        scores = [self._smooth(points[start : start + _BLOCK]) for start in range(0, len(points), _BLOCK)]
        return np.concatenate(scores), np.array([float(p[STEPS]) for p in params]) / STEPS_PER_SECOND

    def _smooth(self, points: Array) -> Array:
        squared = ((points[:, None, :] - self._points) ** 2).sum(axis=2)
        weights = np.exp(-0.5 * (squared - squared.min(axis=1, keepdims=True)))
        return np.asarray(weights @ self._scores / weights.sum(axis=1))


def _unit_cube(params: list[Mapping[str, Any]] | list[dict[str, str]]) -> Array:
    columns = []
    for name, config in PARAMETERS.items():
        values = np.array([float(p[name]) for p in params])
        low, high = float(config.min or 0.0), float(config.max or 0.0)
        log = config.distribution in ("log_normal", "int_log_normal")
        columns.append(np.log(values / low) / np.log(high / low) if log else (values - low) / (high - low))
    return np.stack(columns, axis=1)


def main() -> None:
    from metta.sweep.store.loaded import load_sweep

    DATA.parent.mkdir(exist_ok=True)
    with DATA.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", *PARAMETERS, "reward_per_step"])
        for index, (url, name) in enumerate(zip(sys.argv[1::2], sys.argv[2::2], strict=True)):
            sweep = load_sweep(url, name)
            for trial in sweep.trials():
                for point in sweep.curve(trial.number):
                    values = {path.rpartition(".")[2]: value for path, value in trial.params.items()}
                    row = [
                        *(values[name] for name in PARAMETERS if name != STEPS),
                        point.step,
                        point.metrics["reward_per_step"],
                    ]
                    writer.writerow([f"{index}.{trial.number}", *(f"{value:.5g}" for value in row)])


if __name__ == "__main__":
    main()
