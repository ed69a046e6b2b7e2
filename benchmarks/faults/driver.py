"""One driver of a sweep of tiny trials: the real loop and store, and a ledger of trials confirmed as recorded."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from metta.common.errors import UserError
from metta.sweep.definition import SweepDefinition
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.local import LocalExecutor
from metta.sweep.executor.protocol import Executor
from metta.sweep.executor.resources import Share
from metta.sweep.signals import stops_are_interrupts
from metta.sweep.state import SweepState
from metta.sweep.store import open_store, process
from metta.sweep.store.journal import bring_in_journals
from metta.sweep.store.protocol import Attempt, Store
from metta.sweep.sweep import SweepLoop
from metta.sweep.trial import Progress, Trial, TrialSpec
from metta.sweep.wandb.config import WandbConfig
from metta.sweep.wandb.mirror import mirrored
from tests.support.parabola import prepare_parabola

SWEEP = "faults"
_RECORDING_SECONDS = 0.02


class LedgerView:
    """Writes a line for each trial that the store has confirmed as ended; each line is written atomically."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def notice(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def started(self, attempt: Attempt) -> None: ...

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None:
        os.write(self._ledger, f"{trial.number} {trial.state} {trial.score!r}\n".encode())


def unharmed(store: Store) -> None:
    """Change nothing of the store."""


def drive(
    url: str,
    ledger: Path,
    machine: str | None = None,
    project: str | None = None,
    num_workers: int | None = None,
    harm: Callable[[Store], None] = unharmed,
) -> int:
    """Work on the sweep until it is complete; return the exit status.

    Args:
        url: URL of the store.
        ledger: file to append to.
        machine: pretend to run on a different machine from the other drivers, so that only leases show which are alive.
        project: project of Weights & Biases, to mirror the sweep in.
        num_workers: worker processes to run trials in; by default trials run in this process.
        harm: changes the store that the driver opened.
    """
    if machine is not None:
        process._boot = lambda: machine  # type: ignore[assignment]
    try:
        runs = ledger.parent / "runs"
        folder = runs / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        store = open_store(url)
        harm(store)
        bring_in_journals(store, SWEEP, runs, lambda message: print(message, file=sys.stderr, flush=True))
        definition = SweepDefinition.model_validate(store.sweep(SWEEP).config)
        executor: Executor = LocalExecutor([Share(threads=1)] * num_workers) if num_workers else InlineExecutor()

        def prepare(attempt: Attempt) -> TrialSpec:
            return replace(prepare_parabola(definition, attempt), run_dir=str(ledger.parent / f"{attempt.number}"))

        view = LedgerView(ledger)
        loop = SweepLoop(SWEEP, definition, store, executor, prepare, view, exclusive=False, folder=folder)
        mirror = mirrored(url, SWEEP, WandbConfig(project=project), view.notice) if project else nullcontext()
        with stops_are_interrupts(), closing(executor), mirror:
            loop.run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def die_at_end(moment: str, deaths: Path, store: Store) -> None:
    """Make one trial in four kill this process, and log the death.

    It dies "before" the end of the trial is recorded, "after" it, or within the 20 ms "during" which it is recorded.
    """
    end = store.end

    def die(attempt: Attempt) -> None:
        with deaths.open("a") as file:
            file.write(f"{attempt.number} {attempt.attempt}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def ends(attempt: Attempt, *arguments: Any, **options: Any) -> Any:
        dies = random.random() < 0.25
        if dies and moment == "before":
            die(attempt)
        if dies and moment == "during":
            threading.Timer(random.uniform(0.0, _RECORDING_SECONDS), die, [attempt]).start()
        answer = end(attempt, *arguments, **options)
        if dies and moment == "after":
            die(attempt)
        return answer

    store.end = ends  # type: ignore[method-assign]


def drive_process(url: str, ledger: Path, log: Path, harm: Callable[[Store], None]) -> None:
    """`drive` as the target of a separate process, which writes the messages to a user into `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(drive(url, ledger, harm=harm))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--machine")
    parser.add_argument("--project")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    sys.exit(drive(options.url, options.ledger, options.machine, options.project, options.workers))
