"""Processes that play an evaluation's episodes, including this one."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Self

from metta.rl.processes import interrupts_blocked
from metta.sim.episodes import Episode, Group, Player, play

_CLOSE_SECONDS = 5.0


class PlayerError(RuntimeError):
    """A process that played raised (its traceback is in the message) or died."""


class Players:
    """Plays groups of episodes on several cores.

    Example:
        >>> with Players(player, cores=2) as players:
        ...     episodes = players.play(groups, deadline=math.inf)

    Args:
        player: the policy; picklable if there is more than one core.
        cores: processes that play, at least 1. This process is one of them.
    """

    def __init__(self, player: Player, cores: int) -> None:
        self._player = player
        pickled = pickle.dumps(player) if cores > 1 else b""  # by value: torch would share each tensor as a file
        self._others = [_PlayerProcess(pickled, number) for number in range(1, cores)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for other in self._others:
            other.close()

    def play(self, groups: Sequence[Group], deadline: float) -> list[Episode]:
        """Play the groups, and return the episodes that ended before the deadline, in the order of the groups.

        Raises:
            PlayerError: another process failed.
        """
        number = len(self._others) + 1
        for index, other in enumerate(self._others, start=1):
            other.send(groups[index::number], deadline)
        played = [[play(self._player, group, deadline) for group in groups[::number]]]
        played += [other.receive() for other in self._others]
        return [episode for index in range(len(groups)) for episode in played[index % number][index // number]]


class _PlayerProcess:
    """Another process that plays, and the pipe to it."""

    def __init__(self, pickled: bytes, number: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["metta.rl.trainer"])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, pickled), name=f"player-{number}", daemon=True)
        with interrupts_blocked(), theirs:  # Ctrl-C at the terminal also reaches it; only this process handles that
            self._process.start()

    def send(self, groups: Sequence[Group], deadline: float) -> None:
        with suppress(OSError):  # it has died, which `receive` reports
            self._connection.send((groups, deadline))

    def receive(self) -> list[list[Episode]]:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_CLOSE_SECONDS)
            raise PlayerError(f"{self._process.name} died: exit status {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise PlayerError(f"{self._process.name} failed:\n{answer}")
        played: list[list[Episode]] = answer
        return played

    def close(self) -> None:
        """End it at once."""
        self._connection.close()
        self._process.kill()
        self._process.join()


def _work(connection: Connection, pickled: bytes) -> None:
    """Main function of another process: play the groups from the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    player: Player = pickle.loads(pickled)  # from the process that started this one
    for groups, deadline in _received(connection):
        try:
            connection.send([play(player, group, deadline) for group in groups])
        except Exception:
            connection.send(traceback.format_exc())


def _received(connection: Connection) -> Iterator[tuple[Sequence[Group], float]]:
    with suppress(EOFError, OSError):
        while True:
            yield connection.recv()
