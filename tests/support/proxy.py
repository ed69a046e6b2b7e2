"""A TCP proxy on loopback that can cut, stall, or lose just the answer to a commit."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards connections to `target_port` of this machine. `commits_lost` counts the answers that were swallowed."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._flowing = threading.Event()
        self._flowing.set()
        self._commits_until_loss = -1
        self.commits_lost = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = self._listen(0)
        self.port = int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until `heal`."""
        # Only a shutdown wakes the thread that waits in accept; a closed socket would still take one connection more.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                _reset(end)
        self._pairs.clear()

    def heal(self) -> None:
        self._listener = self._listen(self.port)

    def stall(self) -> None:
        """Hold back every byte until `resume`."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def lose_next_commit(self, skip: int = 0) -> None:
        """Let the server have the next COMMIT after `skip` others, but cut the connection in place of its answer."""
        self._commits_until_loss = skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.resume()
        self.cut()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # cut
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:  # the server is away
                _reset(client)
                continue
            self._pairs.append((client, server))
            swallow = threading.Event()
            for source, sink, upward in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, upward, swallow), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upward: bool, swallow: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                self._flowing.wait()
                if upward and b"COMMIT" in data and self._commits_until_loss >= 0:
                    if self._commits_until_loss == 0:
                        swallow.set()
                    self._commits_until_loss -= 1
                if not upward and swallow.is_set():
                    self.commits_lost += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        _reset(source)
        _reset(sink)


def _reset(end: socket.socket) -> None:
    """Close with a reset, as a firewall or a crash would."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
