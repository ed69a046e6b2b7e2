"""Several drivers on one sweep, for the faults, and a verdict on the sweep afterwards."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from benchmarks.faults.driver import SWEEP, drive_process, unharmed
from metta.sweep.definition import open_sweep
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Store
from metta.sweep.trial import Trial, TrialState
from tests.support.parabola import Parabola, parabola_definition

T = TypeVar("T")

_ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 240.0


@dataclass(frozen=True)
class Verdict:
    """The state of a sweep after its faults.

    Attributes:
        asked: num_trials.
        ended: trials that ended; `failed` counts those with three lost attempts.
        repeated: attempts that were lost and tried again.
        lost: trials whose end was confirmed to a driver, but that differ in the store.
        duplicated: trials whose end was confirmed more than once.
        messages: the different messages to a user, most frequent first.
    """

    asked: int
    ended: int
    failed: int
    repeated: int
    lost: int
    duplicated: int
    messages: list[str]

    @property
    def sound(self) -> bool:
        return self.ended == self.asked and not self.lost and not self.duplicated


class DriverProcess(Protocol):
    """The common interface of `multiprocessing` and `subprocess`, with the names of the former."""

    @property
    def pid(self) -> int | None: ...

    @property
    def exitcode(self) -> int | None: ...

    def join(self, timeout: float | None = None) -> None: ...


class _Command:
    """A driver started as a command, with its own environment."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("a") as file:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, env={**os.environ, **environment}, stdout=file, stderr=file
            )

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def join(self, timeout: float | None = None) -> None:
        self._process.wait(timeout)


class FaultySweep:
    """A sweep of tiny trials on a store, and the drivers that work on it.

    Args:
        url: the store's URL for the harness.
        folder: for the ledger and the drivers' logs.
        num_trials: the initial number of trials.
        drivers: the number of drivers.
        seconds: the duration of a trial.
        drivers_url: the store's URL for the drivers (through a proxy).

    Attributes:
        harm: what `start` does to the store of the drivers that it starts.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        num_trials: int,
        drivers: int = 4,
        seconds: float = 0.05,
        drivers_url: str | None = None,
    ) -> None:
        self.url = url
        self._drivers_url = drivers_url or url
        self.num_trials = num_trials
        self.harm: Callable[[Store], None] = unharmed
        self._ledger, self._log = folder / "ledger", folder / "log"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([drive_process.__module__])
        self._drivers: list[DriverProcess | None] = [None] * drivers
        parabola = Parabola(steps=1, seconds_per_step=seconds, fail_above=2.0, nan_above=2.0)
        definition = parabola_definition(num_trials, parabola)
        random_search = definition.protein.settings.model_copy(update={"num_random_samples": 1_000_000})
        definition.protein.settings = random_search
        self._definition = definition
        self.extend(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for slot in range(len(self._drivers)):
            self.kill(slot)

    def extend(self, by: int) -> None:
        """Add that many trials to the sweep. Only drivers that start later see the change."""
        self.num_trials += by
        definition = self._definition.model_copy(update={"num_trials": self.num_trials})
        with_store(self.url, lambda store: open_sweep(store, SWEEP, definition))

    # ---- drivers

    def start(self) -> None:
        """Start every driver that was killed, that ended by an error, or that ended before the sweep was extended."""
        for slot, driver in enumerate(self._drivers):
            if driver is None or driver.exitcode not in (None, 0) or (driver.exitcode == 0 and not self.complete()):
                self._drivers[slot] = self._start_driver()

    def _start_driver(self) -> DriverProcess:
        arguments = (self._drivers_url, self._ledger, self._log, self.harm)
        driver = self._context.Process(target=drive_process, args=arguments)
        driver.start()
        return driver

    def start_command(
        self, slot: int, environment: Mapping[str, str], *arguments: str, prefix: Sequence[str] = ()
    ) -> None:
        """Start a driver as a command, with additional environment variables, optionally through another command."""
        module = drive_process.__module__
        command = [*prefix, sys.executable, "-m", module, self._drivers_url, str(self._ledger), *arguments]
        self._drivers[slot] = _Command(command, environment, self._log)

    def kill(self, slot: int, by: signal.Signals = signal.SIGKILL) -> bool:
        """End a driver by a signal; returns whether it still ran."""
        driver = self._drivers[slot]
        if driver is None or driver.pid is None:
            return False
        ran = driver.exitcode is None
        if ran:
            os.kill(driver.pid, by)
        driver.join()
        self._drivers[slot] = None
        return ran

    def idle(self) -> list[int]:
        """The slots in which no driver runs."""
        return [slot for slot, each in enumerate(self._drivers) if each is None or each.exitcode is not None]

    def pids(self) -> list[int]:
        return [driver.pid for driver in self._drivers if driver is not None and driver.pid is not None]

    def running(self) -> int:
        return sum(driver is not None and driver.exitcode is None for driver in self._drivers)

    def finish(self) -> None:
        """Wait until every driver has ended, and restart those that ended with an error."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while any(driver is None or driver.exitcode != 0 for driver in self._drivers):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sweep did not end: {self.messages()}")
            self.start()
            time.sleep(0.05)

    # ---- results

    def trials(self) -> list[Trial]:
        return with_store(self.url, lambda store: store.trials(SWEEP))

    def ended(self) -> int:
        return sum(trial.state.ended for trial in self.trials())

    def complete(self) -> bool:
        return self.ended() >= self.num_trials

    def wait_for(self, ended: int) -> None:
        """Wait until that many trials have ended."""
        before, since = -1, time.monotonic()
        while (now := self.ended()) < ended:
            if now > before:
                before, since = now, time.monotonic()
            if time.monotonic() > since + _PATIENCE_SECONDS or not self.running():
                raise TimeoutError(f"the sweep makes no progress: {self.messages()}")
            time.sleep(0.05)

    def messages(self) -> list[str]:
        """The messages of the drivers to their users; messages that differ only in numbers count as one."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        kinds = Counter(re.sub(r"\d+", "#", line) for line in lines)
        return [next(line for line in lines if re.sub(r"\d+", "#", line) == kind) for kind, _ in kinds.most_common()]

    def verdict(self, recorded: Mapping[int, int] | None = None) -> Verdict:
        """
        Args:
            recorded: attempts that were certainly recorded although no driver logged them, by trial.
        """
        trials = {trial.number: trial for trial in self.trials()}
        if sorted(trials) != list(range(len(trials))):
            raise AssertionError(f"the numbers have gaps: {sorted(trials)}")
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        confirmed = Counter(int(line.split()[0]) for line in lines)
        held = {f"{trial.number} {trial.state} {trial.score!r}" for trial in trials.values()}
        again = sum(trials[number].attempts != attempt for number, attempt in (recorded or {}).items())
        return Verdict(
            asked=self.num_trials,
            ended=sum(trial.state.ended for trial in trials.values()),
            failed=sum(trial.state is TrialState.FAILED for trial in trials.values()),
            repeated=sum(trial.attempts - 1 for trial in trials.values()),
            lost=len(set(lines) - held),
            duplicated=sum(count > 1 for count in confirmed.values()) + again,
            messages=self.messages(),
        )


def with_store(url: str, use: Callable[[Store], T]) -> T:
    """Open the store for one use only, so that the harness never interferes with a fault."""
    store = open_store(url)
    try:
        return use(store)
    finally:
        store.close()
