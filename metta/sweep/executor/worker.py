"""A worker process: runs the attempts that its driver sends, one after the other, and keeps imported modules.

    python -m metta.sweep.executor.worker DESCRIPTOR

`LocalExecutor` starts it under a supervisor, with one end of a pipe as DESCRIPTOR. The driver sends ``run``
and a spec, or ``stop``; the worker sends ``progress`` and, in the end, ``result``. When the pipe closes, the driver
has ended, and the worker ends; its supervisor ends the processes that it started.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from metta.common.parent import when_parent_ends
from metta.sweep.executor.attempt import run_attempt_apart
from metta.sweep.executor.messages import to_json
from metta.sweep.trial import Progress

RUN, STOP, PROGRESS, RESULT = b"run", b"stop", b"progress", b"result"


def pack(kind: bytes, body: str = "") -> bytes:
    """One message: its kind, a space, and JSON."""
    return kind + b" " + body.encode()


def unpack(message: bytes) -> tuple[bytes, bytes]:
    """The kind and the JSON of a message."""
    kind, _, body = message.partition(b" ")
    return kind, body


def main(descriptor: int) -> None:
    os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    connection = Connection(descriptor)
    specs: SimpleQueue[bytes] = SimpleQueue()
    outbox: SimpleQueue[bytes] = SimpleQueue()
    stop = threading.Event()
    when_parent_ends(lambda: _listen(connection, specs, stop), lambda: os._exit(1))
    threading.Thread(target=_send, args=(connection, outbox), daemon=True).start()

    def report(progress: Progress) -> bool:
        outbox.put(pack(PROGRESS, to_json(progress)))
        return not stop.is_set()

    while True:
        outbox.put(pack(RESULT, run_attempt_apart(specs.get(), report)))


def _listen(connection: Connection, specs: SimpleQueue[bytes], stop: threading.Event) -> None:
    while True:
        kind, body = unpack(connection.recv_bytes())
        if kind == RUN:
            stop.clear()
            specs.put(body)
        elif kind == STOP:
            stop.set()


def _send(connection: Connection, outbox: SimpleQueue[bytes]) -> None:
    """Send from a thread, so that a busy driver does not delay the training."""
    while True:
        connection.send_bytes(outbox.get())


if __name__ == "__main__":
    main(int(sys.argv[1]))
