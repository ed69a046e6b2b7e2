"""A sweep's mirror in Weights & Biases, on the driver's side: nothing here waits for W&B while trials run."""

from __future__ import annotations

import json
import math
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metta.common.counts import count_text
from metta.common.data_dir import data_dir
from metta.common.errors import UserError
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Store, SweepExistsError
from metta.sweep.wandb import records
from metta.sweep.wandb.config import Destination, WandbConfig, destination
from metta.sweep.wandb.worker import Request

PATIENCE_SECONDS = 40.0
"""How long a request to W&B, or the start or end of a run, may take."""

RESTORE_PATIENCE_SECONDS = 10.0
"""The same limit before a sweep starts, while the user waits."""

START_SECONDS = 60.0
SILENCE = 12.0
"""A process that should end is killed after this long without output: first the time to start, then a multiple of its
patience, because an upload may take nearly as long."""

LAST_PATIENCE_SECONDS = 10.0
FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 60.0

Notice = Callable[[str], None]
Event = dict[str, Any]


class WandbError(UserError):
    """Weights & Biases does not answer, or does not have the sweep."""


@contextmanager
def mirrored(
    store_url: str, sweep: str, config: WandbConfig, notice: Notice, patience: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Send the sweep's trials to W&B while the body drives it, and send the rest when it has ended.

    Args:
        store_url: URL of the store, with its password.
        notice: called from another thread with one line: where the runs are, and when W&B fails or recovers.
    """
    where = destination(config)
    if where.mode == "off":
        yield
        return
    follower = _Follower(_request("send", store_url, sweep, config, where, patience, os.getpid()), notice)
    thread = threading.Thread(target=follower.follow, name="wandb", daemon=True)
    thread.start()
    try:
        yield
    finally:
        try:
            follower.close()
            thread.join()
        finally:
            follower.kill()
    if left := _unsent_without_driver(store_url, sweep, where):
        waiting = count_text(left, "trial is", "trials are")
        notice(f"{waiting} not in Weights & Biases yet; send them with: metta-sweep sync {sweep}")


def restore(
    store_url: str, sweep: str, config: WandbConfig, notice: Notice, patience: float = RESTORE_PATIENCE_SECONDS
) -> None:
    """If W&B has the sweep and the store does not, read it from W&B instead of starting again."""
    if destination(config).mode != "online":
        return
    try:
        trials = pull(store_url, sweep, config, notice, patience)
    except SweepExistsError:
        return
    except WandbError as error:
        notice(f"{error}; the sweep {sweep!r} is not read from it and starts from the beginning")
        return
    if trials is not None:
        notice(f"the sweep {sweep!r} was read from Weights & Biases, with {count_text(trials, 'trial')} that ended")


def sync(store_url: str, sweep: str, config: WandbConfig, notice: Notice, patience: float = PATIENCE_SECONDS) -> int:
    """Send now the trials that W&B lacks; return how many were sent.

    Raises:
        WandbError: some or all of them cannot be sent.
    """
    where = _destination(config)
    store = open_store(store_url, create=False)
    try:
        waiting = unsent(store, sweep, where)
    finally:
        store.close()
    sent = 0
    for event in _events(_request("send", store_url, sweep, config, where, patience)):
        if event["event"] == "failed":
            left = count_text(waiting - sent, "trial is", "trials are")
            raise WandbError(f"Weights & Biases: {event['reason']}; {left} not sent yet")
        if event["event"] == "refused":
            notice(_refusal(event))
        if event["event"] == "sent":
            sent += 1
            if sent % 100 == 0:
                notice(f"{sent:,} of {count_text(waiting, 'trial')} sent")
    if sent < waiting:
        raise WandbError(f"Weights & Biases refused {waiting - sent:,} of {count_text(waiting, 'trial')}")
    return sent


def pull(
    store_url: str, sweep: str, config: WandbConfig, notice: Notice, patience: float = PATIENCE_SECONDS
) -> int | None:
    """Read a sweep that the store lacks from W&B; return how many trials were read, or None if W&B lacks it too.

    Raises:
        WandbError: W&B does not answer.
        SweepExistsError: the store has a sweep of that name.
    """
    where = _destination(config)
    if where.mode == "offline":
        raise WandbError("Weights & Biases is offline (WANDB_MODE), so nothing can be read from it")
    store = open_store(store_url)
    try:
        if any(record.name == sweep for record in store.sweeps()):
            raise SweepExistsError(f"store {store.url}: a sweep named {sweep!r} already exists")
    finally:
        store.close()
    for event in _events(_request("pull", store_url, sweep, config, where, patience)):
        if event["event"] == "failed":
            raise WandbError(f"Weights & Biases: {event['reason']}")
        if event["event"] == "pulled":
            if event["others"]:
                notice(f"the project has {event['others']} older sweeps named {sweep!r}; the newest was read")
            if event["queued"]:
                notice(f"{event['queued']} trials had not ended and are tried again")
            return int(event["ended"])
    return None


def unsent(store: Store, sweep: str, where: Destination) -> int:
    """The number of ended trials whose current version is not in W&B."""
    noted = store.mirrored(sweep, where.mirror)
    return sum(
        noted.get(str(trial.number)) != records.digest(records.encode_trial(trial))
        for trial in store.trials(sweep)
        if trial.state.ended
    )


def _unsent_without_driver(store_url: str, sweep: str, where: Destination) -> int:
    """The number of trials that no driver is about to send."""
    store = open_store(store_url, create=False)
    try:
        me = (socket.gethostname(), os.getpid())
        others = any(driver.alive and (driver.host, driver.pid) != me for driver in store.drivers(sweep))
        return 0 if others else unsent(store, sweep, where)
    finally:
        store.close()


def _refusal(event: Event) -> str:
    return f"Weights & Biases refused {event['what']}: {event['reason']}"


class _Follower:
    """Keeps a sending worker running, and starts another one when it ends, until this object is closed."""

    def __init__(self, request: Request, notice: Notice) -> None:
        self._request = request
        self._notice = notice
        self._closed = threading.Event()
        self._worker: _Worker | None = None
        self._away = False
        self._began = False

    def follow(self) -> None:
        wait = FIRST_RETRY_SECONDS
        while True:
            last = self._closed.is_set()
            self._worker = _Worker(self._request.model_copy(update={"patience": self._patience(last)}))
            if self._closed.is_set():
                self._worker.close()
            reason, heard = None, 0
            for event in self._worker.events():
                reason = self._handle(event)
                heard += 1
            if reason is None or last:
                return
            wait = FIRST_RETRY_SECONDS if heard > 1 else wait
            self._notice_unreachable(reason)
            self._closed.wait(wait)
            wait = min(2 * wait, LAST_RETRY_SECONDS)

    def _patience(self, last: bool) -> float:
        """The patience of a worker; short for the last try at an unavailable server, because the user waits for it."""
        return min(self._request.patience, LAST_PATIENCE_SECONDS) if last else self._request.patience

    def _handle(self, event: Event) -> str | None:
        if event["event"] == "failed":
            return str(event["reason"])
        if event.get("url") and not self._began:
            self._began = True
            self._notice(f"Weights & Biases: {event['url']}")
        if event["event"] == "refused":
            self._notice(_refusal(event))
        elif self._away:
            self._away = False
            self._notice("Weights & Biases answers again; the waiting trials are being sent")
        return None

    def _notice_unreachable(self, reason: str) -> None:
        if not self._away:
            self._notice(f"Weights & Biases is unreachable, so trials wait in the store and are sent later: {reason}")
        self._away = True

    def close(self) -> None:
        self._closed.set()
        if self._worker is not None:
            self._worker.close()

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()


class _Worker:
    """A worker process."""

    def __init__(self, request: Request) -> None:
        self._patience = request.patience
        self._process = subprocess.Popen(
            [sys.executable, "-m", "metta.sweep.wandb.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C at the terminal reaches only the driver
        )
        self._lock = threading.Lock()
        self._closed_at = math.inf
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, name="wandb-events", daemon=True).start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request.model_dump_json() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def events(self) -> Iterator[Event]:
        """Its events until it ends. If the process fails without an event, an event for that is added."""
        failed = False
        while (line := self._next_line()) is not None:
            event = json.loads(line)
            failed = failed or event["event"] == "failed"
            yield event
        status = self._process.wait()
        if status and not failed:
            yield {"event": "failed", "reason": f"its process ended with status {status}"}

    def _next_line(self) -> str | None:
        """Its next line, or None at its end. A process that should end and is silent for long is killed."""
        heard_at = time.monotonic()
        while True:
            try:
                return self._lines.get(timeout=1.0)
            except queue.Empty:
                since = max(heard_at, self._closed_at)
                if time.monotonic() - since > START_SECONDS + SILENCE * self._patience:
                    self.kill()

    def close(self) -> None:
        """Let it send the remaining items and end."""
        assert self._process.stdin is not None
        with self._lock:
            if not self._process.stdin.closed:
                self._closed_at = time.monotonic()
                self._process.stdin.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)


def _events(request: Request) -> Iterator[Event]:
    """Run a worker to its end."""
    worker = _Worker(request)
    worker.close()
    try:
        yield from worker.events()
    finally:
        worker.kill()


def _destination(config: WandbConfig) -> Destination:
    """Where runs are logged if W&B is requested explicitly."""
    return destination(config.model_copy(update={"enabled": True}))


def _request(
    task: Any,
    store_url: str,
    sweep: str,
    config: WandbConfig,
    where: Destination,
    patience: float,
    driver: int | None = None,
) -> Request:
    return Request(
        task=task,
        store=store_url,
        sweep=sweep,
        config=config,
        mirror=where.mirror,
        offline=where.mode == "offline",
        folder=str(data_dir().resolve()),
        driver=driver,
        patience=patience,
    )
