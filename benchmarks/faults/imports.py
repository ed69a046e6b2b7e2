"""Run `metta-sweep import` on mutated files for a given time, and print every result that is not a one-line refusal.

    python -m benchmarks.faults.imports [--seconds 600] [--seed 1]

The files that `export` writes are changed by the rules of `tests.support.hostile_files`. `guided_imports` changes them
guided by coverage.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path

from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import open_store
from metta.sweep.store.transfer import export_sweep
from tests.support.hostile_files import hostile
from tests.support.made_sweep import make_sweep

KINDS = ("json", "csv", "parquet")
SLOW_SECONDS = 10.0


def make_files(folder: Path) -> str:
    """Create a sweep in a store, and export it to each kind of file; return the store's URL."""
    url = f"sqlite:///{folder}/store.db"
    with closing(open_store(url)) as store:
        make_sweep(store, "made", 12, curve_points=3)
        for kind in KINDS:
            export_sweep(store, "made", folder / f"made.{kind}")
    return url


def try_file(url: str, path: Path) -> str:
    """Import a file and show the import. Returns a description of the fault, or "" for none."""
    name = "read" if path.suffix == ".json" else "made"
    commands = [["import", str(path), "--name", name], ["show", name], ["list"], ["trial", name, "1"], ["best", name]]
    for command in commands if name == "read" else commands[:1]:
        started, out, err = time.monotonic(), io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = metta_sweep([*command, "--store", url])
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{command[0]}: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"
        if (seconds := time.monotonic() - started) > SLOW_SECONDS:
            return f"{command[0]}: it took {seconds:.0f} s"
        if status:
            error_lines = err.getvalue().splitlines()
            return "" if len(error_lines) == 1 else f"{command[0]}: {len(error_lines)} lines of error"
    return ""


def by_rules(seconds: float, seed: int) -> int:
    """Print each kind of wrong answer once, and return how many files had one."""
    wrong: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as tried:
        make_files(Path(made))
        ends, number = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            choose = random.Random(f"{seed} {number}")
            path = Path(tried) / f"changed.{choose.choice(KINDS)}"
            path.write_bytes(hostile(Path(made) / f"made{path.suffix}", choose))
            with closing(open_store(f"sqlite:///{tried}/store.db")) as store:
                make_sweep(store, "made", 2, curve_points=1)
            said = try_file(f"sqlite:///{tried}/store.db", path)
            if said and not wrong[said]:
                print(f"file {number}: {said}", flush=True)
            wrong[said] += bool(said)
            for each in Path(tried).iterdir():
                each.unlink()
            number += 1
    print(f"{number} files, {sum(wrong.values())} with a wrong result")
    return sum(wrong.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(bool(by_rules(options.seconds, options.seed)))
