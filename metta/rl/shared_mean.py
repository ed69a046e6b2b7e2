"""The mean over processes of one machine, through shared memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**20
"""Numbers that a process shares at a time."""
_CHECK_SECONDS = 0.5
"""How often a waiting process checks that the others are alive."""


class SharedMean:
    """Averages values over processes. For gradients on a CPU.

    Gloo sends through sockets: averaging a gradient of 0.8 MB takes it longer than computing the gradient.

    Two buffers alternate. Each process has a semaphore, which every other process releases when it has written. The
    first process to end a round has received a release from all others for each round, and no process can be a round
    ahead of it. So when any process ends a round, all have written that round and read the one before.

    Args:
        context: starts the other processes, which get this object as an argument.
        size: number of processes.
    """

    def __init__(self, context: ForkServerContext, size: int) -> None:
        self._size = size
        self._memory = context.RawArray("f", 2 * size * CHUNK)
        self._written = [context.Semaphore(0) for _ in range(size)]
        self._round = 0

    def average(self, values: Tensor, rank: int, timeout: float, others_live: Callable[[], bool]) -> None:
        """Replace float32 values [n] by their mean over all processes. All of them call this.

        Args:
            rank: number of this process, from 0.
            timeout: seconds to wait for the others.
            others_live: whether the other processes are alive, so that waiting makes sense.

        Raises:
            TimeoutError: another process did not write in time, or is dead.
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
            while not self._written[rank].acquire(timeout=_CHECK_SECONDS):
                if time.monotonic() > deadline or not others_live():
                    raise TimeoutError("it did not answer")
