"""Faults at random times, from a seed: drivers and their workers on one SQLite store, for a given time.

uv run --with libfaketime python -m benchmarks.faults.soak [--seed 0] [--minutes 20]

At each step one of these happens, chosen by the seed: kill -9 or SIGTERM of a driver, the store locked, moved away and
back, the disk of the runs and the store full (as root), the clock of all drivers set to another time. At the end it
checks that no confirmed trial is lost, and that none was recorded twice or ran again after it had been recorded.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults.harness import FaultySweep
from benchmarks.faults.scenarios import Clock, filled, small_disk

_DRIVERS = 4
_LONGEST_SECONDS = 6.0
"""Of a fault."""


class Soak:
    """
    Args:
        seed: determines the faults and their times.
        folder: the folder of the store and the runs.
        clock: the clock of the drivers; None if libfaketime is missing.
        disk: whether `folder` is a small disk that may be filled.
    """

    def __init__(self, seed: int, folder: Path, clock: Clock | None, disk: bool) -> None:
        self._random = random.Random(seed)
        self._folder, self._clock = folder, clock
        self._path = folder / "store.sqlite"
        self.counts: Counter[str] = Counter()
        self.sweep = FaultySweep(f"sqlite:///{self._path}", folder, 40, _DRIVERS, seconds=0.3)
        self._faults: dict[str, Callable[[], None]] = {
            "kill -9": lambda: self._kill(signal.SIGKILL),
            "SIGTERM": lambda: self._kill(signal.SIGTERM),
            "store locked": self._lock,
            "store moved away and back": self._move,
        }
        if disk:
            self._faults["disk full"] = self._fill
        if clock is not None:
            self._faults["clock set"] = self._set_clock

    def run(self, seconds: float) -> None:
        """Inject faults for `seconds`, then let the sweep end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._start_idle()
            if self.sweep.ended() > self.sweep.num_trials - 20:
                self.sweep.extend(40)
            time.sleep(self._random.uniform(0.0, 3.0))
            name = self._random.choice(sorted(self._faults))
            self._faults[name]()
            self.counts[name] += 1
        while not self.sweep.complete() or self.sweep.running():
            if not self.sweep.complete():
                self._start_idle()
            time.sleep(0.5)

    def _start_idle(self) -> None:
        for slot in self.sweep.idle():
            workers = ["--workers", "2"] if slot % 2 else []
            self.sweep.start_command(slot, self._clock.environment if self._clock else {}, *workers)

    def _pause(self) -> None:
        time.sleep(self._random.uniform(0.2, _LONGEST_SECONDS))

    def _kill(self, by: signal.Signals) -> None:
        self.sweep.kill(self._random.randrange(_DRIVERS), by)

    def _lock(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._pause()
            connection.execute("ROLLBACK")

    def _move(self) -> None:
        """Meanwhile a reader keeps the log open, so that a driver that starts does not make another file."""
        aside = self._folder / "aside"
        with closing(sqlite3.connect(self._path)) as reader:
            reader.execute("SELECT 1 FROM sqlite_master").fetchone()
            self._path.rename(aside)
            self._pause()
            aside.rename(self._path)

    def _fill(self) -> None:
        with filled(self._folder):
            self._pause()

    def _set_clock(self) -> None:
        assert self._clock is not None
        self._clock.jump(self._random.choice(["+2h", "-2h", "+400d", "-1h", "+0"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the harness reads the store too, but only the drivers' messages matter
    with ExitStack() as stack:
        away = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="metta-soak-")))
        folder, disk = away, False
        try:
            folder, disk = stack.enter_context(small_disk("64m")), True
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"the disk is not filled, because none can be mounted here: {error}")
        clock = None
        try:
            clock = Clock(away)
        except ModuleNotFoundError as error:
            print(f"the clock is not set, because {error.name or error} is missing")
        soak = Soak(options.seed, folder, clock, disk)
        with soak.sweep:
            try:
                soak.run(60.0 * options.minutes)
                verdict = soak.sweep.verdict()
            except BaseException:
                print(f"its files: {shutil.copytree(folder, tempfile.mkdtemp(), dirs_exist_ok=True)}")
                raise
        for name, count in sorted(soak.counts.items()):
            print(f"{name}: {count}")
        for key, value in asdict(verdict).items():
            print(f"{key}: {value}")
    return 0 if verdict.sound else 1


if __name__ == "__main__":
    sys.exit(main())
