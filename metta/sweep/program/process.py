"""Run a program as a group of processes: read its output by lines, end it on time, and with it all that it started."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from metta.common import parent

LONGEST_LINE = 1_000_000  # bytes; a longer line is not read as metrics
TERMINATION_SECONDS = 5.0
"""How long a program may take to end after SIGTERM, before SIGKILL."""
_POLL_SECONDS = 0.5


class Ending(Enum):
    """Why a program ended."""

    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Exit:
    """How a program ended.

    Attributes:
        status: its exit status; 128 and more for the number of the signal that ended it.
        ending: whether it ended by itself.
        seconds: how long it ran.
    """

    status: int
    ending: Ending
    seconds: float

    def describe(self) -> str:
        """``exit status 139 (SIGSEGV)``."""
        with suppress(ValueError):
            return f"exit status {self.status} ({signal.Signals(self.status - 128).name})"
        return f"exit status {self.status}"


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: Path,
    errors: Path,
    on_line: Callable[[bytes], bool],
    timeout: float | None,
) -> Exit:
    """Run a program to its end, and leave none of its processes behind, whatever happens.

    Args:
        command: program and arguments.
        environment: all of its variables.
        output, errors: files that its standard output and error are appended to.
        on_line: called with each line of its standard output; answers whether to continue.
        timeout: seconds that it may run.
    """
    with output.open("ab") as log, errors.open("ab") as error_log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", parent.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=error_log,
            env=dict(environment),
            start_new_session=True,
        )
        started = time.monotonic()
        try:
            ending = Ending.EXITED
            for line in _lines(process):
                log.write(line)
                log.flush()
                if line and ending is Ending.EXITED and not on_line(line):
                    ending = Ending.STOPPED
                elif ending is Ending.EXITED and timeout is not None and time.monotonic() - started > timeout:
                    ending = Ending.TIMED_OUT
                if ending is not Ending.EXITED:
                    _terminate(process)
                    break
            status = process.wait()
            return Exit(status, ending, time.monotonic() - started)
        finally:
            _signal(process, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Lines of its output as they come, and b"" at intervals while none comes, until it has ended."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            read = b""
            if selector.select(0.0 if ended else _POLL_SECONDS):
                read = os.read(descriptor, 65536)
                if not read:  # it closed its output
                    break
            *whole, rest = (rest + read).split(b"\n")
            for line in whole:
                yield line + b"\n"
            if len(rest) > LONGEST_LINE:
                yield rest
                rest = b""
            if not read:
                if ended:
                    break
                yield b""
    if rest:
        yield rest
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        yield b""


def _terminate(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.wait(TERMINATION_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
