"""Run a program as a process group: read its output by lines, end it on time, and end all processes it started."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import selectors
import signal
import subprocess
import termios
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from metta.common import parent
from metta.common.text import UTF_8, encoding_of

LONGEST_LINE = 1_000_000  # bytes; longer lines are not read as metrics
TOO_LONG = b"a line that was too long"
TERMINATION_SECONDS = 5.0
"""How long a program may take to end after SIGTERM, before SIGKILL."""
_POLL_SECONDS = 0.5
_READ_BYTES = 1 << 18
_LINE_END = re.compile(rb"[\r\n]")


class Ending(Enum):
    """Why a program ended."""

    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Exit:
    """How a program ended.

    Attributes:
        status: its exit status; 128 plus the signal's number if a signal ended it.
        ending: why it ended.
        seconds: how long it ran.
    """

    status: int
    ending: Ending
    seconds: float

    def describe(self) -> str:
        return parent.describe(self.status)


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: Path,
    errors: Path,
    on_lines: Callable[[Sequence[bytes]], bool],
    timeout: float | None,
    cwd: Path | None = None,
) -> Exit:
    """Run a program to its end, and always end all of its processes.

    Args:
        command: program and arguments.
        environment: all of its environment variables.
        output, errors: files that its standard output and error are appended to.
        on_lines: called with new lines of its standard output, without their line ends, and at intervals with an
            empty list while there are none; returns whether to continue. A carriage return also ends a line. A line
            longer than `LONGEST_LINE` is replaced by `TOO_LONG`.
        timeout: the maximum running time in seconds.
        cwd: the folder that it runs in; by default that of this process.
    """
    with output.open("ab") as log, errors.open("ab") as error_log:
        process = subprocess.Popen(
            parent.supervised(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=error_log,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
        started = time.monotonic()
        lines = _Lines()
        try:
            ending = Ending.EXITED
            for data in _output(process):
                if data:
                    log.write(data)
                    log.flush()
                if not on_lines(lines.add(data)):
                    ending = Ending.STOPPED
                elif timeout is not None and time.monotonic() - started > timeout:
                    ending = Ending.TIMED_OUT
                if ending is not Ending.EXITED:
                    _terminate(process)
                    _end(process)
                    break
            if ending is Ending.EXITED and (rest := lines.rest()):
                on_lines([rest])
            status = process.wait()
            return Exit(status, ending, time.monotonic() - started)
        finally:
            _end(process)


class _Lines:
    """Splits output into lines in UTF-8."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        self._in_utf_8: Callable[[bytes], bytes] | None = None

    def add(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        if not data:
            return []
        if self._in_utf_8 is None:
            self._in_utf_8 = _transcoder(encoding_of(data))
        *whole, self._rest = _LINE_END.split(self._rest + self._in_utf_8(data))
        if whole and self._skipping:
            whole[0], self._skipping = TOO_LONG, False
        if self._skipping or len(self._rest) > LONGEST_LINE:
            self._rest, self._skipping = b"", True
        return whole

    def rest(self) -> bytes:
        """The output after the last line end."""
        return TOO_LONG if self._skipping else self._rest


def _transcoder(encoding: str) -> Callable[[bytes], bytes]:
    """A function that converts successive parts of a text to UTF-8."""
    if encoding == UTF_8:
        return bytes
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return lambda data: decoder.decode(data).encode("utf-8", "replace")


def _output(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """The output of a program as it is written, and b"" at intervals while there is none, until the program has ended.

    Output from before its end is read completely; later output of other processes in the same pipe is not read.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while process.poll() is None:
            if not selector.select(_POLL_SECONDS):
                yield b""
            elif data := os.read(descriptor, _READ_BYTES):
                yield data
            else:  # it closed its output
                break
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        yield b""
    with suppress(BlockingIOError):
        left = _bytes_waiting(descriptor)
        while left > 0 and (data := os.read(descriptor, min(left, _READ_BYTES))):
            left -= len(data)
            yield data


def _bytes_waiting(descriptor: int) -> int:
    """How many bytes can be read from a pipe at once."""
    count = array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Ask the program to end, and wait some seconds for it."""
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(TERMINATION_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all remaining processes."""
    assert process.stdout is not None
    parent.end(process)
    process.stdout.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
