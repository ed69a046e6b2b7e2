"""The mirror of a sweep that runs: with the process that sends, and a server that comes and goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metta.common.data_dir import data_dir
from metta.sweep.definition import SweepDefinition, open_sweep
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt, Driver, Store, SweepExistsError
from metta.sweep.sweep import SweepLoop
from metta.sweep.trial import Progress, Trial, TrialSpec
from metta.sweep.wandb import mirror as mirror_module
from metta.sweep.wandb.config import WandbConfig, destination
from metta.sweep.wandb.mirror import WandbError, mirrored, pull, restore, sync, unsent
from tests.support.parabola import Parabola
from tests.support.processes import children, command_line, descendants
from tests.support.wandb_server import API_KEY, ENTITY, Run, WandbServer
from tests.sweep.wandb.conftest import Mirror, RunTrial

PATIENCE = 20.0


@pytest.fixture
def config(request: pytest.FixtureRequest) -> WandbConfig:
    return WandbConfig(project=request.node.name[:100])


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(mirror_module, "FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(mirror_module, "LAST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(mirror_module, "LAST_PATIENCE_SECONDS", 1.0)
    return []


def runs(server: WandbServer, config: WandbConfig) -> list[Run]:
    mine = [run for run in server.runs.values() if run.project == (ENTITY, config.project)]
    return [run for run in mine if run.fields["jobType"] == "trial"]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Quiet:
    """A view of a sweep that shows nothing."""

    def notice(self, message: str) -> None: ...

    def started(self, attempt: Attempt) -> None: ...

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None: ...


def sweep(store_url: str, config: WandbConfig, num_trials: int, notices: list[str]) -> list[Trial]:
    """What the command does that runs a sweep."""
    protein = ProteinConfig(
        metric="score",
        goal="maximize",
        parameters={"x": ParameterConfig(min=0, max=1, distribution="uniform")},
    )
    definition = SweepDefinition(
        protein=protein,
        num_trials=num_trials,
        tool_class="tests.support.parabola:Parabola",
        tool=Parabola().model_dump(mode="json"),
    )
    store, executor = open_store(store_url), InlineExecutor()
    try:
        definition = open_sweep(store, "parabola", definition)

        def prepare(attempt: Attempt) -> TrialSpec:
            tool = Parabola(x=attempt.params["x"]).model_dump(mode="json")
            return TrialSpec(attempt.number, attempt.attempt, definition.tool_class, tool, [], "")

        with mirrored(store_url, "parabola", config, notices.append, PATIENCE):
            return list(SweepLoop("parabola", definition, store, executor, prepare, Quiet()).run().trials)
    finally:
        executor.close()
        store.close()


def test_a_sweep_goes_on_from_w_and_b_where_the_store_is_empty(
    server: WandbServer, config: WandbConfig, notices: list[str], tmp_path: Path
) -> None:
    first = sweep(f"sqlite:///{tmp_path / 'one.sqlite'}", config, 3, notices)
    assert len(runs(server, config)) == 3
    assert {run.state for run in runs(server, config)} == {"finished"}
    other_url = f"sqlite:///{tmp_path / 'two.sqlite'}"
    restore(other_url, "parabola", config, notices.append, PATIENCE)
    second = sweep(other_url, config.model_copy(update={"enabled": False}), 5, notices)
    assert second[:3] == first
    assert [trial.number for trial in second] == [0, 1, 2, 3, 4]
    assert len({trial.params["x"] for trial in second}) == 5
    assert notices == [
        f"Weights & Biases: {server.url}/{ENTITY}/{config.project}",
        "the sweep 'parabola' was read from Weights & Biases, with 3 trials that ended",
    ]


def test_w_and_b_may_go_away_in_the_middle_and_stay_away(
    server: WandbServer, config: WandbConfig, notices: list[str], store: Store, store_url: str, run_trial: RunTrial
) -> None:
    with mirrored(store_url, "arena", config, notices.append, 2.0):
        run_trial(0)
        wait_for(lambda: store.mirrored("arena", destination(config).mirror).get("0"))
        server.stop()
        run_trial(1)
        run_trial(2)
    away = [notice for notice in notices if "is unreachable" in notice]
    assert len(away) == 1
    assert all("\n" not in notice for notice in notices)
    assert notices[-1] == "2 trials are not in Weights & Biases yet; send them with: metta-sweep sync arena"
    server.start()
    assert sync(store_url, "arena", config, notices.append, PATIENCE) == 2
    assert unsent(store, "arena", destination(config)) == 0
    assert len(runs(server, config)) == 3


def test_trials_do_not_wait_for_w_and_b(
    server: WandbServer, config: WandbConfig, notices: list[str], store: Store, store_url: str, run_trial: RunTrial
) -> None:
    """A server that takes requests and does not answer at first."""
    server.fault = lambda request: "hang"
    with mirrored(store_url, "arena", config, notices.append, 8.0):
        wait_for(lambda: server.requests)
        for number in range(5):
            run_trial(number)
        assert len(store.trials("arena")) == 5
        assert store.mirrored("arena", destination(config).mirror) == {}
        wait_for(lambda: notices)
        server.fault = None
        wait_for(lambda: len(store.mirrored("arena", destination(config).mirror)) == 6)
    assert len(runs(server, config)) == 5
    assert "is unreachable" in notices[0]
    assert "answers again" in notices[-1]


def test_a_sender_that_is_killed_is_replaced(
    server: WandbServer, config: WandbConfig, notices: list[str], store: Store, store_url: str, run_trial: RunTrial
) -> None:
    with mirrored(store_url, "arena", config, notices.append, PATIENCE):
        run_trial(0)
        wait_for(lambda: runs(server, config))
        arguments = [command_line(pid) for pid in descendants(os.getpid())]
        assert any("wandb-core" in line for line in arguments)
        assert not [line for line in arguments if API_KEY in line]
        (sender,) = [pid for pid in children(os.getpid()) if "sweep.wandb.worker" in command_line(pid)]
        os.kill(sender, signal.SIGKILL)
        run_trial(1)
        wait_for(lambda: len(store.mirrored("arena", destination(config).mirror)) == 3)
    assert len(runs(server, config)) == 2
    assert all(len(run.history) == 3 for run in runs(server, config))
    assert "its process ended" in next(notice for notice in notices if "is unreachable" in notice)


def test_a_sender_outlives_a_driver_that_is_killed(
    server: WandbServer, config: WandbConfig, store: Store, store_url: str, driver: Driver, run_trial: RunTrial
) -> None:
    """What had ended before the driver died is sent, and then the sender ends as well."""
    run_trial(0)
    store.leave(driver)
    code = (
        "import os, sys, signal, time\n"
        "from metta.sweep.wandb.mirror import mirrored, WandbConfig\n"
        f"with mirrored({store_url!r}, 'arena', WandbConfig(project={config.project!r}), print, 20.0):\n"
        "    print('on', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    wait_for((data_dir() / "wandb.log").exists)
    (sender,) = children(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: store.mirrored("arena", destination(config).mirror).get("0"))
    wait_for(lambda: not Path(f"/proc/{sender}").exists() or " Z " in Path(f"/proc/{sender}/stat").read_text())


def test_of_several_drivers_one_sends(
    server: WandbServer, config: WandbConfig, notices: list[str], store: Store, store_url: str, run_trial: RunTrial
) -> None:
    """This process drives, and so does another with a smaller id, which sends."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    drivers = store.drivers("arena")
    leader = Driver("", drivers[0].host, other.pid, drivers[0].seen_at, True)
    request = mirror_module._request("send", store_url, "arena", config, destination(config), PATIENCE, os.getpid())
    run_trial(0)
    from metta.sweep.wandb.worker import Sender

    class WithAnotherDriver:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def drivers(self, sweep: str) -> list[Driver]:
            return [*store.drivers(sweep), leader]

    closed = threading.Event()
    closed.set()
    sender = Sender(request, WithAnotherDriver(), None, None)  # type: ignore[arg-type]
    sender.run(closed)
    assert server.requests == []
    other.communicate(b"")


def test_a_process_that_hangs_is_given_up(
    server: WandbServer, config: WandbConfig, notices: list[str], store: Store, store_url: str, run_trial: RunTrial,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run_trial(0)
    monkeypatch.setattr(mirror_module, "START_SECONDS", 0.0)
    monkeypatch.setattr(mirror_module, "SILENCE", 0.0)
    server.fault = lambda request: "hang"
    with pytest.raises(WandbError, match="its process ended"):
        sync(store_url, "arena", config, notices.append, 60.0)


def test_no_sweep_is_read_where_w_and_b_is_away(
    server: WandbServer, config: WandbConfig, notices: list[str], tmp_path: Path
) -> None:
    server.stop()
    store_url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    restore(store_url, "arena", config, notices.append, 1.0)
    assert len(notices) == 1
    assert "starts from the beginning" in notices[0]


def test_by_hand_a_sweep_is_read_once(
    mirror: Mirror, notices: list[str], store: Store, store_url: str, run_trial: RunTrial
) -> None:
    run_trial(0)
    mirror.send(store)
    store.remove_sweep("arena")
    assert pull(store_url, "arena", mirror.config, notices.append, PATIENCE) == 1
    assert store.trials("arena")[0].score == 0.5
    with pytest.raises(SweepExistsError, match="arena"):
        pull(store_url, "arena", mirror.config, notices.append, PATIENCE)


def test_the_key_is_nowhere(
    server: WandbServer, config: WandbConfig, notices: list[str], store: Store, store_url: str, run_trial: RunTrial,
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Not in files, messages or the store, also when the server refuses it."""
    run_trial(0)
    server.fault = lambda request: 401 if request.kind == "file_stream" else None
    with pytest.raises(WandbError, match="1 trial is not sent yet") as refused:
        sync(store_url, "arena", config, notices.append, 1.0)
    server.fault = lambda request: 401
    with pytest.raises(WandbError, match="401") as unknown:
        sync(store_url, "arena", config, notices.append, 1.0)
    output = capfd.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "wandb.log" for path in files)
    texts = [*notices, str(refused.value), str(unknown.value), output.out, output.err]
    assert not [text for text in texts if API_KEY in text]
    assert not [path for path in files if API_KEY.encode() in path.read_bytes()]


@pytest.fixture(autouse=True)
def _none_left(server: WandbServer) -> Iterator[None]:
    """No process of ours is left behind."""
    yield
    wait_for(lambda: not [pid for pid in children(os.getpid()) if "metta.sweep.wandb" in command_line(pid)])
