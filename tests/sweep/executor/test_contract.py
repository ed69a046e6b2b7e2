"""What every executor that runs trials in other processes promises."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from metta.sweep.executor.local import LocalExecutor
from metta.sweep.executor.protocol import Executor
from metta.sweep.executor.ray import RayExecutor
from metta.sweep.executor.resources import Share
from metta.sweep.store import open_store
from metta.sweep.trial import Progress, TrialState
from tests.sweep.executor.probe import write
from tests.sweep.executor.trials import alive, drive, go_on, next_finished, pids, probe, probe_definition, until


@pytest.fixture(scope="module", params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor: Executor
    if request.param == "local":
        executor = LocalExecutor([Share(threads=1), Share(threads=1)])
    else:
        executor = RayExecutor(num_workers=2)
    yield executor
    executor.close()


def test_a_trial_is_data_there_and_back(executor: Executor, tmp_path: Path) -> None:
    seen: list[Progress] = []

    def report(progress: Progress) -> bool:
        seen.append(progress)
        return True

    spec = probe(4, tmp_path, x=0.25)
    executor.submit(spec, report)
    finished = next_finished(executor)

    assert finished.spec == spec
    assert finished.lost is None
    assert finished.result is not None
    assert finished.result.error is None
    assert finished.result.metrics["score"] == 0.25
    assert finished.result.metrics["infinite"] == math.inf
    assert finished.result.metrics["threads"] == 1
    assert finished.result.metrics["ignores_interrupts"], "Ctrl-C at the terminal is the driver's"
    assert finished.result.artefacts == {"gpus": ""}
    assert [progress.step for progress in seen] == [1, 2, 3], "all progress comes, and comes before the end"
    assert seen[0] == Progress(1, None, 0.01, {"score": 0.25})


def test_trials_run_side_by_side_and_the_first_to_end_is_the_first_to_come_back(
    executor: Executor, tmp_path: Path
) -> None:
    executor.submit(probe(0, tmp_path, wait_for=str(tmp_path / "last")), go_on)
    executor.submit(probe(1, tmp_path, wait_for=str(tmp_path / "0" / "pids.1")), go_on)

    assert next_finished(executor).spec.number == 1
    assert executor.wait(0.05) is None
    executor.submit(probe(2, tmp_path), go_on)
    assert next_finished(executor).spec.number == 2
    write(tmp_path / "last")
    assert next_finished(executor).spec.number == 0


def test_an_exception_is_a_result_with_its_traceback(executor: Executor, tmp_path: Path) -> None:
    executor.submit(probe(0, tmp_path, x=-1), go_on)
    result = next_finished(executor).result
    assert result is not None
    assert "RuntimeError: x is -1.0" in (result.error or "")
    assert "Traceback" in (result.error or "")

    executor.submit(replace(probe(1, tmp_path), tool_class="tests.no.such:Tool"), go_on)
    result = next_finished(executor).result
    assert result is not None
    assert "ModuleNotFoundError" in (result.error or "")


def test_a_trial_stops_when_the_answer_to_its_progress_is_no(executor: Executor, tmp_path: Path) -> None:
    executor.submit(probe(0, tmp_path, wait_for="never"), lambda progress: progress.step < 5)
    stopped = next_finished(executor).result
    executor.submit(probe(0, tmp_path, attempt=2), go_on)
    other = next_finished(executor).result

    assert stopped is not None
    assert stopped.stopped
    assert other is not None
    assert not other.stopped, "the answer was for the attempt before"


def test_a_worker_that_is_killed_costs_one_attempt(
    executor: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    executor.submit(probe(0, tmp_path, wait_for=str(tmp_path / "end")), go_on)
    executor.submit(probe(1, tmp_path, kill_by=signal.SIGKILL, children=1), go_on)
    lost = next_finished(executor)
    assert (lost.spec.number, lost.result) == (1, None)
    assert ("SIGKILL" if isinstance(executor, LocalExecutor) else "WorkerCrashedError") in (lost.lost or "")
    assert capfd.readouterr() == ("", "")

    executor.submit(probe(1, tmp_path, attempt=2, kill_by=signal.SIGKILL), go_on)
    again = next_finished(executor)
    assert again.result is not None
    assert again.spec.number == 1
    write(tmp_path / "end")
    assert next_finished(executor).result is not None, "the other trial knows nothing of it"


def test_a_cancelled_trial_ends_at_once_and_is_not_heard_of_again(executor: Executor, tmp_path: Path) -> None:
    executor.submit(probe(0, tmp_path, wait_for="never"), go_on)
    until(lambda: pids(tmp_path))
    executor.cancel(0)
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)))
    assert executor.wait(0.5) is None

    executor.submit(probe(0, tmp_path, attempt=2, x=0.75), go_on)
    result = next_finished(executor).result
    assert result is not None
    assert result.metrics["score"] == 0.75


def test_output_goes_to_a_file_of_the_run(
    executor: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        executor.submit(probe(number, tmp_path, x=number), go_on)
        next_finished(executor)

    assert [(tmp_path / str(number) / "worker.log").read_text() for number in range(3)] == [
        f"x is {number}.0\n" for number in range(3)
    ]
    assert capfd.readouterr() == ("", "")


def test_a_sweep_on_several_workers_suggests_nothing_twice(executor: Executor, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'sweeps.db'}")
    trials = drive(store, probe_definition(10), executor, tmp_path)
    store.close()

    assert [trial.number for trial in trials] == list(range(10))
    assert all(trial.state is TrialState.COMPLETED and trial.attempts == 1 for trial in trials)
    assert len({trial.params["x"] for trial in trials}) == 10
    # How many workers share short trials is luck, and Ray may start one more than it needs.
    assert len({trial.metrics["pid"] for trial in trials}) < 10, "workers are kept"


def test_a_trial_that_kills_its_worker_three_times_is_failed_and_the_sweep_goes_on(
    executor: Executor, tmp_path: Path
) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'sweeps.db'}")
    (trial,) = drive(store, probe_definition(1, kill_by=signal.SIGSEGV, kills=3), executor, tmp_path)
    assert (trial.state, trial.attempts) == (TrialState.FAILED, 3)
    assert "lost 3 times" in (trial.error or "")

    assert drive(store, probe_definition(2), executor, tmp_path)[1].state is TrialState.COMPLETED
    store.close()
