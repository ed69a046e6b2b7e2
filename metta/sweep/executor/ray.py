"""Trials as tasks on a Ray cluster."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import metta
from metta.common.counts import count_text
from metta.common.data_dir import data_dir
from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.common.variables import environment_variables
from metta.sweep.executor.attempt import run_attempt_apart
from metta.sweep.executor.messages import from_json, to_json
from metta.sweep.executor.protocol import Finished
from metta.sweep.executor.ray_ranks import RankResources, first_failure, trainer
from metta.sweep.executor.resources import check_gpus_per_trial, divide, this_machine, thread_variables
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

BATCH_SECONDS = 0.2
"""How long reports of trials are collected before they are sent to the driver."""

COUNT_SECONDS = 2.0
"""How often the cluster's nodes are counted."""

ANSWER_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""

LAST_NEWS_SECONDS = 10.0
"""How long a trial that has ended waits until its progress has arrived."""

_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would build an environment for every worker
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Settings for a cluster of one machine, so that Ray listens on loopback only."""

_NOT_SHIPPED = [".venv", ".git", ".*_cache", ".hypothesis", "__pycache__", "/train_dir", "/wandb", "/build", "/dist"]
"""As in a .gitignore: with a slash at the top only, because a package may have the same name, as metta.sweep.wandb."""
_SMALL_OBJECT_STORE = 80 * 2**20  # bytes; Ray's minimum is 75 MiB, and a trial sends kilobytes


class ClusterLostError(UserError):
    """The cluster, on which trials ran, no longer answers."""


@dataclass(frozen=True)
class _Running:
    """A running attempt, with its key."""

    key: str
    spec: TrialSpec
    report: Report


class RayExecutor:
    """Runs each attempt as a Ray task with its resources, on any node with enough room.

    An attempt whose process or node dies is lost. The sweep, not Ray, tries it again, so that every attempt is
    recorded.

    Args:
        num_workers: trials at once; by default as many as fit, counted again as nodes come and go.
        cpus_per_trial, gpus_per_trial: the resources of each trial; see `metta.sweep.executor.open_executor`.
        address: address of the cluster; None starts Ray on this machine, and `close` ends it.
        ranks_per_trial: processes that train each trial together, on one node or several; `cpus_per_trial` and
            `gpus_per_trial` are divided among them.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        cpus_per_trial: int | None = None,
        gpus_per_trial: float | None = None,
        address: str | None = None,
        ranks_per_trial: int = 1,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError(f"executor=ray needs the package ray: {install_command('ray')}")
        check_gpus_per_trial(gpus_per_trial)
        _check_ranks(ranks_per_trial, cpus_per_trial, gpus_per_trial)
        self._ranks = ranks_per_trial
        self._address = address
        self._num_workers = num_workers
        self._cpus = cpus_per_trial or ranks_per_trial
        self._gpus = gpus_per_trial
        if address is None:
            machine = this_machine()
            wanted = self._cpus if ranks_per_trial > 1 else cpus_per_trial
            shares = divide(machine, num_workers, wanted, gpus_per_trial)
            self._num_workers, self._cpus = len(shares), shares[0].threads
            if gpus_per_trial is None:
                self._gpus = min(1.0, len(machine.gpus) / len(shares))
        self._connection: _Connection | None = None
        self._room = 0
        self._counted_at = -COUNT_SECONDS
        self._keys = itertools.count()
        self._running: dict[Any, _Running] = {}
        self._finished: deque[Finished] = deque()

    @property
    def slots(self) -> int:
        if self._num_workers is not None:
            return self._num_workers
        if time.monotonic() - self._counted_at >= COUNT_SECONDS:
            self._counted_at = time.monotonic()
            with self._cluster() as cluster:
                self._room = cluster.room()
        return self._room

    @property
    def resources(self) -> str:
        many = "as many trials as fit" if self._num_workers is None else count_text(self._num_workers, "trial")
        gpus = f" and {self._gpus:g} GPUs" if self._gpus else ""
        ranks = f", on {self._ranks} ranks" if self._ranks > 1 else ""
        return f"{self._where}, {many} at once, {self._cpus} CPU{gpus} each{ranks}"

    def submit(self, spec: TrialSpec, report: Report) -> None:
        running = _Running(str(next(self._keys)), spec, report)
        with self._cluster() as cluster:
            self._running[cluster.start(running)] = running

    def wait(self, timeout: float | None = None) -> Finished | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._running and not self._finished:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._cluster() as cluster:
                done, news = cluster.wait(list(self._running), left)
                self._deliver(news)
                for task in done:
                    self._finished.append(cluster.result(task, self._running.pop(task).spec))
            if deadline is not None and time.monotonic() >= deadline:
                break
        return self._finished.popleft() if self._finished else None

    def cancel(self, number: int) -> None:
        for task in [task for task, running in self._running.items() if running.spec.number == number]:
            del self._running[task]
            with suppress(ClusterLostError), self._cluster() as cluster:
                cluster.kill(task)

    def close(self) -> None:
        if self._connection is not None:
            for task in self._running:
                self._connection.kill(task)
            self._connection.close()
            self._connection = None
        self._running.clear()
        self._finished.clear()

    @property
    def _where(self) -> str:
        return "Ray on this machine" if self._address is None else f"Ray at {self._address}"

    @contextmanager
    def _cluster(self) -> Iterator[_Connection]:
        """The connection.

        Raises:
            ClusterLostError: the cluster no longer answers, as when its head node has died.
        """
        connection = self._connect()
        try:
            yield connection
        except connection.errors as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ClusterLostError(
                f"{self._where} no longer answers, so the sweep stops; once Ray runs again, the same command continues "
                f"it ({reason})"
            ) from None

    def _connect(self) -> _Connection:
        if self._connection is None:
            workers = self._num_workers or 0
            self._connection = _Connection(self._address, self._cpus, self._gpus, workers, self._ranks)
        return self._connection

    def _deliver(self, news: list[tuple[str, str]]) -> None:
        running = {each.key: each.report for each in self._running.values()}
        for key, progress in news:
            if key in running and not running[key](from_json(Progress, progress)):
                self._connect().stop(key)


class _Connection:
    """The part of Ray's API that this module needs."""

    def __init__(self, address: str | None, cpus: int, gpus: float | None, local_workers: int, ranks: int) -> None:
        os.environ.update(_SETTINGS)
        if address is None:
            os.environ.update(_ON_LOOPBACK)
        import ray

        self._ray: Any = ray
        self.errors: tuple[type[Exception], ...] = (ray.exceptions.RayError, ConnectionError)
        self._ray._private.worker._worker_logs_enabled = False  # log_to_driver keeps messages about dead workers
        variables = thread_variables(cpus // ranks) | ({"CUDA_VISIBLE_DEVICES": ""} if gpus == 0 else {})
        inherited: dict[str, str] = {}
        if address is None:
            path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
            # With a runtime_env every worker would start Python twice, and Ray would not use its prestarted workers.
            inherited = variables | {"PYTHONPATH": path, "METTA_PYTHONPATH": os.environ.get("PYTHONPATH", "")}
            place: dict[str, Any] = {
                "address": "local",
                "num_cpus": local_workers * cpus,
                "include_dashboard": False,
                "object_store_memory": _SMALL_OBJECT_STORE,
            }
        else:
            _require_answer(address)
            place = {"address": address, "runtime_env": _code_for_nodes() | {"env_vars": variables}}
        try:
            with _signals_kept(), environment_variables(inherited):
                ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises many types, including plain Exception
            where = "on this machine" if address is None else f"at ray.address={address}"
            asks = address is not None and "RAY_AUTH_MODE" not in os.environ
            hint = " (if the cluster asks for a token, set RAY_AUTH_MODE=token)" if asks else ""
            raise UserError(f"Ray {where} cannot be used: {error}{hint}") from error
        if gpus is None:
            gpus = float(ranks) if any(node["Resources"].get("GPU") for node in self._nodes()) else 0.0
        self._ranks = RankResources(ranks, cpus // ranks, int(gpus) // ranks)
        self._needs = {"CPU": cpus / ranks, "GPU": gpus / ranks}
        self._task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run)
        self._ranked_task: Any = ray.remote(num_cpus=0, max_retries=0)(_run_ranks)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        mailbox: Any = ray.remote(_Mailbox)
        self._mailbox = mailbox.options(num_cpus=0, scheduling_strategy=here).remote()
        try:
            ray.get(self._mailbox.take.remote())
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray cannot run this code: {error}") from error
        self._arrived = self._mailbox.arrived.remote()

    def room(self) -> int:
        """How many trials fit on the nodes that are alive."""
        ranks = sum(
            min(int(node["Resources"].get(kind, 0.0) / need + 1e-9) for kind, need in self._needs.items() if need)
            for node in self._nodes()
        )
        return ranks // self._ranks.number

    def start(self, running: _Running) -> Any:
        name, spec = f"trial {running.spec.number}", to_json(running.spec)
        if self._ranks.number == 1:
            return self._task.options(name=name).remote(spec, running.key, self._mailbox)
        return self._ranked_task.options(name=name).remote(spec, running.key, self._mailbox, self._ranks)

    def wait(self, tasks: list[Any], timeout: float | None) -> tuple[list[Any], list[tuple[str, str]]]:
        """Wait for ended tasks, and for reports of running ones; a task's reports arrive no later than its end."""
        ready, _ = self._ray.wait([*tasks, self._arrived], num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self._ray.wait([*tasks, self._arrived], num_returns=len(tasks) + 1, timeout=0)
        if self._arrived in ready:
            self._arrived = self._mailbox.arrived.remote()
        return [task for task in tasks if task in ready], self._ray.get(self._mailbox.take.remote()) if ready else []

    def result(self, task: Any, spec: TrialSpec) -> Finished:
        try:
            return Finished(spec, from_json(TrialResult, self._ray.get(task)))
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())
            return Finished(spec, None, f"Ray: {type(error).__name__}: {reason[:500]}")

    def stop(self, key: str) -> None:
        self._mailbox.stop.remote(key)

    def kill(self, task: Any) -> None:
        self._ray.cancel(task, force=True)

    def close(self) -> None:
        with _signals_kept():
            self._ray.shutdown()

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]


class _Mailbox:
    """A Ray actor on the driver's node that collects the progress of trials and stores the replies."""

    def __init__(self) -> None:
        self._items: list[tuple[str, str]] = []
        self._arrived = asyncio.Event()
        self._stopped: set[str] = set()
        self._results: dict[str, dict[int, str]] = {}

    async def put(self, key: str, progress: str) -> bool:
        """Add progress of an attempt. Returns whether it should continue."""
        self._items.append((key, progress))
        self._arrived.set()
        return key not in self._stopped

    async def stop(self, key: str) -> None:
        self._stopped.add(key)

    async def leave(self, key: str, rank: int, result: str) -> None:
        """Add the result of one of an attempt's ranks."""
        self._results.setdefault(key, {})[rank] = result

    async def results(self, key: str) -> dict[int, str]:
        """Take the results of an attempt's ranks."""
        return self._results.pop(key, {})

    async def arrived(self) -> None:
        """Return when there are results to take."""
        await self._arrived.wait()
        await asyncio.sleep(BATCH_SECONDS)

    async def take(self) -> list[tuple[str, str]]:
        items, self._items = self._items, []
        self._arrived.clear()
        return items


def _run(spec: str, key: str, mailbox: Any) -> str:
    """The task: run an attempt, from JSON to JSON."""
    with _reporting(key, mailbox) as report:
        return run_attempt_apart(spec, report)


def _run_ranks(spec: str, key: str, mailbox: Any, ranks: RankResources) -> str:
    """The task of a trial with several ranks: let Ray Train run the attempt on all of them, from JSON to JSON.

    Raises:
        ray.train.TrainingFailedError: a rank or its node died, which loses the attempt.
    """
    import ray
    from ray.train import TrainingFailedError

    error: Exception | None = None
    try:
        trainer(_run_as_rank, {"spec": spec, "key": key, "mailbox": mailbox}, ranks, from_json(TrialSpec, spec)).fit()
    except TrainingFailedError as failed:
        error = failed
    results = {rank: from_json(TrialResult, result) for rank, result in ray.get(mailbox.results.remote(key)).items()}
    failure = first_failure(results)
    if error is not None and failure is None:
        raise error
    return to_json(failure or results[0])


def _run_as_rank(config: dict[str, Any]) -> None:
    """Run the attempt as one of its ranks. A rank that fails raises, so that Ray ends the others."""
    import ray

    rank, key, mailbox = int(os.environ["RANK"]), config["key"], config["mailbox"]
    if rank == 0:
        with _reporting(key, mailbox) as report:
            result = run_attempt_apart(config["spec"], report)
    else:
        result = run_attempt_apart(config["spec"], lambda progress: True)
    ray.get(mailbox.leave.remote(key, rank, result))
    if error := from_json(TrialResult, result).error:
        raise RuntimeError(error)


@contextmanager
def _reporting(key: str, mailbox: Any) -> Iterator[Report]:
    """Report the progress of an attempt to the driver, and wait at the end until it has arrived."""
    import ray

    pending: list[Any] = []
    go_on = True

    def report(progress: Progress) -> bool:
        nonlocal pending, go_on
        pending.append(mailbox.put.remote(key, to_json(progress)))
        answered, pending = ray.wait(pending, num_returns=len(pending), timeout=0)
        go_on = go_on and all(ray.get(answered))
        return go_on

    yield report
    if pending:
        ray.wait(pending, num_returns=len(pending), timeout=LAST_NEWS_SECONDS)


def _check_ranks(ranks: int, cpus: int | None, gpus: float | None) -> None:
    """Raise UserError unless CPUs and GPUs divide among the ranks of a trial."""
    if ranks > 1 and cpus is not None and cpus % ranks:
        raise UserError(f"cpus_per_trial={cpus}: give a multiple of ray.ranks_per_trial={ranks}")
    if ranks > 1 and gpus not in (None, 0, ranks):
        raise UserError(f"gpus_per_trial={gpus:g}: each rank has one GPU or none; give {ranks} or 0")


def _code_for_nodes() -> dict[str, Any]:
    """The code to send to other nodes: the working directory, and this package if it is elsewhere."""
    here, package, data = Path.cwd(), Path(metta.__path__[0]).resolve(), data_dir().resolve()
    excludes = _NOT_SHIPPED + ([f"/{data.relative_to(here)}"] if data.is_relative_to(here) else [])
    modules = {} if package.is_relative_to(here) else {"py_modules": [str(package)]}
    return {"working_dir": str(here), "excludes": excludes, **modules}


def _require_answer(address: str) -> None:
    """Raise UserError if nothing listens at the address, because Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(f"ray.address={address}: no Ray answers there ({error})") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the handlers of SIGINT and SIGTERM, because Ray replaces them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
