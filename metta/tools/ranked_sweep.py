"""A whole sweep under torchrun: rank 0 drives it, and all ranks train together in each trial.

    torchrun --nproc-per-node=4 ./tools/run.py experiments.sweep_arena.sweep_optimizer --args sweep_name=mine

Rank 0 announces each trial as JSON in the launcher's store. The other ranks run it too, and write their results there.
A trial that fails on one rank fails on all ranks. If a rank dies, torchrun ends the others, and the same command
resumes the sweep.
"""

from __future__ import annotations

import os
import time
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING

from metta.rl.launch import launcher_store, named_group
from metta.sweep.executor.attempt import load_run_trial
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.messages import from_json, to_json
from metta.sweep.trial import PeerLostError, Report, RunTrial, TrialResult, TrialSpec, lost_a_peer

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

RETURN_SECONDS = 360.0
"""How long rank 0 waits for the others to end a trial; longer than the timeout of their collectives."""

_POLL_SECONDS = 0.05
_END = "end"


class LeadingExecutor(InlineExecutor):
    """Runs each attempt in this process, rank 0, while the other ranks run it too."""

    def __init__(self) -> None:
        super().__init__(self._load)
        self.resources = f"on {os.environ['WORLD_SIZE']} ranks together, one at a time"
        self._store = _message_store()
        self._announced = 0

    def close(self) -> None:
        super().close()
        self._announce(_END)

    def _load(self, tool_class: str) -> RunTrial:
        run_here = load_run_trial(tool_class)

        def run_on_all(spec: TrialSpec, report: Report) -> TrialResult:
            from metta.rl.launch import RankFailedError

            number = self._announce(to_json(spec))
            try:
                with named_group(f"trial {number}"):
                    result = run_here(spec, report)
            except PeerLostError as error:
                raise RankFailedError(self._failure_elsewhere(number) or str(error)) from error
            except Exception:
                self._failure_elsewhere(number)  # waits until the others have ended the trial
                raise
            if failure := self._failure_elsewhere(number):
                raise RankFailedError(failure)
            return result

        return run_on_all

    def _announce(self, message: str) -> int:
        self._store.set(f"trial {self._announced}", message)
        self._announced += 1
        return self._announced - 1

    def _failure_elsewhere(self, number: int) -> str | None:
        """Wait until the other ranks have ended the announced trial, and return the first failure, or None."""
        keys = [f"ended {number} {rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]
        self._store.wait(keys, timedelta(seconds=RETURN_SECONDS))
        endings = {rank: self._store.get(key).decode() for rank, key in enumerate(keys, start=1)}
        failures = [f"rank {rank} failed:\n{ending}" for rank, ending in endings.items() if ending]
        return min(failures, key=lost_a_peer, default=None)


def follow() -> int:
    """Run the trials that rank 0 announces until it ends the sweep, and return an exit status."""
    store, rank = _message_store(), os.environ["RANK"]
    number = 0
    while (message := _next_message(store, f"trial {number}")) != _END:
        spec, ending = from_json(TrialSpec, message), ""
        try:
            with named_group(f"trial {number}"):
                load_run_trial(spec.tool_class)(spec, lambda progress: True)
        except Exception:
            ending = traceback.format_exc()
        store.set(f"ended {number} {rank}", ending)
        number += 1
    return 0


def _message_store() -> Store:
    """The store in which the ranks exchange messages."""
    return launcher_store("sweep")


def _next_message(store: Store, key: str) -> str:
    """Wait for a message, without a timeout, because evaluations are long. If rank 0 dies, torchrun ends this rank."""
    while not store.check([key]):
        time.sleep(_POLL_SECONDS)
    return store.get(key).decode()
