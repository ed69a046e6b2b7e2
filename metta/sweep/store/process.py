"""The identity of a driver's process, so that a later driver on the same machine can detect that it died."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, distinguished from all others that had or will have its pid.

    Attributes:
        host: name of the machine, for display.
        pid: the process ID.
        boot: identifies one boot of one machine and one pid namespace in it. Pids and the monotonic clock can be
            compared only within it. It is empty if the system has no /proc, and then only the lease counts.
        started: when the process started, in clock ticks since boot.
    """

    host: str
    pid: int
    boot: str
    started: str

    def is_here(self) -> bool:
        """Whether the process belongs to this boot and pid namespace, so that it can be judged from here."""
        return bool(self.boot) and self.boot == _boot()

    def has_died(self) -> bool:
        """Whether the process has certainly ended."""
        if not self.is_here():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        state_and_start = _state_and_start(self.pid)
        if state_and_start is None:  # /proc may hide the processes of other users
            return False
        state, started = state_and_start
        return state in "ZX" or started != self.started


def this_process() -> Process:
    state_and_start = _state_and_start(os.getpid())
    return Process(
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=_boot() if state_and_start else "",
        started=state_and_start[1] if state_and_start else "",
    )


@cache
def _boot() -> str:
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot_id} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Fields 3 and 22 of /proc/PID/stat, see proc(5). Field 2, the command, may contain spaces and brackets."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]
