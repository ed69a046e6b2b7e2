"""More faults: limits of a process, deaths at exact moments, leftover files, and extreme amounts of data."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.faults.driver import SWEEP, die_at_end, unharmed
from benchmarks.faults.harness import FaultySweep, Verdict
from benchmarks.faults.scenarios import refusal
from metta.sweep.definition import open_sweep
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome
from metta.sweep.trial import TrialState
from tests.support.made_sweep import make_sweep
from tests.support.parabola import parabola_definition

_METTA_SWEEP = str(Path(sys.executable).with_name("metta-sweep"))


# ---- limits of a process


def limited(folder: Path, limits: list[str], num_trials: int) -> Verdict:
    """Drivers with two worker processes each, under limits as `prlimit` writes them (``--nofile=64``)."""
    with FaultySweep(f"sqlite:///{folder}/store.sqlite", folder, num_trials, drivers=2) as sweep:
        for slot in range(2):
            sweep.start_command(slot, {}, "--workers", "2", prefix=["prlimit", *limits])
        sweep.finish()
        return sweep.verdict()


def leaks(folder: Path, num_trials: int, workers: int | None) -> tuple[Verdict, str]:
    """One driver runs many trials; compares its resources, and those of its workers, as the trials end."""
    arguments = [] if workers is None else ["--workers", str(workers)]
    with FaultySweep(f"sqlite:///{folder}/store.sqlite", folder, num_trials, drivers=1, seconds=0.0) as sweep:
        sweep.start_command(0, {}, *arguments)
        (pid,) = sweep.pids()
        held = []
        for ended in (num_trials // 4, num_trials // 2, num_trials - num_trials // 20):
            sweep.wait_for(ended)
            held.append(f"after {ended:,} trials {_resources(pid)}")
        sweep.finish()
        return sweep.verdict(), f"nothing: the driver held {'; '.join(held)}"


def _resources(pid: int) -> str:
    """What a process and its children hold."""
    memory, files = _held(pid)
    threads = len(os.listdir(f"/proc/{pid}/task"))
    children = _children(pid)
    inside = sum(_held(child)[0] for child in children)
    return f"{memory} MB, {files} open files, {threads} threads, {len(children)} children with {inside} MB"


def _children(pid: int) -> list[int]:
    """The descendants of a process."""
    direct = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [each for child in direct for each in (child, *_children(child))]


def _held(pid: int) -> tuple[int, int]:
    """Megabytes of memory and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = re.search(r"VmRSS:\s+(\d+)", status)
    return int(memory[1]) // 1024 if memory else 0, len(os.listdir(f"/proc/{pid}/fd"))


# ---- deaths at exact moments


def killed_at_the_end(url: str, folder: Path, moment: str, kills: int) -> tuple[Verdict, str]:
    """Drivers that kill themselves just before the end of a trial is recorded, while it is recorded, or just after.

    In the verdict, a trial that was recorded before its driver died and was run again was run twice.
    """
    deaths = folder / "deaths"
    deaths.touch()
    with FaultySweep(url, folder, num_trials=40, seconds=0.1) as sweep:
        sweep.harm = partial(die_at_end, moment, deaths)
        while len(deaths.read_text().splitlines()) < kills:
            if sweep.ended() > sweep.num_trials - 20:
                sweep.extend(40)
            sweep.start()
            time.sleep(0.05)
        sweep.harm = unharmed
        sweep.finish()
        verdict = sweep.verdict(recorded=_died(deaths) if moment == "after" else {})
        recorded = {(trial.number, trial.attempts) for trial in sweep.trials() if trial.state is TrialState.COMPLETED}
        kept = len(recorded & set(_died(deaths).items()))
        return (
            verdict,
            f"{next(iter(verdict.messages), 'nothing')} (the store had {kept} of {len(_died(deaths))} results)",
        )


def _died(deaths: Path) -> dict[int, int]:
    """The trials at whose end their driver died, each with the last such attempt."""
    pairs = (line.split() for line in deaths.read_text().splitlines())
    return {int(number): int(attempt) for number, attempt in pairs}


def killed_while_opening(folder: Path, version: str | None, kills: int) -> Verdict:
    """kill -9 while a store is created, or migrated from an older version; each store is then opened again.

    "Repeated" counts the kills after which the store still had to be created or migrated.
    """
    context, generator = multiprocessing.get_context("forkserver"), random.Random(0)
    context.set_forkserver_preload(["metta.sweep.store.migrations", "benchmarks.faults.edges"])
    opened = unfinished = lost = 0
    for kill in range(kills):
        path = folder / f"{kill}.sqlite"
        if version is not None:
            _make_old(path, version)
            for warm in _warm(path):
                shutil.copy(path, warm)
        ours, theirs = context.Pipe()
        process = context.Process(target=open_and_close, args=(path, theirs))
        process.start()
        time.sleep(generator.uniform(0.0, 1.5 * ours.recv()))
        process.kill()
        process.join()
        unfinished += not path.exists() if version is None else _version(path) == version
        with closing(open_store(f"sqlite:///{path}")) as store:
            opened += 1
            if version is not None:
                lost += [trial.score for trial in store.trials(SWEEP)] != [2.5]
            else:
                open_sweep(store, SWEEP, parabola_definition(1))
                store.add(SWEEP, {"x": 0.5}, Outcome(TrialState.COMPLETED, 0.5, 1.0, 1.0))
                lost += len(store.trials(SWEEP)) != 1
    return Verdict(kills, opened, 0, unfinished, lost, 0, [])


def open_and_close(path: Path, parent: Connection) -> None:
    """Open other stores first, so that all imports are done; say how long the last took, and open the store."""
    for warm in _warm(path):
        started = time.monotonic()
        open_store(f"sqlite:///{warm}").close()
    parent.send(time.monotonic() - started)
    open_store(f"sqlite:///{path}").close()


def _warm(path: Path) -> list[Path]:
    return [path.with_suffix(f".warm{number}") for number in range(2)]


def _version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM metta_schema_version").fetchone()[0])


def _make_old(path: Path, version: str) -> None:
    """A store of an older schema with a sweep and a trial in it."""
    from alembic import command
    from sqlalchemy import create_engine, text

    from metta.sweep.store.migrations import configuration

    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(configuration(connection), version)
        connection.execute(
            text(
                "INSERT INTO metta_sweeps (id, name, config, revision, origin, created_at) "
                f"VALUES (1, '{SWEEP}', '{{}}', 1, 'x', 0)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO metta_trials (sweep_id, number, state, params, suggestion, attempts, score, cost, "
                "metrics, artefacts, revision, origin) "
                "VALUES (1, 0, 'completed', '{}', '{}', 1, 2.5, 3.0, '{}', '{}', 1, 'y')"
            )
        )
    engine.dispose()


# ---- network file systems


def network_folder(folder: Path, variable: str, error: int) -> str:
    """A folder whose files cannot be locked (FAULTY_LOCKS), or mapped into memory (FAULTY_MAPS). Needs a C compiler."""
    library = folder / "network_folder.so"
    source = str(Path(__file__).with_name("network_folder.c"))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    store = folder / "store" / "store.sqlite"
    faulty = {"LD_PRELOAD": str(library), "FAULTY_FOLDER": str(store.parent), variable: str(error)}
    messages = []
    for _ in ("a new store", "one that was made elsewhere"):
        code = f"from benchmarks.faults.scenarios import refusal; print(refusal('sqlite:///{store}'))"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**os.environ, **faulty}, capture_output=True, text=True, check=True)
        messages.append(done.stdout.strip().replace("it cannot be created: ", ""))
        open_store(f"sqlite:///{store}").close()
    (message,) = set(messages)
    return message


# ---- leftover files


def old_log(folder: Path, num_trials: int) -> tuple[Verdict, str]:
    """A backup is restored while the log of the killed drivers (``-wal``) is still beside the file.

    SQLite would replay the log into the backup. The user's message is recorded, and then the original file is restored.
    """
    path, copy, aside = (folder / name for name in ("store.sqlite", "copy.sqlite", "aside"))
    with FaultySweep(f"sqlite:///{path}", folder, num_trials, seconds=0.1) as sweep:
        sweep.start()
        sweep.wait_for(num_trials // 4)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        sweep.wait_for(num_trials // 2)
        for slot in range(4):
            sweep.kill(slot)
        path.rename(aside)
        shutil.copy(copy, path)
        message = refusal(sweep.url)
        aside.replace(path)
        sweep.finish()
        return sweep.verdict(), message


def newer_version(folder: Path) -> str:
    """A store that a later metta-sweep wrote."""
    path = folder / "store.sqlite"
    open_store(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE metta_schema_version SET version_num = '9999'")
    return refusal(f"sqlite:///{path}")


# ---- extreme amounts of data


def loud(folder: Path, megabytes: int) -> tuple[Verdict, str]:
    """Programs that print many megabytes before their result."""
    program = f"import sys\nfor _ in range({megabytes}): sys.stdout.write(('x' * 99 + chr(10)) * 10_000)\n"
    return _program(folder, program + "print('{\"score\": 0.5}')\n")


def many_metrics(folder: Path, count: int) -> tuple[Verdict, str]:
    """Programs that measure `count` metrics, ten thousand per line."""
    program = (
        f"import json\nfor start in range(0, {count}, 10_000):\n"
        "    print(json.dumps({f'm{start + i}': i for i in range(10_000)} | {'score': 0.5}))\n"
    )
    return _program(folder, program)


def _program(folder: Path, text: str, num_trials: int = 2) -> tuple[Verdict, str]:
    """Sweep a program with the command; returns its memory use as well."""
    (folder / "program.py").write_text(text)
    store = f"sqlite:///{folder}/store.sqlite"
    command = [_METTA_SWEEP, "run", f"{sys.executable} program.py", "--search", "x=0..1", "--metric", "score:max"]
    command += ["--name", SWEEP, "--trials", str(num_trials), "--store", store]
    environment = {**os.environ, "METTA_DATA_DIR": str(folder / "data"), "WANDB_MODE": "disabled"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise AssertionError(f"exit status {process.returncode}")
    with closing(open_store(store)) as opened:
        trials = opened.trials(SWEEP)
    ended = sum(trial.state is TrialState.COMPLETED for trial in trials)
    verdict = Verdict(num_trials, ended, 0, 0, 0, 0, [])
    return verdict, f"nothing: the driver took {used.ru_maxrss // 1024} MB at most"


def slow_readers(folder: Path, readers: int, seconds: float) -> tuple[Verdict, str]:
    """Readers of the dashboard that read a byte per second; measures how long another reader waits meanwhile."""
    store = f"sqlite:///{folder}/store.sqlite"
    with closing(open_store(store)) as opened:
        open_sweep(opened, SWEEP, parabola_definition(1000))
        for number in range(500):
            opened.add(SWEEP, {"x": number / 500}, Outcome(TrialState.COMPLETED, 0.5, 1.0, 1.0))
    with _dashboard(store, folder) as (port, _):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(readers)]
        for each in slow:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.sendall(f"GET /api/rows?name={SWEEP}&since=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        longest, until = 0.0, time.monotonic() + seconds
        while time.monotonic() < until:
            for each in slow:
                each.recv(1)
            started = time.monotonic()
            rows = _get(port, "rows", since=0)["rows"]
            longest = max(longest, time.monotonic() - started)
            time.sleep(1.0)
        for each in slow:
            each.close()
    return Verdict(500, len(rows), 0, 0, 0, 0, []), f"nothing: another reader waited {longest:.1f} s at most"


def many_trials(folder: Path, num_trials: int) -> tuple[Verdict, str]:
    """The dashboard of a sweep with very many trials: the slowest of its pages, and the memory of its server."""
    store = f"sqlite:///{folder}/store.sqlite"
    with closing(open_store(store)) as opened:
        make_sweep(opened, SWEEP, num_trials, curve_points=3)
    with _dashboard(store, folder) as (port, pid):
        rows, began = len(_get(port, "rows", since=0)["rows"]), time.monotonic()
        plots = [plot["name"] for plot in _get(port, "overview")["plots"]]
        seconds = [time.monotonic() - began]
        for page, query in [("trial", {"number": rows // 2}), *(("figure", {"figure": name}) for name in plots)]:
            began = time.monotonic()
            _get(port, page, **query)
            seconds.append(time.monotonic() - began)
        memory = _held(pid)[0]
    said = f"nothing: after the first page, a page took {max(seconds):.1f} s at most; the server held {memory} MB"
    return Verdict(num_trials, rows, 0, 0, 0, 0, []), said


def _get(port: int, page: str, **query: object) -> Any:
    url = f"http://127.0.0.1:{port}/api/{page}?{urlencode({'name': SWEEP, **query})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def _dashboard(store: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A server of the dashboard: its port, and the id of its process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [_METTA_SWEEP, "dashboard", SWEEP, "--store", store, "--port", str(port), "--no-browser"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError((folder / "log").read_text())
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)
