"""Makes tables of LCBench's learning curves, whose runs have costs of their own: `python -m benchmarks.curves.lcbench`.

The surrogate of LCBench (see `benchmarks/optimizers/README.md`) gives the validation accuracy and the seconds of
training after each of 52 epochs. A table has 2,000 random configurations of one data set, and no noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.optimizers.problems import problem
from metta.sweep.protein.space import Space

CONFIGURATIONS, EPOCHS = 2000, 52


def table(task: str, data: Path | None) -> dict[str, NDArray[np.generic]]:
    """Scores, costs and hyperparameters of a data set, as `benchmarks.curves.tables.Table` reads them."""
    black_box = problem(f"lcbench-{task}", data)
    space = Space({name: config for name, config in black_box.parameters.items() if name != "epoch"})
    points = space.place(np.random.default_rng(0).random((CONFIGURATIONS, space.dimension)))
    rows = [space.decode(point) for point in points]
    evaluated = [black_box.evaluate([row | {"epoch": epoch} for row in rows]) for epoch in range(1, EPOCHS + 1)]
    scores, costs = np.array(evaluated).transpose(1, 2, 0)
    # The surrogate's seconds may fall a little from one epoch to the next
    costs = np.maximum.accumulate(costs, axis=1)
    return {"scores": scores[:, None], "costs": costs, "params": np.array(json.dumps(rows))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+", help="numbers of data sets")
    parser.add_argument("--data", type=Path, help="folder with LCBench's model.onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables, lcbench_*.npz")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks:
        np.savez_compressed(arguments.out / f"lcbench_{task}.npz", **table(task, arguments.data))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
