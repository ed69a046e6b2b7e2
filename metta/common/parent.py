"""Processes that end with their parent: the parent holds the other end of a pipe, which closes when it ends.

As a program, ``python -I -S parent.py COMMAND...`` runs a command in this process's group. When the command ends, or
standard input closes, it ends everything that the command started: on Linux every descendant, because orphans become
children of this process (a "child subreaper"), and elsewhere the process group. The exit status is the command's, 128
plus the signal's number if a signal ended it, or 127 if it could not be started. Only the standard library is imported,
because ``-S`` hides all other packages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.01


_END_SECONDS = 15.0
"""How long a supervisor may take to kill what is left of its command."""


def supervised(command: Sequence[str]) -> list[str]:
    """The command that runs another one under the supervision of this module, to be started with a pipe as input."""
    return [sys.executable, "-I", "-S", __file__, *command]


def end(supervisor: subprocess.Popen[bytes]) -> int:
    """End a supervised command with everything that it started, and return the exit status."""
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        supervisor.wait(_END_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(supervisor.pid, signal.SIGKILL)
    return supervisor.wait()


def describe(status: int) -> str:
    """An exit status in words, such as ``exit status 139 (SIGSEGV)``."""
    number = status - 128 if status > 128 else -status
    with suppress(ValueError):
        return f"exit status {status} ({signal.Signals(number).name})"
    return f"exit status {status}"


def kill_group() -> None:
    """Kill every process of this process's group, including this one."""
    os.killpg(0, signal.SIGKILL)


def when_parent_ends(wait: Callable[[], object], act: Callable[[], object] = kill_group) -> None:
    """Act in a separate thread when the parent has ended, even if this process is busy.

    Args:
        wait: reads the pipe from the parent; it returns, or raises EOFError or OSError, when the pipe is closed.
        act: the function to call.
    """

    def watch() -> None:
        with suppress(EOFError, OSError):
            wait()
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(command: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the command receives them too, and does not inherit handlers
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # if SIGCHLD were ignored (it may be inherited), exit statuses would be lost
    _adopt_orphans()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)  # pipes may be meant for it
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    abandoned = threading.Event()

    def abandon() -> None:
        abandoned.set()
        _kill_descendants()
        kill_group()

    when_parent_ends(_read_input, abandon)
    status = _wait(child.pid)
    while status is None or abandoned.is_set():
        time.sleep(1.0)  # the other thread ends this process when it has no descendants
    _kill_descendants()
    return status


def _adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends. Only Linux supports this."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait(pid: int) -> int | None:
    """The exit status of a child. Orphans that were adopted and have ended are reaped on the way.

    None if the other thread reaped it.
    """
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return None
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _kill_descendants() -> None:
    """Kill every descendant of this process, including those in other sessions. Does nothing outside Linux.

    This process becomes the parent of a killed process's children, so the tree is walked again until it is empty. After
    some seconds it gives up on a process that the system cannot kill, because it waits for a disk or a device.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while (below := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in below:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants(root: int) -> list[int]:
    """The processes below `root` that have not ended, as /proc shows them.

    Also those below a zombie: a process whose first thread has ended is one while its other threads end, and until then
    it keeps its children.
    """
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        with suppress(OSError, ValueError):
            with open(f"/proc/{int(name)}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]  # a name may contain spaces and brackets
            children.setdefault(int(parent), []).append(int(name))
            if state == b"Z":
                zombies.add(int(name))
    below: list[int] = []
    left = [root]
    while left:
        found = children.get(left.pop(), [])
        below += [pid for pid in found if pid not in zombies]
        left += found
    return below


def _read_input() -> None:
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
