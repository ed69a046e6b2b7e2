"""The source of ranks: this process alone, processes that it starts, or a launcher such as torchrun."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING

from metta.common.parent import when_parent_ends
from metta.rl.processes import interrupts_blocked, usable_cores

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from metta.rl.ranks import Ranks

Work = Callable[["Ranks"], object]
"""The function that each rank runs."""

START_SECONDS = 120.0
_CLOSE_SECONDS = 5.0
_PRELOADED = ["metta.rl.trainer"]
_group = "training"
_store: Store | None = None


class RankFailedError(RuntimeError):
    """Another rank raised (its traceback is in the message) or died."""


def is_launched() -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def leads() -> bool:
    """Whether this process is rank 0 or alone, and so reports, evaluates and records."""
    return not is_launched() or os.environ["RANK"] == "0"


def start_fork_server() -> None:
    """Start the server that ranks are forked from, if this process may start ranks. Does not wait until it is ready.

    The server imports torch on another core while this process does the same, which saves seconds.
    """
    if usable_cores() > 1 and not is_launched():
        _context()
        from multiprocessing.forkserver import ensure_running

        with interrupts_blocked():
            ensure_running()


def launcher_store(name: str) -> Store:
    """The key-value store that the launcher's ranks share, with a prefix that separates its uses."""
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    global _store
    if _store is None:
        _store, _, _ = next(rendezvous("env://"))
    return PrefixStore(name, _store)


@contextmanager
def named_group(name: str) -> Iterator[None]:
    """Name the group of ranks that trains inside the block. Each training of a launcher's ranks needs a new name.

    If a rank fails inside the block before it trains, the others do not wait for it.
    """
    from metta.rl.ranks import announce_lost

    global _group
    before, _group = _group, name
    try:
        yield
    except BaseException:
        announce_lost(launcher_store(name), int(os.environ["RANK"]))
        raise
    finally:
        _group = before


@contextmanager
def launched_ranks(on_gpu: bool) -> Iterator[Ranks]:
    """Be the rank that the launcher assigned. An existing process group is used unchanged."""
    import torch.distributed as dist

    from metta.rl.ranks import Ranks, process_group

    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    cores = usable_cores() if "OMP_NUM_THREADS" in os.environ else max(1, usable_cores() // local_size)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks = Ranks(rank, size, int(os.environ.get("LOCAL_RANK", rank)), cores)
    if dist.is_initialized():
        yield ranks
        return
    with process_group(ranks, launcher_store(_group), on_gpu):
        yield ranks


@contextmanager
def started_ranks(size: int, work: Work, on_gpu: bool) -> Iterator[Ranks]:
    """Be rank 0 of `size` ranks. The others are processes that are started here and do `work`.

    They end when this process leaves the block or dies in any way. Only this process handles Ctrl-C at the terminal.

    Args:
        size: number of ranks; 1 starts none.
        work: the function that the other ranks run; picklable.
        on_gpu: each rank has its own GPU.

    Raises:
        RankFailedError: a rank raised or died.
    """
    from metta.rl.ranks import RankLostError, Ranks
    from metta.rl.shared_mean import SharedMean

    cores = max(1, usable_cores() // size)
    if size == 1:
        yield Ranks(cores=cores)
        return
    shared = None if on_gpu else SharedMean(_context(), size)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        others = [_RankProcess(Ranks(rank, size, rank, cores, shared), store, work, on_gpu) for rank in range(1, size)]

        def others_live() -> bool:
            return all(other.process.is_alive() for other in others)

        try:
            for other in others:
                other.wait_until_ready()
            with _local_group(Ranks(0, size, 0, cores, shared, others_live), store, on_gpu) as ranks:
                yield ranks
        except RankLostError as error:
            raise RankFailedError(_first_failure(others) or str(error)) from error
        finally:
            for other in others:
                other.close()


@contextmanager
def _local_group(ranks: Ranks, path: Path, on_gpu: bool) -> Iterator[Ranks]:
    """Join the other ranks on this machine, which find each other through a file."""
    from torch._C._distributed_c10d import FileStore

    from metta.rl.ranks import process_group

    with process_group(ranks, FileStore(str(path), ranks.size), on_gpu, on_loopback=True):
        yield ranks


class _RankProcess:
    """A process that is one of the ranks, and the pipe to it."""

    def __init__(self, ranks: Ranks, store: Path, work: Work, on_gpu: bool) -> None:
        context = _context()
        self.rank = ranks.rank
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_run_rank, args=(theirs, ranks, store, work, on_gpu), name=f"rank-{ranks.rank}"
        )
        with interrupts_blocked(), theirs:
            self.process.start()

    def wait_until_ready(self) -> None:
        if not self.connection.poll(START_SECONDS):
            raise RankFailedError(f"rank {self.rank} did not start within {START_SECONDS:g} s")
        try:
            self.connection.recv_bytes()
        except (EOFError, OSError):
            raise RankFailedError(self.failure()) from None

    def failure(self) -> str | None:
        """Why it ended, or None if it is alive or ended because of another rank."""
        with suppress(EOFError, OSError):
            if self.connection.poll(_CLOSE_SECONDS):
                return f"rank {self.rank} failed:\n{self.connection.recv_bytes().decode()}"
        self.process.join(_CLOSE_SECONDS)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"rank {self.rank} died: signal {signal.Signals(-code).name}"
        return None if code in (None, 0) else f"rank {self.rank} died: exit status {code}"

    def close(self) -> None:
        """End it: it exits when this end of the pipe closes."""
        self.connection.close()
        self.process.join(_CLOSE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _first_failure(others: list[_RankProcess]) -> str | None:
    return next((failure for other in others if (failure := other.failure())), None)


def _run_rank(connection: Connection, ranks: Ranks, store: Path, work: Work, on_gpu: bool) -> None:
    """Main function of a rank's process."""
    from metta.rl.ranks import RankLostError

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    when_parent_ends(connection.recv_bytes, lambda: os._exit(1))
    connection.send_bytes(b"ready")
    try:
        with _local_group(ranks, store, on_gpu):
            work(ranks)
    except RankLostError:
        return
    except Exception:
        connection.send_bytes(traceback.format_exc().encode())
        raise SystemExit(1) from None


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
