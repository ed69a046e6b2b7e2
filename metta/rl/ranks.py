"""Data parallelism: processes that train one policy together, each on its part of the environments.

Each process is a rank. All ranks run the same code on different experience and average their gradients, so that every
rank makes the same step. This module contains the communication of ranks; `metta.rl.launch` starts or finds them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

from metta.common.variables import environment_variables
from metta.rl.shared_mean import SharedMean

Value = TypeVar("Value")

COLLECTIVE_SECONDS = 300.0
"""How long a rank waits for the others before it gives up. A rank that dies is noticed at once, except by NCCL."""


_LOST = "lost"


class RankLostError(RuntimeError):
    """Another rank ended, or did not answer for `COLLECTIVE_SECONDS`."""


def _assume_alive() -> bool:
    return True


@dataclass(frozen=True)
class Ranks:
    """The ranks, as seen by one of them. Every method but `part` is a collective: all ranks call it, in one order.

    Attributes:
        rank: number of this rank; rank 0 leads: it reports, evaluates and writes checkpoints.
        size: number of ranks.
        local_rank: number of this rank among those on this machine, and of its GPU.
        cores: CPU cores that this rank may use.
        shared: averages through shared memory, if all ranks compute on the CPU of one machine; else None.
        others_live: whether the processes of the other ranks are alive, as far as this rank knows.

    Example:
        >>> Ranks(rank=1, size=2).part(16)
        range(8, 16)
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    cores: int = 1
    shared: SharedMean | None = None
    others_live: Callable[[], bool] = _assume_alive

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, number: int) -> range:
        """The items of this rank, if `number` items are divided evenly among all ranks."""
        return range(self.rank * number // self.size, (self.rank + 1) * number // self.size)

    def average(self, values: Tensor) -> Tensor:
        """Replace values, which are contiguous, by their mean over ranks, and return them.

        Raises:
            RankLostError: another rank was lost; every collective raises this.
        """
        if self.size > 1:
            with _lost_ranks_raised():
                if self.shared is None:
                    dist.all_reduce(values)
                    values /= self.size
                else:
                    self.shared.average(values.view(-1), self.rank, COLLECTIVE_SECONDS, self.others_live)
        return values

    def position(self, number: int) -> tuple[int, int]:
        """Where the `number` items of this rank begin among those of all ranks, and how many there are."""
        if self.size == 1:
            return 0, number
        numbers = torch.zeros(self.size)
        numbers[self.rank] = number
        numbers = (self.average(numbers) * self.size).round().to(torch.int64)
        return int(numbers[: self.rank].sum()), int(numbers.sum())

    def any(self, condition: bool) -> bool:
        """Whether the condition holds on any rank. Faster than `broadcast`, for checks in every update."""
        return self.average(torch.tensor([float(condition)])).item() > 0

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        gathered: list[Value | None] = [None] * self.size
        with _lost_ranks_raised():
            dist.all_gather_object(gathered, value)
        return cast(list[Value], gathered)

    def broadcast(self, value: Value) -> Value:
        """The value of rank 0."""
        if self.size == 1:
            return value
        values = [value]
        with _lost_ranks_raised():
            dist.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def process_group(ranks: Ranks, store: Store, on_gpu: bool, on_loopback: bool = False) -> Iterator[None]:
    """Join the other ranks, so that the collectives of `ranks` work inside the block.

    Args:
        ranks: this process among the others, which join too.
        store: where ranks find each other; no group may have used it before.
        on_gpu: use NCCL between GPUs, else gloo.
        on_loopback: all ranks are on this machine, so use its loopback interface only.
    """
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a rank that waits too long raises instead of aborting
    excepthook = sys.excepthook  # torch wraps it with one that writes a prefix, once more for each group
    loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"} if on_loopback else {}
    with environment_variables(loopback), _lost_ranks_raised():
        _await_all(ranks, store)
        dist.init_process_group(
            backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )
    try:
        yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = excepthook


def announce_lost(store: Store, rank: int) -> None:
    """Tell the ranks that wait for this one that it will not join."""
    store.set(_joining(rank), _LOST)


def _await_all(ranks: Ranks, store: Store) -> None:
    """Wait until all ranks are about to join, or one of them is lost."""
    store.set(_joining(ranks.rank), "")
    for rank in range(ranks.size):
        store.wait([_joining(rank)], timedelta(seconds=COLLECTIVE_SECONDS))
        if store.get(_joining(rank)).decode() == _LOST:
            raise RankLostError(f"rank {rank} failed before it could train")


def _joining(rank: int) -> str:
    return f"joining {rank}"


@contextmanager
def _lost_ranks_raised() -> Iterator[None]:
    try:
        yield
    except RankLostError:
        raise
    except (RuntimeError, TimeoutError) as error:
        raise RankLostError(f"another rank was lost: {error}") from error
