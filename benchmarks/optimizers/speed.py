"""Protein's speed, import time and memory, compared with Optuna's GPSampler: `python -m benchmarks.optimizers.speed`.

Ten parameters, on the machine's default number of threads. Wall-clock and processor times are
printed; on a busy machine the processor times are more reliable.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

NAMES = [f"x{i}" for i in range(10)]
SIZES = {100: 40, 500: 20, 1000: 20, 10000: 10}
PEER_SIZES = {100: 10, 500: 5}
IMPORTS = 15
OURS = "import metta.sweep.protein"
FOUNDATION = "import numpy, scipy.optimize, scipy.linalg, pydantic"


def main() -> None:
    wall, cpu = _clock(_from_empty)
    print(f"200 suggestions from empty: {wall:.2f} s (processor {cpu:.2f} s)", flush=True)
    medians = {size: _report("Protein", size, _steps(size, repeats)) for size, repeats in SIZES.items()}
    print(f"peak memory with 10,000 observations: {_peak_memory():.2f} GiB")
    if find_spec("optuna"):
        from importlib.metadata import version

        for size, repeats in PEER_SIZES.items():
            theirs = _report(f"GPSampler of Optuna {version('optuna')}", size, _peer_steps(size, repeats))
            print(f"  {theirs / medians[size]:.1f} times as long as Protein")
    ours, foundation = np.median([[_import_seconds(OURS), _import_seconds(FOUNDATION)] for _ in range(IMPORTS)], axis=0)
    print(f"{OURS}: {ours:.3f} s, {ours / foundation:.2f} times `{FOUNDATION}`")


def _report(name: str, size: int, steps: Iterator[tuple[float, float]]) -> float:
    """Print the time of suggesting and observing; return the median in seconds."""
    wall, cpu = np.array(list(steps)).T
    median, high = np.percentile(wall, [50, 95])
    print(
        f"{name}, {size} observations: median {1e3 * median:.1f} ms, 95th percentile {1e3 * high:.1f} ms "
        f"(processor {1e3 * np.median(cpu):.1f} ms)",
        flush=True,
    )
    return float(median)


def _clock(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def _score(point: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return -float(((point - 0.3) ** 2).sum())


def _protein(num_trials: int) -> Protein:
    parameters = {name: ParameterConfig(min=0, max=1, distribution="uniform") for name in NAMES}
    return Protein(ProteinConfig(metric="score", parameters=dict(parameters)), seed=0, num_trials=num_trials)


def _from_empty() -> None:
    protein = _protein(200)
    for _ in range(200):
        _step(protein)


def _steps(size: int, repeats: int) -> Iterator[tuple[float, float]]:
    protein = _protein(size + repeats + 1)
    for point in np.random.default_rng(0).random((size, len(NAMES))):
        _observe(protein, dict(zip(NAMES, point.tolist(), strict=True)))
    _step(protein)  # the first fit, which a real sweep of this size did long before
    for _ in range(repeats):
        yield _clock(lambda: _step(protein))


def _step(protein: Protein) -> None:
    params, _ = protein.suggest()
    _observe(protein, params)


def _observe(protein: Protein, params: dict[str, Any]) -> None:
    point = np.array([params[name] for name in NAMES])
    protein.observe(params, _score(point), float(np.exp(3 * point[0])))


def _peer_steps(size: int, repeats: int) -> Iterator[tuple[float, float]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GPSampler(seed=0))
    space: dict[str, Any] = {name: optuna.distributions.FloatDistribution(0, 1) for name in NAMES}
    for point in np.random.default_rng(0).random((size, len(NAMES))):
        params = dict(zip(NAMES, point.tolist(), strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=_score(point)))

    def step() -> None:
        trial = study.ask(space)
        study.tell(trial, _score(np.array([trial.params[name] for name in NAMES])))

    step()
    for _ in range(repeats):
        yield _clock(step)


def _peak_memory() -> float:
    """GiB of a process that suggests with 10,000 observations."""
    return float(_run("from benchmarks.optimizers import speed; print(speed.memory_of(10000))"))


def memory_of(size: int) -> float:
    """The peak memory of this process, in GiB, after three suggestions with `size` observations."""
    list(_steps(size, 2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _import_seconds(statement: str) -> float:
    return float(_run(f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"))


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
