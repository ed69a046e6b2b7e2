"""The mean over processes of one machine, through memory that they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**20
"""Numbers that a process shares at a time."""
_LOOK_SECONDS = 0.5
"""How often a process that waits looks whether the others live."""


class SharedMean:
    """What each of some processes has, averaged over them. For gradients on a CPU.

    A gradient of 0.8 MB takes gloo, which sends it through sockets, longer than it takes to compute.

    There are two buffers, used by turns, and a semaphore for each process, which every other one raises when it has
    written. The first process to end a round has heard from all others as often as there were rounds, and nobody
    can be a round ahead of it; so when any process ends a round all have written theirs and read the one before.

    Args:
        context: that the other processes are started with; they are given this object as an argument.
        size: how many processes there are.
    """

    def __init__(self, context: ForkServerContext, size: int) -> None:
        self._size = size
        self._memory = context.RawArray("f", 2 * size * CHUNK)
        self._written = [context.Semaphore(0) for _ in range(size)]
        self._round = 0

    def average(self, values: Tensor, rank: int, timeout: float, others_live: Callable[[], bool]) -> None:
        """Replace float32 values [n] by their mean over all processes, each of which calls this.

        Args:
            rank: number of this process, from 0.
            timeout: seconds to wait for the others.
            others_live: whether it is worth waiting.

        Raises:
            TimeoutError: the others did not come in time, or do not live.
        """
        buffers = torch.from_numpy(np.frombuffer(self._memory, np.float32).reshape(2, self._size, CHUNK))
        for part in torch.split(values.detach(), CHUNK):
            buffer = buffers[self._round % 2, :, : len(part)]
            self._round += 1
            buffer[rank] = part
            for other in range(self._size):
                if other != rank:
                    self._written[other].release()
            self._await_others(rank, timeout, others_live)
            torch.add(buffer[0], buffer[1], out=part)
            for other in range(2, self._size):
                part += buffer[other]
            part /= self._size

    def _await_others(self, rank: int, timeout: float, others_live: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout
        for _ in range(self._size - 1):
            while not self._written[rank].acquire(timeout=_LOOK_SECONDS):
                if time.monotonic() > deadline or not others_live():
                    raise TimeoutError("it was not heard of")
