"""The loop: trials are recorded, lost ones tried again, and a sweep goes on wherever it was."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from metta.sweep.definition import SweepChangedError, SweepDefinition, open_sweep
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt, Store
from metta.sweep.sweep import SweepBusyError, SweepLoop, TooManyFailuresError
from metta.sweep.trial import Progress, Trial, TrialState
from tests.support.parabola import Parabola, parabola_definition, prepare_parabola


class SilentView:
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, message: str) -> None:
        self.notices.append(message)

    def started(self, attempt: Attempt) -> None: ...

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'sweeps.db'}")
    yield store
    store.close()


def drive(store: Store, definition: SweepDefinition, on_change: str = "refuse") -> list[Trial]:
    definition = open_sweep(store, "s", definition, on_change="extend" if on_change == "extend" else "refuse")
    prepare = partial(prepare_parabola, definition)
    return list(SweepLoop("s", definition, store, InlineExecutor(), prepare, SilentView()).run().trials)


def test_a_sweep_ends_at_exactly_num_trials_and_finds_the_best(store: Store) -> None:
    trials = drive(store, parabola_definition(12))

    assert [trial.number for trial in trials] == list(range(12))
    assert all(trial.state is TrialState.COMPLETED for trial in trials)
    for trial in trials:
        assert 0 <= trial.params["x"] <= 1
        assert trial.score == pytest.approx(1 - (trial.params["x"] - 0.7) ** 2)
        assert trial.cost == pytest.approx(1.0)
    assert max(trial.score or 0 for trial in trials) > 0.999
    assert trials == store.trials("s")


def test_progress_is_kept_as_a_learning_curve(store: Store) -> None:
    drive(store, parabola_definition(1, Parabola(steps=5)))

    assert [point.step for point in store.curve("s", 0)] == [1, 2, 3, 4, 5]


def test_an_interrupted_trial_is_lost_and_tried_again_under_its_number(store: Store, tmp_path: Path) -> None:
    definition = parabola_definition(3, Parabola(interrupt_once=str(tmp_path / "interrupted")))

    with pytest.raises(KeyboardInterrupt):
        drive(store, definition)
    (lost,) = store.trials("s")
    assert (lost.state, lost.attempts) == (TrialState.QUEUED, 1)
    assert not any(driver.alive for driver in store.drivers("s"))

    trials = drive(store, definition)
    assert [trial.attempts for trial in trials] == [2, 1, 1]
    assert trials[0].params == lost.params
    assert trials[0].cost == pytest.approx(2.0), "the cost is summed over attempts"


def test_a_resumed_sweep_suggests_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    # The cost of a trial must not hold its lost attempts here, for what trials cost shapes what is suggested.
    whole = open_store(f"sqlite:///{tmp_path / 'whole.db'}")
    expected = [trial.params for trial in drive(whole, parabola_definition(9, cost_metric="work"))]

    parts = open_store(f"sqlite:///{tmp_path / 'parts.db'}")
    for _ in range(2):
        flag = tmp_path / "interrupted"
        flag.unlink(missing_ok=True)
        tool = Parabola(interrupt_once=str(flag))
        with pytest.raises(KeyboardInterrupt):
            drive(parts, parabola_definition(9, tool, cost_metric="work"))
    resumed = drive(parts, parabola_definition(9, cost_metric="work"))

    assert [trial.params for trial in resumed] == expected


def test_a_larger_num_trials_extends_and_keeps_what_there_is(store: Store) -> None:
    first = drive(store, parabola_definition(3))
    extended = drive(store, parabola_definition(5))

    assert extended[:3] == first
    assert len(extended) == 5
    assert drive(store, parabola_definition(5)) == extended, "a complete sweep has nothing left to run"


def test_an_exception_fails_the_trial_with_its_traceback_and_the_sweep_goes_on(store: Store) -> None:
    trials = drive(store, parabola_definition(12, Parabola(fail_above=0.8)))

    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    assert failed
    assert {trial.number for trial in failed} == {trial.number for trial in trials if trial.params["x"] > 0.8}
    assert all("RuntimeError: x = " in (trial.error or "") and "Traceback" in (trial.error or "") for trial in failed)


def test_a_score_that_is_not_finite_fails_the_trial_and_says_so(store: Store) -> None:
    trials = drive(store, parabola_definition(12, Parabola(nan_above=0.8)))

    failed = [trial for trial in trials if trial.params["x"] > 0.8]
    assert failed
    assert all(trial.state is TrialState.FAILED and trial.error == "the score score is nan" for trial in failed)
    assert all(trial.score is not None and math.isnan(trial.score) for trial in failed)


def test_five_failures_in_a_row_stop_the_sweep_with_the_reason(store: Store) -> None:
    with pytest.raises(TooManyFailuresError, match=r"5 trials failed in a row.*is above -1"):
        drive(store, parabola_definition(20, Parabola(fail_above=-1)))
    assert len(store.trials("s")) == 5


def test_a_spent_budget_ends_the_sweep(store: Store) -> None:
    trials = drive(store, parabola_definition(20, max_cost=4.5))

    assert len(trials) == 5, "each trial costs 1, and the fifth passes 4.5"
    assert len(drive(store, parabola_definition(20, max_cost=7))) == 7, "a larger budget extends the sweep"


def test_another_cost_metric_is_taken_from_the_run(store: Store) -> None:
    trials = drive(store, parabola_definition(3, cost_metric="work"))

    assert [trial.cost for trial in trials] == [pytest.approx(10 * trial.params["x"]) for trial in trials]


def test_a_metric_the_run_does_not_measure_fails_the_trial(store: Store) -> None:
    with pytest.raises(TooManyFailuresError, match="did not measure 'cost'"):
        drive(store, parabola_definition(9).update({"protein.metric": "cost"}))


def test_a_changed_question_is_refused_with_the_difference(store: Store) -> None:
    drive(store, parabola_definition(2))
    wider = ProteinConfig(metric="score", parameters={"x": ParameterConfig(min=0, max=2, distribution="uniform")})

    with pytest.raises(SweepChangedError, match=r"parameters\.x\.max: 1\.0 -> 2\n"):
        drive(store, parabola_definition(4, protein=wider))
    assert len(store.trials("s")) == 2

    trials = drive(store, parabola_definition(4, protein=wider), on_change="extend")
    assert len(trials) == 4


def test_an_extended_sweep_learns_from_trials_of_a_smaller_space(store: Store) -> None:
    old = drive(store, parabola_definition(4))
    larger = ProteinConfig(
        metric="score",
        parameters={
            "x": ParameterConfig(min=0, max=1, distribution="uniform"),
            "steps": ParameterConfig(min=1, max=4, distribution="int_uniform"),
        },
    )

    trials = drive(store, parabola_definition(7, protein=larger), on_change="extend")

    assert trials[:4] == old
    assert all(isinstance(trial.params["steps"], int) for trial in trials[4:])


def test_a_second_driver_is_refused_while_the_first_lives(store: Store) -> None:
    open_sweep(store, "s", parabola_definition(2))
    first = store.join("s")

    with pytest.raises(SweepBusyError, match=f"process {os.getpid()}"):
        drive(store, parabola_definition(2))
    store.leave(first)
    assert len(drive(store, parabola_definition(2))) == 2


DRIVER = """
import sys
from tests.support.parabola import Parabola, parabola_definition
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from tests.sweep.test_sweep import drive
drive(open_store(sys.argv[1]), parabola_definition(30, Parabola(seconds_per_step=0.02)))
"""


def test_kill_9_at_ten_random_moments_loses_no_ended_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sweeps.db'}"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", DRIVER, url]
    generator = random.Random(0)
    store = open_store(url)
    ended: dict[int, Trial] = {}

    def check() -> None:
        now = {trial.number: trial for trial in store.trials("s")}
        assert sorted(now) == list(range(len(now)))
        for number, trial in ended.items():
            assert now[number] == trial, "a trial that ended is kept as it was"
        ended.update({number: trial for number, trial in now.items() if trial.state.ended})

    for _ in range(10):
        process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE)
        before = len(ended)
        while process.poll() is None and not (store.sweeps() and store.revision("s") > 2 * before):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        check()
    subprocess.run(command, cwd=root, check=True, timeout=60)
    check()

    trials = store.trials("s")
    assert len(trials) == 30
    assert all(trial.state is TrialState.COMPLETED or trial.attempts == 3 for trial in trials)
    store.close()
