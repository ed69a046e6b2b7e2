"""Processes that end with their parent: the parent holds the other end of a pipe, which closes when it ends.

As a program, ``python -I -S parent.py COMMAND...`` runs a command in this process's group, and kills the whole group
when standard input closes. The exit status is the command's, 128 plus the signal's number if a signal ended it, or 127
if it could not be started. Only the standard library is imported, because ``-S`` hides all other packages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress


def kill_group() -> None:
    """Kill every process of this process's group, this one included."""
    os.killpg(0, signal.SIGKILL)


def when_parent_ends(wait: Callable[[], object], act: Callable[[], object] = kill_group) -> None:
    """Act in a separate thread when the parent has ended, even if this process is busy.

    Args:
        wait: reads the pipe from the parent; it returns, or raises EOFError or OSError, when the pipe is closed.
        act: what to do.
    """

    def watch() -> None:
        with suppress(EOFError, OSError):
            wait()
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(command: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the command receives them too, and does not inherit handlers
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    when_parent_ends(_read_input)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _read_input() -> None:
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
