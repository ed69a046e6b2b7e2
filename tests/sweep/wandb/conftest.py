"""The real client against a server on loopback. Client and server serve all tests of a session, for starting one takes
a second; each test has its own project."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Driver, Outcome, Store
from metta.sweep.trial import Progress, TrialState
from metta.sweep.wandb import records
from metta.sweep.wandb.config import WandbConfig
from metta.sweep.wandb.project import Project
from metta.sweep.wandb.worker import Request, Sender, pull
from tests.support.wandb_server import ENTITY, Run, WandbServer

PATIENCE = 20.0
CONFIG = {
    "protein": {"metric": "score", "goal": "maximize", "parameters": {"optimizer": {"lr": {"min": 1e-5, "max": 0.01}}}},
    "tool": {"optimizer": {"lr": 0.001, "beta": 0.9}},
    "num_trials": 3,
    "bound": float("inf"),
}
SEARCH = SweepDefinition(
    protein=ProteinConfig(
        metric="score",
        parameters={"optimizer.lr": {"min": 1e-5, "max": 0.01, "distribution": "log_normal"}},
    ),
    num_trials=3,
    tool_class="a:B",
    tool={"optimizer": {"lr": 0.001}},
).model_dump(mode="json")
"""A definition that can be read, which `CONFIG` is not."""

_VARIABLES = ("WANDB_ENTITY", "WANDB_PROJECT", "WANDB_MODE", "WANDB_DIR", "WANDB_CONFIG_DIR", "NETRC")
_numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _not_disabled() -> Iterator[None]:
    """The rest of the suite has nothing to do with W&B."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE")
        yield


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    home = tmp_path_factory.mktemp("home")
    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        for name in _VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_CACHE_DIR", str(home / "cache"))
        patch.setenv("WANDB_DATA_DIR", str(home / "data"))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield server
        if "wandb" in __import__("sys").modules:
            import wandb

            wandb.teardown()


@pytest.fixture
def server(_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """The server, whole; it must have understood all that the client sent."""
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))
    _server.forget()
    yield _server
    _server.fault = None
    assert _server.problems == []


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = open_store(store_url)
    store.create_sweep("arena", CONFIG, {"path": "experiments.arena.sweep"})
    yield store
    store.close()


@pytest.fixture
def driver(store: Store) -> Driver:
    return store.join("arena")


@dataclass
class Mirror:
    """One W&B project, written and read in this process."""

    server: WandbServer
    folder: Path
    offline: bool = False
    log_policy: bool = False
    patience: float = PATIENCE
    name: str = field(default_factory=lambda: f"project-{next(_numbers)}")

    @property
    def config(self) -> WandbConfig:
        return WandbConfig(project=self.name, log_policy=self.log_policy)

    def send(self, store: Store) -> list[dict[str, Any]]:
        """Send what is there now, and return what was said of it."""
        events, closed = io.StringIO(), threading.Event()
        closed.set()
        Sender(self._request("send"), store, self._project(), events).run(closed)
        return [json.loads(line) for line in events.getvalue().splitlines()]

    def fail_to_send(self, store: Store) -> str:
        """Send where that cannot work, and return the reason that is given."""
        try:
            (event,) = self.send(store)
        except Exception as error:
            return records.explain(error)
        assert event["event"] == "refused"
        return str(event["reason"])

    def pull(self, store: Store, sweep: str = "arena") -> dict[str, Any]:
        events = io.StringIO()
        pull(self._request("pull", sweep), store, self._project(), events)
        (event,) = [json.loads(line) for line in events.getvalue().splitlines()]
        return dict(event)

    def sender(self, store: Store) -> Sender:
        return Sender(self._request("send"), store, self._project(), io.StringIO())

    def run(self, item: str | int) -> Run:
        """The run of a trial, or of the sweep."""
        (run,) = [run for run in self.runs() if run.name.endswith(f"-{item}")]
        return run

    def runs(self) -> list[Run]:
        return [run for run in self.server.runs.values() if run.project == (ENTITY, self.name)]

    def _project(self) -> Project:
        return Project(self.config, self.folder, self.patience, self.offline)

    def _request(self, task: Any, sweep: str = "arena") -> Request:
        return Request(
            task=task,
            store="",
            sweep=sweep,
            config=self.config,
            mirror=self.name,
            offline=self.offline,
            folder=str(self.folder),
            patience=self.patience,
        )


@pytest.fixture
def mirror(server: WandbServer, tmp_path: Path) -> Mirror:
    folder = tmp_path / "files"
    folder.mkdir()
    return Mirror(server, folder)


RunTrial = Callable[..., None]


@pytest.fixture
def run_trial(store: Store, driver: Driver) -> RunTrial:
    """Runs a trial from start to end, with three points of a learning curve."""

    def run(number: int, score: float | None = 0.5, state: TrialState = TrialState.COMPLETED, **outcome: Any) -> None:
        attempt = store.start(driver, number, {"optimizer.lr": 0.001 * (number + 1)}, {"source": "random"})
        curve = [Progress(100 * step, 300, 0.5 * step, {"reward": step / 4}) for step in (1, 2, 3)]
        store.record_progress(attempt, curve)
        store.end(attempt, Outcome(state, score, 2.0, 2.0, **{"metrics": {"score": score or 0.0}, **outcome}))

    return run
