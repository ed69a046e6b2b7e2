"""Run a command in this process's group, and end the whole group when standard input closes.

Whoever starts this holds the other end of standard input, so that the command ends with it however it ends. The exit
status is the command's; 128 and the signal's number if a signal ended it, 127 if it could not be started.

Only the standard library: it runs on its own, isolated, as ``python -I -S supervise.py COMMAND...``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # those are for the command, which does not inherit a handler
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=_follow, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _follow() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
