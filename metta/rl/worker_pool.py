"""Processes that answer requests of this one, and end with it.

They are forked from a server that has imported their modules, so the import takes its second once and not at every
start.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Self

from metta.rl.processes import interrupts_blocked

Worker = Callable[[bytes], Any]
"""Answers a request."""

_CLOSE_SECONDS = 5.0


class WorkerError(RuntimeError):
    """A worker process raised (its traceback is in the message) or died."""


class WorkerPool:
    """One process for each worker; a request goes to all of them.

    Args:
        make: makes a worker in its process. A function or class of a module that does not import torch, so that the
            processes start quickly and stay small.
        arguments: of `make`, for each worker.
        name: of the processes.
    """

    def __init__(self, make: Callable[..., Worker], arguments: Sequence[tuple[Any, ...]], name: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([make.__module__])
        self._workers: list[tuple[ForkServerProcess, Connection]] = []
        with interrupts_blocked():  # Ctrl-C at the terminal also reaches workers; only this process handles it
            for number, own in enumerate(arguments):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, make, own), daemon=True, name=f"{name}-{number}")
                process.start()
                theirs.close()
                self._workers.append((process, ours))

    def send(self, request: bytes) -> None:
        """Send a request to all workers.

        Raises:
            WorkerError: one has died.
        """
        for number, (_, connection) in enumerate(self._workers):
            try:
                connection.send_bytes(request)
            except OSError:
                self._raise_dead(number)

    def receive(self) -> list[Any]:
        """Wait for the answers to the oldest request that has none. The first answers, of None, say that they started.

        Raises:
            WorkerError: a worker raised or died.
        """
        answers = []
        for number, (_, connection) in enumerate(self._workers):
            try:
                answer, error = connection.recv()
            except (EOFError, OSError):
                self._raise_dead(number)
            if error is not None:
                raise WorkerError(f"an environment failed in worker process {number}:\n{error}")
            answers.append(answer)
        return answers

    def close(self) -> None:
        """End the workers."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join(_CLOSE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _raise_dead(self, number: int) -> None:
        process = self._workers[number][0]
        process.join(_CLOSE_SECONDS)
        code = process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        raise WorkerError(f"worker process {number}, which steps environments, died: {how}") from None


def _serve(connection: Connection, make: Callable[..., Worker], arguments: tuple[Any, ...]) -> None:
    """Main function of a worker process: answer requests until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer = make(*arguments)
        connection.send((None, None))
        while True:
            connection.send((answer(connection.recv_bytes()), None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send((None, traceback.format_exc()))
