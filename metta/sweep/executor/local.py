"""Trials in worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait as wait_for
from pathlib import Path

from metta.common import parent
from metta.sweep.executor import worker as worker_module
from metta.sweep.executor.attempt import log_path
from metta.sweep.executor.messages import from_json, to_json
from metta.sweep.executor.protocol import Finished
from metta.sweep.executor.resources import Share
from metta.sweep.executor.worker import PROGRESS, RUN, STOP, pack, unpack
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

LOOK_SECONDS = 1.0
"""How often to check that workers are alive: processes that they started may keep the pipe of a dead one open."""

GRACE_SECONDS = 5.0


class LocalExecutor:
    """Runs each attempt in a worker process, which is kept for the next one. A worker that dies costs one attempt.

    Workers run in separate sessions, so Ctrl-C at the terminal reaches only the driver. They end when the driver dies
    for any reason, and so do the processes that they started: each has a supervisor, see `metta.common.parent`.

    Args:
        shares: the share of the machine for each worker.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = list(shares)
        self._workers: dict[int, _Worker] = {}
        self._running: dict[int, tuple[TrialSpec, Report]] = {}
        self._finished: deque[Finished] = deque()

    @property
    def slots(self) -> int:
        return len(self._shares)

    @property
    def resources(self) -> str:
        threads = max(share.threads for share in self._shares)
        gpus = sorted({gpu for share in self._shares for gpu in share.gpus})
        on_gpus = f", on GPU {', '.join(gpus)}" if gpus else ""
        return f"{self.slots} worker processes, {threads} CPU thread{'s' * (threads > 1)} each{on_gpus}"

    def submit(self, spec: TrialSpec, report: Report) -> None:
        free = [slot for slot in range(self.slots) if slot not in self._running]
        slot = min(free, key=lambda slot: slot not in self._workers)
        if slot in self._workers and self._workers[slot].process.poll() is not None:
            self._workers.pop(slot).kill()
        if slot not in self._workers:
            self._workers[slot] = _Worker(self._shares[slot], log_path(spec))
        self._running[slot] = (spec, report)
        self._workers[slot].send(pack(RUN, to_json(spec)))

    def wait(self, timeout: float | None = None) -> Finished | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._finished and self._running:
            left = LOOK_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            slots = {self._workers[slot].connection: slot for slot in self._running}
            ready = wait_for(slots, min(left, LOOK_SECONDS))
            for slot in [slots[connection] for connection in slots if connection in ready]:
                self._read(slot)
            if not ready:
                for slot in [slot for slot in self._running if self._workers[slot].process.poll() is not None]:
                    self._lose(slot)
            if deadline is not None and time.monotonic() >= deadline:
                break
        return self._finished.popleft() if self._finished else None

    def cancel(self, number: int) -> None:
        for slot in [slot for slot, (spec, _) in self._running.items() if spec.number == number]:
            del self._running[slot]
            self._workers.pop(slot).kill()

    def close(self) -> None:
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()
        self._running.clear()
        self._finished.clear()

    def _read(self, slot: int) -> None:
        try:
            kind, body = unpack(self._workers[slot].connection.recv_bytes())
        except (EOFError, OSError):
            self._lose(slot)
            return
        spec, report = self._running[slot]
        if kind == PROGRESS:
            if not report(from_json(Progress, body)):
                self._workers[slot].send(pack(STOP))
            return
        del self._running[slot]
        self._finished.append(Finished(spec, from_json(TrialResult, body)))

    def _lose(self, slot: int) -> None:
        spec, _ = self._running.pop(slot)
        reason = self._workers.pop(slot).kill(grace=GRACE_SECONDS)
        self._finished.append(Finished(spec, None, f"its worker {reason}; its output is in {log_path(spec)}"))


class _Worker:
    """A worker process and this end of the pipe to it."""

    def __init__(self, share: Share, log: Path) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        with log.open("ab") as output, theirs:
            self.process = subprocess.Popen(
                parent.supervised([sys.executable, "-m", worker_module.__name__, str(theirs.fileno())]),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    **share.environment,
                    "METTA_PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                    "PYTHONPATH": path,
                    "PYTHONUNBUFFERED": "1",
                },
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def send(self, message: bytes) -> None:
        """Send. If the worker is dead, the next read finds out."""
        with suppress(OSError):
            self.connection.send_bytes(message)

    def kill(self, grace: float = 0.0) -> str:
        """End the worker with every process that it started, and return how it ended.

        Args:
            grace: seconds to wait for a worker that is already ending.
        """
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        status = parent.end(self.process)
        self.connection.close()
        return f"ended with {parent.describe(status)}"
