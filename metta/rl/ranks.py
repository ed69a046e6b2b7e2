"""Data parallelism: processes that train one policy together, each on its part of the environments.

Each process is a rank. All of them run the same code on different experience and average their gradients, so that
every one makes the same step. What a rank needs of the others is here; `metta.rl.launch` says where they come from.
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
"""How long a rank waits for the others before it gives up. One that dies is noticed at once, but not by NCCL."""


_LOST = "lost"


class RankLostError(RuntimeError):
    """Another rank ended, or was not heard of for `COLLECTIVE_SECONDS`."""


def _nobody_knows() -> bool:
    return True


@dataclass(frozen=True)
class Ranks:
    """The ranks as one of them sees them. Every method but `part` is a collective: all ranks call it, in one order.

    Attributes:
        rank: number of this one; 0 leads: it reports, evaluates and writes checkpoints.
        size: how many there are.
        local_rank: number among those on this machine, which is that of its GPU.
        cores: CPU cores that this rank may use.
        shared: averages through memory, where all ranks are on one machine and compute on its CPU; else None.
        others_live: whether the processes of the others live, as far as this one knows.

    Example:
        >>> Ranks(rank=1, size=2).part(16)
        range(8, 16)
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    cores: int = 1
    shared: SharedMean | None = None
    others_live: Callable[[], bool] = _nobody_knows

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, number: int) -> range:
        """Which of a number of things, divided evenly, are this rank's."""
        return range(self.rank * number // self.size, (self.rank + 1) * number // self.size)

    def average(self, values: Tensor) -> Tensor:
        """Replace values, which lie in one piece, by their mean over ranks, and return them.

        Raises:
            RankLostError: as the other collectives do.
        """
        if self.size > 1:
            with _lost_ranks_raised():
                if self.shared is None:
                    dist.all_reduce(values)
                    values /= self.size
                else:
                    self.shared.average(values.view(-1), self.rank, COLLECTIVE_SECONDS, self.others_live)
        return values

    def any(self, is_so: bool) -> bool:
        """Whether it is so for any rank. Quicker than `broadcast`, for what is asked often."""
        return self.average(torch.tensor([float(is_so)])).item() > 0

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank."""
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
def joined(ranks: Ranks, store: Store, on_gpu: bool, on_loopback: bool = False) -> Iterator[None]:
    """Make the collectives of `ranks` work within.

    Args:
        ranks: this process among the others, each of which joins too.
        store: where ranks find each other; one that no group has used before.
        on_gpu: gradients travel by NCCL between GPUs, else by gloo.
        on_loopback: all ranks are on this machine, and listen to nobody else.
    """
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a rank that waits too long raises, and is not aborted
    excepthook = sys.excepthook  # torch puts its own before it, which writes a prefix, once more for each group
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


def say_lost(store: Store, rank: int) -> None:
    """Tell those who wait for this rank to join that it will not."""
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
