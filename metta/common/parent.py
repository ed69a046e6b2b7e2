"""Processes that end with the one that started them: the parent holds the other end of a pipe, which closes with it.

As a program, ``python -I -S parent.py COMMAND...`` runs a command in this process's group, and ends the whole group
when standard input closes. The exit status is the command's; 128 and the signal's number if a signal ended it, 127 if
it could not be started. Therefore this imports nothing but the standard library.
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
    """Kill this process with every process of its group."""
    os.killpg(0, signal.SIGKILL)


def when_parent_ends(wait: Callable[[], object], act: Callable[[], object] = kill_group) -> None:
    """Act from a thread of its own when the parent has ended, whatever this process is doing then.

    Args:
        wait: reads the pipe from the parent; it returns, or raises EOFError or OSError, when that is closed.
        act: what to do then.
    """

    def watch() -> None:
        with suppress(EOFError, OSError):
            wait()
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(command: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # those are for the command, which does not inherit a handler
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
