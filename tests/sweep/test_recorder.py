"""A loop whose store is away, gone or replaced loses nothing and runs nothing twice."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from metta.sweep.definition import SweepDefinition, open_sweep
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.journal import bring_in_journals
from metta.sweep.sweep import SweepLoop
from metta.sweep.trial import Report, TrialResult, TrialSpec, TrialState
from tests.support.parabola import Parabola, parabola_definition, prepare_parabola
from tests.sweep.test_sweep import SilentView


class Faulty:
    """Runs the trials of a parabola, and does something at the start of one of them."""

    def __init__(self, at: int, fault: Callable[[], object]) -> None:
        self.ran: list[int] = []
        self._at, self._fault = at, fault

    def run_trial(self, spec: TrialSpec, report: Report) -> TrialResult:
        self.ran.append(spec.number)
        if spec.number == self._at and self.ran.count(self._at) == 1:
            self._fault()
        return Parabola.run_trial(spec, report)


def drive(
    path: Path, runner: Faulty, num_trials: int = 5, view: SilentView | None = None, **changes: object
) -> SweepState:
    definition: SweepDefinition = parabola_definition(num_trials).model_copy(update=changes)
    folder = path.parent / "runs" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    with closing(open_store(f"sqlite:///{path}")) as store:
        definition = open_sweep(store, "s", definition)
        executor = InlineExecutor(lambda tool_class: runner.run_trial)
        prepare = partial(prepare_parabola, definition)
        loop = SweepLoop("s", definition, store, executor, prepare, view or SilentView(), folder=folder)
        return loop.run()


def assert_whole(state: SweepState, runner: Faulty, num_trials: int = 5) -> None:
    assert [trial.state for trial in state.trials] == [TrialState.COMPLETED] * num_trials
    assert runner.ran == list(range(num_trials)), "no trial ran twice"


def later(seconds: float, act: Callable[[], object]) -> None:
    threading.Timer(seconds, act).start()


def test_a_file_that_is_moved_and_put_back(tmp_path: Path) -> None:
    path, aside = tmp_path / "sweeps.db", tmp_path / "aside"

    def move() -> None:
        path.rename(aside)
        later(0.5, lambda: aside.rename(path))

    runner = Faulty(2, move)
    assert_whole(drive(path, runner), runner)
    assert list((tmp_path / "runs" / "one").iterdir()) == [], "the journal is gone"


@pytest.mark.parametrize("empty", [False, True])
def test_a_file_that_is_replaced_gets_what_it_lacks(tmp_path: Path, empty: bool) -> None:
    path, other = tmp_path / "sweeps.db", tmp_path / "other.db"

    def replace() -> None:
        if empty:
            open_store(f"sqlite:///{other}").close()
        else:
            shutil.copy(path, other)
        other.replace(path)

    runner = Faulty(2, replace)
    assert_whole(drive(path, runner), runner)
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert [trial.state for trial in store.trials("s")] == [TrialState.COMPLETED] * 5


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_is_removed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "sweeps.db"
    runner = Faulty(2, Path(f"{path}{suffix}").unlink)
    assert_whole(drive(path, runner), runner)
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert [trial.state for trial in store.trials("s")] == [TrialState.COMPLETED] * 5


def test_a_file_that_is_removed_for_good_comes_back_with_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"

    def remove() -> None:
        for file in tmp_path.glob("sweeps.db*"):
            file.unlink()
        later(1.5, lambda: signal.raise_signal(signal.SIGINT))

    first, view = Faulty(2, remove), SilentView()
    with pytest.raises(KeyboardInterrupt):
        drive(path, first, view=view)
    assert first.ran == [0, 1, 2]
    assert any("not written to the store: trial 2" in notice for notice in view.notices)

    (journal,) = (tmp_path / "runs" / "one").glob("journal-*")
    journal.write_text(journal.read_text().replace('"started": "', '"started": "1'))  # as if that process had ended
    with closing(open_store(f"sqlite:///{path}")) as store:
        bring_in_journals(store, "s", tmp_path / "runs", view.notice)
        assert [trial.state for trial in store.trials("s")] == [TrialState.COMPLETED] * 3
        assert [point.step for point in store.curve("s", 1)] == [1, 2]
    second = Faulty(99, lambda: None)
    assert drive(path, second).counted == 5
    assert second.ran == [3, 4], "no recorded trial runs again"


def test_a_locked_store_is_not_part_of_a_trials_clock(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"

    def lock() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        later(4.0, connection.close)

    runner = Faulty(1, lock)
    started = time.monotonic()
    state = drive(path, runner, num_trials=3, trial_timeout=3.0)
    assert time.monotonic() - started > 3.0, "the store was away for longer than a trial may take"
    assert_whole(state, runner, 3)
    assert [trial.cost for trial in state.trials] == [pytest.approx(1.0)] * 3
