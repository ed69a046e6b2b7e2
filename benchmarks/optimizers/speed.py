"""Seconds per suggest and observe at 100, 1,000 and 10,000 observations: `python -m benchmarks.optimizers.speed`."""

from __future__ import annotations

import time

import numpy as np

from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

DIMENSION = 10


def main() -> None:
    parameters = {f"x{i}": ParameterConfig(min=0, max=1, distribution="uniform") for i in range(DIMENSION)}
    config = ProteinConfig(metric="score", parameters=dict(parameters))
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    protein = Protein(config, seed=0, num_trials=200)
    for _ in range(200):
        _step(protein)
    print(f"200 suggestions from empty: {time.perf_counter() - started:.2f} s")
    for observations, repeats in ((100, 20), (1000, 7), (10000, 3)):
        protein = Protein(config, seed=0, num_trials=observations + repeats)
        for point in rng.random((observations, DIMENSION)):
            _observe(protein, dict(zip(parameters, point.tolist(), strict=True)))
        _step(protein)
        seconds = [_step(protein) for _ in range(repeats)]
        print(
            f"{observations} observations: median {1e3 * np.median(seconds):.1f} ms, "
            f"95th percentile {1e3 * np.percentile(seconds, 95):.1f} ms"
        )


def _step(protein: Protein) -> float:
    started = time.perf_counter()
    params, _ = protein.suggest()
    _observe(protein, params)
    return time.perf_counter() - started


def _observe(protein: Protein, params: dict[str, float]) -> None:
    x = np.array(list(params.values()))
    protein.observe(params, -float(((x - 0.3) ** 2).sum()), float(np.exp(3 * x[0])))


if __name__ == "__main__":
    main()
