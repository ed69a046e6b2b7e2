"""The processor time and memory of each terminal command that shows a sweep of very many trials.

    uv run python -m benchmarks.scale.look --trials 20000

The sweep is generated, not run: `tests.support.made_sweep`, with ten metrics and twenty curve points per trial.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

from metta.sweep.store import open_store
from tests.support.made_sweep import make_sweep

COMMANDS = {
    "show": ["show", "made"],
    "best": ["best", "made"],
    "list": ["list"],
    "report": ["report", "made", "--to", os.devnull],
}
REPEATS = 5


def measure(words: list[str], folder: Path) -> tuple[float, float]:
    """Processor seconds and peak MB of one command."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from metta.sweep.cli import main; sys.exit(main())", *words],
        env={**os.environ, "METTA_DATA_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def make(folder: str, trials: int) -> None:
    """Create the sweep in a store in the folder."""
    store = open_store(f"sqlite:///{folder}/sweeps.db")
    make_sweep(store, "made", trials)
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Created in another process, because a process inherits the peak memory of the one that started it.
        made = get_context("spawn").Process(target=make, args=(folder, options.trials))
        made.start()
        made.join()
        for name, words in COMMANDS.items():
            if name == "report":
                words = [*words[:-1], str(Path(folder, "report.html"))]
            runs = [measure(words, Path(folder)) for _ in range(REPEATS + 1)][1:]
            seconds, megabytes = (statistics.median(values) for values in zip(*runs, strict=True))
            print(f"{name:<8} {seconds:5.2f} s of processor time, {megabytes:4.0f} MB")


if __name__ == "__main__":
    main()
