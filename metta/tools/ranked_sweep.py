"""A whole sweep under torchrun: rank 0 drives it, and every rank trains in each of its trials.

    torchrun --nproc-per-node=4 ./tools/run.py experiments.sweep_arena.sweep_optimizer --args sweep_name=mine

Rank 0 announces each trial through the store of the launcher, as JSON; the others run it too, and say there how it
ended. A trial that fails on one rank fails on all. A rank that dies ends the run: torchrun ends the others, and the
same command goes on with the sweep.
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
from metta.sweep.trial import Report, RunTrial, TrialResult, TrialSpec

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

RETURN_SECONDS = 360.0
"""How long rank 0 waits for the others to be done with a trial; longer than a collective of theirs may take."""

_LISTEN_SECONDS = 0.05
_END = "end"


class LeadingExecutor(InlineExecutor):
    """Runs each attempt in this process, rank 0, and has the other ranks run it too."""

    def __init__(self) -> None:
        super().__init__(self._load)
        self.resources = f"on {os.environ['WORLD_SIZE']} ranks together, one at a time"
        self._store = _channel()
        self._announced = 0

    def close(self) -> None:
        super().close()
        self._announce(_END)

    def _load(self, tool_class: str) -> RunTrial:
        run_here = load_run_trial(tool_class)

        def run_on_all(spec: TrialSpec, report: Report) -> TrialResult:
            from metta.rl.launch import RankFailedError
            from metta.rl.ranks import RankLostError

            number = self._announce(to_json(spec))
            try:
                with named_group(f"trial {number}"):
                    result = run_here(spec, report)
            except RankLostError as error:
                raise RankFailedError(self._failure_elsewhere(number) or str(error)) from error
            except Exception:
                self._failure_elsewhere(number)  # the others are done with the trial before the next begins
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
        """Wait until the other ranks are done with what was announced, and say how the first of them failed."""
        keys = [f"ended {number} {rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]
        self._store.wait(keys, timedelta(seconds=RETURN_SECONDS))
        endings = {rank: self._store.get(key).decode() for rank, key in enumerate(keys, start=1)}
        failures = [f"rank {rank} failed:\n{ending}" for rank, ending in endings.items() if ending]
        return min(failures, key=lambda failure: "RankLostError" in failure, default=None)


def follow() -> int:
    """Run the trials that rank 0 announces, until it ends the sweep, and return an exit status."""
    store, rank = _channel(), os.environ["RANK"]
    number = 0
    while (message := _listen(store, f"trial {number}")) != _END:
        spec, ending = from_json(TrialSpec, message), ""
        try:
            with named_group(f"trial {number}"):
                load_run_trial(spec.tool_class)(spec, lambda progress: True)
        except Exception:
            ending = traceback.format_exc()
        store.set(f"ended {number} {rank}", ending)
        number += 1
    return 0


def _channel() -> Store:
    """Where rank 0 and the others leave messages for each other."""
    return launcher_store("sweep")


def _listen(store: Store, key: str) -> str:
    """Wait for a message, however long rank 0 evaluates. If that dies, torchrun ends this process."""
    while not store.check([key]):
        time.sleep(_LISTEN_SECONDS)
    return store.get(key).decode()
