"""Worker processes: what they may use, and that none outlives its driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.common.errors import UserError
from metta.sweep.executor import RayOptions, open_executor
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.local import LocalExecutor
from metta.sweep.executor.resources import Machine, Share, divide
from metta.sweep.store import open_store
from metta.sweep.trial import TrialState
from tests.sweep.executor.probe import write
from tests.sweep.executor.trials import PATIENCE_SECONDS, alive, go_on, next_finished, pids, probe, until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    with closing(LocalExecutor([Share(threads=3, gpus=("1", "2"))])) as executor:
        yield executor


def test_a_worker_has_its_share_of_the_machine_and_keeps_what_it_imported(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    results = []
    for number in range(2):
        executor.submit(probe(number, tmp_path), go_on)
        results.append(next_finished(executor).result)

    first, second = results
    assert first is not None
    assert second is not None
    assert first.metrics["threads"] == 3
    assert first.artefacts["gpus"] == "1,2"
    assert first.metrics["pid"] == second.metrics["pid"] != os.getpid()


def test_a_killed_worker_takes_the_processes_that_it_started_with_it(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(probe(0, tmp_path, kill_by=signal.SIGABRT, children=2), go_on)
    lost = next_finished(executor).lost or ""

    assert "ended with exit status 134 (SIGABRT)" in lost
    assert str(tmp_path / "0" / "worker.log") in lost
    assert "run_trial" in (tmp_path / "0" / "worker.log").read_text(), "the log shows where it was"
    assert len(pids(tmp_path)) == 3
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


def test_a_worker_that_exits_says_its_status(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    executor.submit(probe(0, tmp_path), go_on)
    assert "ended with exit status 1" in (next_finished(executor).lost or "")


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    executor = LocalExecutor([Share(threads=1), Share(threads=1)])
    for number in range(2):
        executor.submit(probe(number, tmp_path, wait_for="never", children=1), go_on)
    until(lambda: len(pids(tmp_path)) == 4)
    executor.close()
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


DRIVER = """
import sys
from pathlib import Path
from metta.sweep.executor.local import LocalExecutor
from metta.sweep.executor.resources import Share
from metta.sweep.store import open_store
from tests.sweep.executor.probe import write
from tests.sweep.executor.trials import drive, probe_definition
folder = Path(sys.argv[1])
definition = probe_definition(4, wait_for=str(folder / "end"), children=1)
drive(open_store(f"sqlite:///{folder / 'sweeps.db'}"), definition, LocalExecutor([Share(1)] * 2), folder)
"""


def test_workers_end_with_a_driver_that_is_killed_and_the_sweep_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    driver = subprocess.Popen(command, cwd=ROOT)
    until(lambda: len(pids(tmp_path)) == 4)
    driver.kill()
    driver.wait()
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)))

    write(tmp_path / "end")
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_SECONDS)
    with closing(open_store(f"sqlite:///{tmp_path / 'sweeps.db'}")) as store:
        trials = store.trials("s")
    assert [(trial.state, trial.attempts) for trial in trials] == [
        (TrialState.COMPLETED, attempts) for attempts in (2, 2, 1, 1)
    ]


@given(
    cores=st.integers(1, 64),
    num_gpus=st.integers(0, 8),
    num_workers=st.none() | st.integers(1, 80),
    cpus=st.none() | st.integers(1, 8),
    gpus=st.none() | st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 1.0, 2.0, 3.0]),
)
def test_no_gpu_and_no_core_that_was_asked_for_is_given_away_twice(
    cores: int, num_gpus: int, num_workers: int | None, cpus: int | None, gpus: float | None
) -> None:
    machine = Machine(cores, tuple(f"GPU-{index}" for index in range(num_gpus)))
    try:
        shares = divide(machine, num_workers, cpus, gpus)
    except UserError:
        return
    assert len(shares) == (num_workers or len(shares)) > 0
    if cpus is not None:
        assert {share.threads for share in shares} == {cpus}
        assert sum(share.threads for share in shares) <= cores
    if gpus is not None:
        used = [gpu for share in shares for gpu in share.gpus]
        assert all(used.count(gpu) * min(1.0, gpus) <= 1 + 1e-6 for gpu in used)
        assert {len(share.gpus) for share in shares} == {0 if gpus == 0 else max(1, int(gpus))}


@pytest.mark.parametrize(
    ("machine", "settings", "expected"),
    [
        (Machine(8), (None, None, None), [Share(1)] * 8),
        (Machine(8), (3, None, None), [Share(2)] * 3),
        (Machine(8), (None, 4, None), [Share(4)] * 2),
        (Machine(2), (64, None, None), [Share(1)] * 64),
        (Machine(8, ("0", "1")), (None, None, None), [Share(4, ("0",)), Share(4, ("1",))]),
        (Machine(8, ("0", "1")), (3, None, None), [Share(2, ("0",)), Share(2, ("1",)), Share(2, ("0",))]),
        (Machine(8, ("0", "1")), (None, None, 0.5), [Share(2, ("0",)), Share(2, ("1",))] * 2),
        (Machine(8, ("0", "1", "2", "3")), (None, None, 2), [Share(4, ("0", "1")), Share(4, ("2", "3"))]),
        (Machine(8, ("0",)), (2, None, 0), [Share(4)] * 2),
    ],
)
def test_the_machine_is_divided(machine: Machine, settings: tuple[int, int, float], expected: list[Share]) -> None:
    assert divide(machine, *settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((4, 2, None), "need 8 cores; this machine has 4"),
        ((None, 5, None), "need 5 cores; this machine has 4"),
        ((3, None, 1.0), "2 GPUs have room for 2"),
        ((None, None, 3.0), "this machine has 2 GPUs"),
        ((None, None, 1.5), "a fraction up to 1, or a whole number"),
    ],
)
def test_more_than_the_machine_has_is_refused(settings: tuple[int, int, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        divide(Machine(4, ("0", "1")), *settings)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"num_workers=2: executor=inline runs one trial at a time"):
        open_executor("inline", num_workers=2)
    with pytest.raises(UserError, match="cpus_per_trial=2: executor=inline"):
        open_executor(cpus_per_trial=2)
    with pytest.raises(UserError, match="executor=local does not use Ray"):
        open_executor("local", ray=RayOptions(address="auto"))


def test_the_executor_is_chosen_by_the_number_of_workers() -> None:
    assert isinstance(open_executor(), InlineExecutor)
    assert isinstance(open_executor(num_workers=1), InlineExecutor)
    assert isinstance(open_executor(num_workers=2), LocalExecutor)
    assert open_executor(num_workers=2).slots == 2
