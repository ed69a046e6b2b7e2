"""The faults. Each creates a sweep, injects the fault while four drivers work on it, and returns a verdict."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg

from benchmarks.faults.driver import SWEEP
from benchmarks.faults.harness import FaultySweep, Verdict
from metta.sweep.store import open_store
from metta.sweep.store.protocol import StoreError
from metta.sweep.wandb import records
from tests.support.postgresql import PostgresServer
from tests.support.proxy import Proxy
from tests.support.wandb_server import WandbServer

_IMMUTABLE = 0x10  # FS_IMMUTABLE_FL
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS


def refusal(url: str) -> str:
    """The message to a user who starts a driver on a store that cannot be used."""
    try:
        open_store(url).close()
    except StoreError as error:
        return str(error)
    raise AssertionError(f"the store opened: {url}")


def kill_9(url: str, folder: Path, kills: int) -> Verdict:
    """kill -9 of a random driver at a random moment, repeatedly; the same command is then started again."""
    generator = random.Random(0)
    with FaultySweep(url, folder, num_trials=20 + 8 * kills, seconds=0.25) as sweep:
        sweep.start()
        sweep.wait_for(1)
        done = 0
        while done < kills:
            ended = sweep.ended()
            if ended > sweep.num_trials - 10:  # on a slow machine trials may end faster than drivers are killed
                sweep.extend(20)
            sweep.start()
            sweep.wait_for(ended + generator.randrange(4))
            time.sleep(generator.uniform(0.0, 0.3))
            done += sweep.kill(generator.randrange(4))
        sweep.finish()
        return sweep.verdict()


# ---- SQLite


def locked(folder: Path, seconds: float, num_trials: int) -> Verdict:
    """Another process holds a lock on the file for `seconds`."""
    path = folder / "store.sqlite"
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        sweep.finish()
        return sweep.verdict()


def moved(folder: Path, seconds: float, num_trials: int) -> Verdict:
    """The file is moved away for `seconds`, and then back."""
    path, aside = folder / "store.sqlite", folder / "aside"
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        path.rename(aside)
        time.sleep(seconds)
        aside.rename(path)
        sweep.finish()
        return sweep.verdict()


def replaced(folder: Path, num_trials: int) -> Verdict:
    """An older copy replaces the file, for example when a backup is restored."""
    path, copy = folder / "store.sqlite", folder / "copy.sqlite"
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        sweep.wait_for(num_trials // 2)
        copy.replace(path)
        sweep.finish()
        return sweep.verdict()


def removed(folder: Path, seconds: float, num_trials: int) -> Verdict:
    """The file is removed permanently. After `seconds` the drivers are asked to stop, and then started again."""
    path = folder / "store.sqlite"
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        for file in folder.glob("store.sqlite*"):
            file.unlink()
        time.sleep(seconds)
        for slot in range(4):
            sweep.kill(slot, signal.SIGTERM)
        sweep.finish()
        return sweep.verdict()


def preempted(folder: Path, times: int, num_trials: int) -> Verdict:
    """A cluster ends drivers by SIGTERM repeatedly, and starts new ones."""
    generator = random.Random(0)
    with FaultySweep(f"sqlite:///{folder}/store.sqlite", folder, num_trials, seconds=0.3) as sweep:
        for count in range(times):
            sweep.start()
            sweep.wait_for((count + 1) * num_trials // (times + 2))
            sweep.kill(generator.randrange(4), signal.SIGTERM)
        sweep.finish()
        return sweep.verdict()


def disk_full(folder: Path, seconds: float, num_trials: int) -> Verdict:
    """The file system of the store is full for `seconds`."""
    with (
        small_disk("3m") as disk,
        FaultySweep(f"sqlite:///{disk}/store.sqlite", folder, num_trials, seconds=0.3) as sweep,
    ):
        sweep.start()
        sweep.wait_for(num_trials // 4)
        with filled(disk):
            time.sleep(seconds)
        sweep.finish()
        return sweep.verdict()


def read_only(folder: Path, seconds: float, num_trials: int) -> tuple[Verdict, str]:
    """The file and its journal become immutable for `seconds`; also returns the message to a new driver."""
    path = folder / "store.sqlite"
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        files = [path, path.with_name("store.sqlite-wal")]
        _set_immutable(files, True)
        try:
            time.sleep(seconds)
            message = refusal(sweep.url)
        finally:
            _set_immutable(files, False)
        sweep.finish()
        return sweep.verdict(), message


def truncated(folder: Path, num_trials: int) -> tuple[Verdict, str]:
    """The file is truncated to half its size while drivers run. The lost half is restored from a copy."""
    path, copy = folder / "store.sqlite", folder / "copy.sqlite"
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        for slot in range(4):
            sweep.kill(slot)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        os.truncate(path, path.stat().st_size // 2)
        message = refusal(sweep.url)
        shutil.copy(copy, path)
        sweep.finish()
        return sweep.verdict(), message


def not_a_database(folder: Path) -> str:
    path = folder / "store.sqlite"
    path.write_text("number,score\n" * 1000)
    before = path.read_bytes()
    message = refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before
    return message


# ---- PostgreSQL


def restarted(
    server: PostgresServer, folder: Path, how: signal.Signals, times: int, seconds: float, num_trials: int
) -> Verdict:
    """The server stops (SIGINT: an administrator's restart, SIGQUIT: a crash) and restarts after `seconds`."""
    with FaultySweep(server.new_database(), folder, num_trials, seconds=0.3) as sweep:
        sweep.start()
        for time_ in range(times):
            sweep.wait_for((time_ + 1) * num_trials // (times + 2))
            server.stop(how)
            time.sleep(seconds)
            server.start()
        sweep.finish()
        return sweep.verdict()


def away_from_workers(server: PostgresServer, folder: Path, seconds: float, num_trials: int) -> Verdict:
    """The server is down for `seconds`, while trials run and end in worker processes, two per driver."""
    with FaultySweep(server.new_database(), folder, num_trials, drivers=2, seconds=0.3) as sweep:
        for slot in range(2):
            sweep.start_command(slot, {}, "--workers", "2")
        sweep.wait_for(num_trials // 4)
        server.stop()
        time.sleep(seconds)
        server.start()
        sweep.finish()
        return sweep.verdict()


def cut_off(
    server: PostgresServer,
    folder: Path,
    harm: Callable[[Proxy], None],
    heal: Callable[[Proxy], None],
    times: int,
    seconds: float,
    num_trials: int,
) -> Verdict:
    """The network between the drivers and the server fails for `seconds`, several times."""
    database = server.new_database().rpartition("/")[2]
    with Proxy(server.port) as proxy:
        url = server.url(database)
        with FaultySweep(url, folder, num_trials, seconds=0.3, drivers_url=server.url(database, proxy.port)) as sweep:
            sweep.start()
            for time_ in range(times):
                sweep.wait_for((time_ + 1) * num_trials // (times + 2))
                harm(proxy)
                time.sleep(seconds)
                heal(proxy)
            sweep.finish()
            return sweep.verdict()


def failed_over(folder: Path, synchronous: bool, num_trials: int) -> Verdict:
    """The server dies for good, and its replica takes over; the URL names both.

    A replica that is not synchronous lacks the last transactions: here all of the last quarter of the trials.
    """
    with PostgresServer() as first, PostgresServer(primary=first) as second:
        if synchronous:
            _set(first, "synchronous_standby_names", "*")
        login, _, place = first.new_database().partition("@")
        hosts = f"host=127.0.0.1:{first.port}&host=127.0.0.1:{second.port}"
        url = f"{login}@/{place.rpartition('/')[2]}?{hosts}&target_session_attrs=read-write"
        with FaultySweep(url, folder, num_trials, seconds=0.3) as sweep:
            sweep.start()
            sweep.wait_for(num_trials // 4)
            if not synchronous:
                _set(second, "primary_conninfo", "")
            sweep.wait_for(num_trials // 2)
            first.stop(signal.SIGQUIT)
            second.promote()
            sweep.finish()
            return sweep.verdict()


def _set(server: PostgresServer, name: str, value: str) -> None:
    with server.connect("postgres") as connection:
        connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")


def out_of_connections(folder: Path, seconds: float, num_trials: int) -> Verdict:
    """Others take every connection that the server has, and cut off those of the drivers, for so long."""
    with (
        PostgresServer("max_connections=12", "superuser_reserved_connections=0") as server,
        FaultySweep(server.new_database(), folder, num_trials, seconds=0.3) as sweep,
        ExitStack() as stack,
    ):
        sweep.start()
        sweep.wait_for(num_trials // 4)
        taken = [server.connect("postgres")]
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'metta-sweep'"
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            taken[0].execute(others)
            with suppress(psycopg.OperationalError):
                while True:
                    taken.append(stack.enter_context(server.connect("postgres")))
            time.sleep(0.01)
        for connection in taken:
            connection.close()
        sweep.finish()
        return sweep.verdict()


def server_disk_full(folder: Path, seconds: float, num_trials: int) -> Verdict:
    """The server's disk is full for `seconds`; an administrator then frees space, and starts the server if needed."""
    with (
        small_disk("400m") as disk,
        PostgresServer(folder=disk) as server,
        FaultySweep(server.new_database(), folder, num_trials, seconds=0.3) as sweep,
    ):
        sweep.start()
        sweep.wait_for(num_trials // 4)
        with filled(disk):
            time.sleep(seconds)
        if not server.running():
            server.start()
        sweep.finish()
        return sweep.verdict()


# ---- Weights & Biases


def wandb_away(folder: Path, down: range, num_trials: int) -> Verdict:
    """W&B does not answer while the number of ended trials is in `down`; missing trials are then sent by command.

    In the verdict, a trial that is missing in W&B, or differs from the store, also counts as lost, and one with two
    runs counts as run twice.
    """
    with WandbServer() as server:
        environment = {
            **server.environment(),
            "WANDB_MODE": "online",
            "METTA_DATA_DIR": str(folder / "data"),
            "HOME": str(folder),
        }
        with FaultySweep(f"sqlite:///{folder}/store.sqlite", folder, num_trials, seconds=0.5) as sweep:
            if down.start == 0:
                server.stop()
            for slot in range(4):
                sweep.start_command(slot, environment, "--project", SWEEP)
            if down.start > 0:
                sweep.wait_for(down.start)
                server.stop()
            if down.stop < num_trials:
                sweep.wait_for(down.stop)
                server.start()
            sweep.finish()
            if down.stop >= num_trials:
                server.start()
                metta_sweep = str(Path(sys.executable).with_name("metta-sweep"))
                sync = [metta_sweep, "sync", SWEEP, "--store", sweep.url, "--project", SWEEP]
                subprocess.run(sync, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
            verdict = sweep.verdict()
            runs = [run for run in server.in_group(SWEEP) if run.fields["jobType"] == "trial"]
            sent = [run.summary[records.KEY]["trial"] for run in runs if records.KEY in run.summary]
            held = {records.encode_trial(trial) for trial in sweep.trials()}
            lost = verdict.lost + len(held - set(sent))
            duplicated = verdict.duplicated + len(runs) - num_trials
            trouble = [line for line in verdict.messages if "is unreachable" in line or "are not in" in line]
            return replace(verdict, lost=lost, duplicated=duplicated, messages=trouble)


# ---- the clock


class Clock:
    """The clock of the processes that are started in its environment. Needs the package libfaketime."""

    def __init__(self, folder: Path) -> None:
        package = importlib.util.find_spec("libfaketime")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("libfaketime")
        self._file = folder / "clock"
        self.jump("+0")
        folder.chmod(0o755)
        library = next(Path(package.origin).parent.rglob("libfaketime.so.1"))
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """Set the clock ahead (``+2h``) or back (``-2h``) of the true time."""
        self._file.write_text(offset)


def clock_jumps(folder: Path, jumps: list[str], num_trials: int) -> Verdict:
    """The clock of the machine, and so of SQLite, jumps back and forth while trials run."""
    clock = Clock(folder)
    with FaultySweep(f"sqlite:///{folder}/store.sqlite", folder, num_trials, seconds=0.3) as sweep:
        for slot in range(4):
            sweep.start_command(slot, clock.environment)
        return _jump(sweep, clock, jumps, num_trials)


def server_clock_jumps(folder: Path, jumps: list[str], num_trials: int) -> Verdict:
    """The clock of the server jumps, with drivers as if on four machines: only leases show which are alive."""
    clock = Clock(folder)
    with (
        PostgresServer(environment=clock.environment) as server,
        FaultySweep(server.new_database(), folder, num_trials, seconds=0.3) as sweep,
    ):
        for slot in range(4):
            sweep.start_command(slot, {}, "--machine", f"machine {slot}")
        return _jump(sweep, clock, jumps, num_trials)


def _jump(sweep: FaultySweep, clock: Clock, jumps: list[str], num_trials: int) -> Verdict:
    for count, jump in enumerate(jumps):
        sweep.wait_for((count + 1) * num_trials // (len(jumps) + 2))
        clock.jump(jump)
    sweep.finish()
    return sweep.verdict()


# ---- means


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A small separate disk. Needs root."""
    folder = Path(tempfile.mkdtemp(prefix="metta-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill the disk completely."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    yield
    ballast.unlink()


def _set_immutable(paths: list[Path], immutable: bool) -> None:
    """Like ``chattr +i``: even root cannot write, even through open files. Needs root."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))
            flags = flags | _IMMUTABLE if immutable else flags & ~_IMMUTABLE
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags))
        finally:
            os.close(descriptor)
