"""What every store promises, see `metta.sweep.store.protocol`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metta.common.errors import UserError
from metta.sweep.store import open_store, process
from metta.sweep.store.protocol import (
    MAX_ATTEMPTS,
    Attempt,
    Driver,
    Instruction,
    NumberTakenError,
    Outcome,
    StaleAttemptError,
    Store,
    SweepExistsError,
    SweepNotFoundError,
    TrialStateError,
)
from metta.sweep.trial import Progress, TrialState

COMPLETED = Outcome(TrialState.COMPLETED, score=0.5, cost=2.0, seconds=2.0)


@pytest.fixture
def driver(store: Store) -> Driver:
    store.create_sweep("arena", {"num_trials": 10})
    return store.join("arena")


@pytest.fixture
def other(store_url: str, driver: Driver) -> Iterator[Store]:
    """The store as another process has it open."""
    other = open_store(store_url)
    yield other
    other.close()


@pytest.fixture
def join_elsewhere(other: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Driver]:
    """Join as a process of another machine would: what is known here of its pid and clock says nothing."""

    def join(lease_seconds: float) -> Driver:
        with monkeypatch.context() as patch:
            patch.setattr(process, "_boot", lambda: "another machine")
            return other.join("arena", lease_seconds)

    return join


# ---- sweeps


def test_a_sweep_is_read_back_as_it_was_created(store: Store) -> None:
    config = {"protein": {"metric": "hearts"}, "seed": 7, "bounds": [0.1, None, float("inf")], "text": "µ✓"}
    entry_point = {"path": "experiments.sweep_arena.sweep_optimizer", "args": {"num_trials": 3}}
    created = store.create_sweep("arena", config, entry_point)
    assert store.sweep("arena") == created
    assert (created.name, created.config, created.entry_point) == ("arena", config, entry_point)
    assert abs(datetime.now(UTC) - created.created_at) < timedelta(minutes=5)


def test_sweeps_are_listed_in_the_order_of_their_creation(store: Store) -> None:
    for name in ("b", "a", "c"):
        store.create_sweep(name, {})
    assert [sweep.name for sweep in store.sweeps()] == ["b", "a", "c"]
    assert store.sweep("a").entry_point is None


def test_a_name_is_given_once(store: Store) -> None:
    store.create_sweep("arena", {"seed": 1})
    with pytest.raises(SweepExistsError, match="arena"):
        store.create_sweep("arena", {"seed": 2})
    assert store.sweep("arena").config == {"seed": 1}


def test_an_unknown_sweep_is_refused_with_the_nearest_names(store: Store) -> None:
    store.create_sweep("arena", {})
    calls: list[Callable[[], object]] = [
        lambda: store.sweep("arean"),
        lambda: store.update_sweep("arean", {}),
        lambda: store.remove_sweep("arean"),
        lambda: store.join("arean"),
        lambda: store.trials("arean"),
        lambda: store.revision("arean"),
        lambda: store.enqueue("arean", {}),
        lambda: store.add("arean", {}, COMPLETED),
        lambda: store.drivers("arean"),
        lambda: store.curve("arean", 0),
    ]
    for call in calls:
        with pytest.raises(SweepNotFoundError, match="did you mean 'arena'"):
            call()


def test_update_replaces_the_configuration_and_keeps_an_entry_point_that_is_not_given(store: Store) -> None:
    store.create_sweep("arena", {"num_trials": 3}, {"path": "a.b"})
    store.update_sweep("arena", {"num_trials": 5})
    assert (store.sweep("arena").config, store.sweep("arena").entry_point) == ({"num_trials": 5}, {"path": "a.b"})
    store.update_sweep("arena", {"num_trials": 6}, {"path": "c.d"})
    assert (store.sweep("arena").config, store.sweep("arena").entry_point) == ({"num_trials": 6}, {"path": "c.d"})


def test_a_removed_sweep_is_gone_with_all_that_was_its_own(store: Store, driver: Driver) -> None:
    store.create_sweep("other", {})
    store.add("other", {"lr": 1.0}, COMPLETED)
    attempt = store.start(driver, 0, {"lr": 0.1})
    store.record_progress(attempt, [Progress(1, 2, 3.0)])
    store.remove_sweep("arena")
    with pytest.raises(SweepNotFoundError):
        store.trials("arena")
    with pytest.raises(SweepNotFoundError):
        store.start(driver, 0, {})
    store.create_sweep("arena", {})
    assert store.trials("arena") == []
    assert store.drivers("arena") == []
    with pytest.raises(StaleAttemptError):
        store.end(attempt, COMPLETED)
    assert len(store.trials("other")) == 1


# ---- the life of a trial


def test_a_trial_from_start_to_end(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {"trainer.lr": 0.1, "trainer.size": 64}, {"source": "acquisition", "mean": 1.5})
    assert (attempt.sweep, attempt.number, attempt.attempt) == ("arena", 0, 1)
    assert attempt.params == {"trainer.lr": 0.1, "trainer.size": 64}
    (running,) = store.trials("arena")
    assert (running.state, running.attempts, running.score, running.ended_at) == (TrialState.RUNNING, 1, None, None)
    outcome = Outcome(
        TrialState.COMPLETED, 0.75, 12.5, 11.0, {"hearts": 0.75, "steps": 100.0}, {"policy": "file:///p.safetensors"}
    )
    trial = store.end(attempt, outcome)
    assert store.trials("arena") == [trial]
    assert trial.params == {"trainer.lr": 0.1, "trainer.size": 64}
    assert trial.suggestion == {"source": "acquisition", "mean": 1.5}
    assert (trial.state, trial.score, trial.cost) == (TrialState.COMPLETED, 0.75, 12.5)
    assert trial.metrics == {"hearts": 0.75, "steps": 100.0}
    assert trial.artefacts == {"policy": "file:///p.safetensors"}
    assert trial.created_at
    assert trial.started_at
    assert trial.ended_at
    assert trial.created_at <= trial.started_at <= trial.ended_at


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.PRUNED])
def test_a_trial_that_failed_or_was_pruned(store: Store, driver: Driver, state: TrialState) -> None:
    error = "Traceback (most recent call last):\n  café \x00 \ud800\nValueError: no"
    trial = store.end(store.start(driver, 0, {}), Outcome(state, error=error))
    assert trial.state is state
    assert trial.error == error.replace("\x00", "\\x00").replace("\ud800", "\\ud800")


@pytest.mark.parametrize("state", [TrialState.QUEUED, TrialState.RUNNING])
def test_an_attempt_cannot_end_in_a_state_that_is_no_end(store: Store, driver: Driver, state: TrialState) -> None:
    attempt = store.start(driver, 0, {})
    with pytest.raises(ValueError, match=state):
        store.end(attempt, Outcome(state))
    with pytest.raises(ValueError, match=state):
        store.add("arena", {}, Outcome(state))
    assert store.end(attempt, COMPLETED).number == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
def test_every_float_is_kept_as_it_is(store: Store, driver: Driver, value: float) -> None:
    params, suggestion = {"a": [value, {"b": value}]}, {"mean": value}
    attempt = store.start(driver, 0, params, suggestion)
    store.record_progress(attempt, [Progress(1, None, value, {"reward": value})])
    trial = store.end(attempt, Outcome(TrialState.FAILED, value, value, metrics={"m": value}))
    read = store.trials("arena")[0]
    for kept in (trial, read):
        assert repr(kept.score) == repr(kept.cost) == repr(kept.metrics["m"]) == repr(value)
        assert repr((kept.params, kept.suggestion)) == repr((params, suggestion))
    assert repr(store.curve("arena", 0)[0].metrics) == repr({"reward": value})
    assert repr(store.curve("arena", 0)[0].seconds) == repr(value)


def test_numbers_of_numpy_are_kept_as_numbers(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {"i": np.int64(3), "f": np.float32(0.5), "nan": np.float32("nan")})
    trial = store.end(attempt, Outcome(TrialState.COMPLETED, np.float64(1.5), 1.0, 1.0, {"m": np.float64(0.25)}))
    assert repr(trial.params) == "{'i': 3, 'f': 0.5, 'nan': nan}"
    assert (trial.score, trial.metrics) == (1.5, {"m": 0.25})


def test_what_is_not_json_is_refused_and_nothing_is_recorded(store: Store, driver: Driver) -> None:
    with pytest.raises(UserError, match="not JSON data"):
        store.start(driver, 0, {"a": object()})
    assert store.trials("arena") == []
    assert store.start(driver, 0, {}).number == 0


def test_a_number_is_started_once_and_only_in_its_turn(store: Store, driver: Driver) -> None:
    with pytest.raises(NumberTakenError):
        store.start(driver, 1, {})
    store.start(driver, 0, {"by": "first"})
    with pytest.raises(NumberTakenError):
        store.start(store.join("arena"), 0, {"by": "second"})
    assert [trial.params for trial in store.trials("arena")] == [{"by": "first"}]
    assert store.start(driver, 1, {}).number == 1


def test_an_attempt_ends_once(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {})
    store.end(attempt, COMPLETED)
    late: list[Callable[[], object]] = [
        lambda: store.end(attempt, Outcome(TrialState.FAILED, error="late")),
        lambda: store.lose(attempt, "late"),
        lambda: store.record_progress(attempt, [Progress(1, None, 1.0)]),
    ]
    before = store.revision("arena")
    for report in late:
        with pytest.raises(StaleAttemptError):
            report()
    assert store.revision("arena") == before
    assert [(trial.state, trial.score) for trial in store.trials("arena")] == [(TrialState.COMPLETED, 0.5)]


def test_a_made_up_token_records_nothing(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {})
    with pytest.raises(StaleAttemptError):
        store.end(Attempt("arena", 0, 1, "0" * 32, {}), COMPLETED)
    assert store.end(attempt, COMPLETED).score == 0.5


# ---- the learning curve


def test_the_learning_curve_is_kept_in_order_over_attempts(store: Store, driver: Driver) -> None:
    first = store.start(driver, 0, {})
    store.record_progress(first, [Progress(10, 100, 1.0, {"r": 0.1}), Progress(20, 100, 2.0, {"r": 0.2})])
    store.record_progress(first, [])
    store.record_progress(first, [Progress(30, 100, 3.0)])
    store.lose(first, "killed")
    second = store.claim(driver)
    assert second
    store.record_progress(second, [Progress(2**40, None, 1.5, {"r": 0.3})])
    curve = [(point.attempt, point.step, point.seconds, point.metrics) for point in store.curve("arena", 0)]
    assert curve == [
        (1, 10, 1.0, {"r": 0.1}),
        (1, 20, 2.0, {"r": 0.2}),
        (1, 30, 3.0, {}),
        (2, 2**40, 1.5, {"r": 0.3}),
    ]
    assert store.curve("arena", 1) == []


def test_progress_is_the_newest_of_each_running_attempt(store: Store, driver: Driver) -> None:
    first, second = store.start(driver, 0, {}), store.start(driver, 1, {})
    assert store.progress("arena") == {}
    store.record_progress(first, [Progress(10, 2**40, 1.0, {"r": 0.1}), Progress(20, 2**40, 2.0, {"r": math.nan})])
    store.record_progress(second, [Progress(1, None, 0.5)])
    progress = store.progress("arena")
    assert repr(progress[0]) == repr(Progress(20, 2**40, 2.0, {"r": math.nan}))
    assert progress[1] == Progress(1, None, 0.5)
    store.lose(first, "killed")
    assert list(store.progress("arena")) == [1]
    again = store.claim(driver)
    assert again
    assert list(store.progress("arena")) == [1], "an earlier attempt's progress is not this one's"
    store.record_progress(again, [Progress(3, 9, 0.1)])
    assert store.progress("arena")[0] == Progress(3, 9, 0.1)


# ---- lost attempts


def test_a_lost_attempt_is_tried_again_under_its_number_with_a_new_token(store: Store, driver: Driver) -> None:
    first = store.start(driver, 0, {"lr": 0.1}, {"source": "x"})
    trial = store.lose(first, "Ctrl-C", seconds=4.0)
    assert (trial.state, trial.attempts, trial.error) == (TrialState.QUEUED, 1, None)
    second = store.claim(driver)
    assert second
    assert (second.number, second.attempt, second.params, second.suggestion) == (0, 2, {"lr": 0.1}, {"source": "x"})
    assert second.token != first.token
    with pytest.raises(StaleAttemptError):
        store.end(first, Outcome(TrialState.FAILED, error="late"))
    trial = store.end(second, COMPLETED)
    assert (trial.state, trial.attempts, trial.suggestion) == (TrialState.COMPLETED, 2, {"source": "x"})
    assert store.seconds_lost("arena", 0) == 4.0


def test_a_trial_fails_when_too_many_attempts_are_lost(store: Store, driver: Driver) -> None:
    attempt: Attempt | None = store.start(driver, 0, {})
    for count in range(1, MAX_ATTEMPTS + 1):
        assert attempt
        assert attempt.attempt == count
        trial = store.lose(attempt, "out of memory", seconds=1.0)
        attempt = store.claim(driver)
    assert attempt is None
    assert trial.state is TrialState.FAILED
    assert trial.attempts == MAX_ATTEMPTS
    assert "out of memory" in str(trial.error)
    assert trial.ended_at
    assert store.seconds_lost("arena", 0) == MAX_ATTEMPTS


def test_a_lost_attempt_took_at_least_as_long_as_its_curve_shows(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {})
    store.record_progress(attempt, [Progress(1, 9, 2.5), Progress(2, 9, 5.0)])
    store.lose(attempt, "killed", seconds=1.0)
    assert store.seconds_lost("arena", 0) == 5.0
    assert store.seconds_lost("arena", 1) == 0.0


def test_claim_takes_the_lowest_queued_trial_or_the_one_named(store: Store, driver: Driver) -> None:
    for lr in (0.0, 0.1, 0.2):
        store.enqueue("arena", {"lr": lr})
    named = store.claim(driver, 1)
    lowest = store.claim(driver)
    assert named
    assert lowest
    assert ((named.number, named.params), (lowest.number, lowest.params)) == ((1, {"lr": 0.1}), (0, {"lr": 0.0}))
    assert store.claim(driver, 1) is None
    assert store.claim(driver, 7) is None
    assert [trial.state.value for trial in store.trials("arena")] == ["running", "running", "queued"]


def test_a_failed_trial_is_retried_under_its_number_and_its_cost_is_kept(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {"lr": 0.1}, {"source": "x"})
    store.record_progress(attempt, [Progress(5, 9, 2.0, {"r": 0.1})])
    store.end(attempt, Outcome(TrialState.FAILED, math.nan, 2.5, 2.5, {"m": 1.0}, {"policy": "p"}, "ValueError: no"))
    seen = store.revision("arena")
    trial = store.retry("arena", 0)
    assert store.trials("arena", changed_since=seen) == [trial]
    assert (trial.state, trial.attempts, trial.params, trial.suggestion) == (
        TrialState.QUEUED,
        1,
        {"lr": 0.1},
        {"source": "x"},
    )
    assert (trial.score, trial.cost, trial.error, trial.ended_at) == (None, None, None, None)
    assert (trial.metrics, trial.artefacts) == ({}, {})
    assert store.seconds_lost("arena", 0) == 2.5
    assert [point.step for point in store.curve("arena", 0)] == [5]
    again = store.claim(driver)
    assert again
    assert (again.number, again.attempt) == (0, 2)
    assert store.end(again, COMPLETED).state is TrialState.COMPLETED


def test_a_trial_that_was_lost_too_often_has_as_many_attempts_again(store: Store, driver: Driver) -> None:
    store.lose(store.start(driver, 0, {}), "killed")
    for _ in range(MAX_ATTEMPTS - 1):
        attempt = store.claim(driver)
        assert attempt
        store.lose(attempt, "killed")
    assert store.retry("arena", 0).state is TrialState.QUEUED
    states = []
    while attempt := store.claim(driver):
        states.append(store.lose(attempt, "killed").state)
    assert states == [TrialState.QUEUED] * (MAX_ATTEMPTS - 1) + [TrialState.FAILED]


def test_only_a_failed_trial_is_retried(store: Store, driver: Driver) -> None:
    store.end(store.start(driver, 0, {}), COMPLETED)
    store.start(driver, 1, {})
    store.enqueue("arena", {})
    before = store.revision("arena")
    for number, problem in ((0, "is completed"), (1, "is running"), (2, "is queued"), (3, "does not exist")):
        with pytest.raises(TrialStateError, match=f"trial {number} {problem}; only a failed trial"):
            store.retry("arena", number)
    assert store.revision("arena") == before


# ---- steering


def test_a_pause_holds_for_every_driver_until_it_is_taken_back(store: Store, driver: Driver, other: Store) -> None:
    assert store.instruction(driver) is Instruction.RUN
    assert not store.paused("arena")
    other.pause("arena")
    other.pause("arena")
    late = store.join("arena")
    assert [store.instruction(each) for each in (driver, late)] == [Instruction.PAUSE] * 2
    assert store.paused("arena")
    other.resume("arena")
    assert [store.instruction(each) for each in (driver, late)] == [Instruction.RUN] * 2
    assert not store.paused("arena")


def test_a_stop_is_for_the_drivers_that_are_there(store: Store, driver: Driver, other: Store) -> None:
    assert [each.id for each in other.stop("arena")] == [driver.id]
    late = store.join("arena")
    assert [store.instruction(each) for each in (driver, late)] == [Instruction.STOP, Instruction.RUN]
    assert [each.stopping for each in store.drivers("arena")] == [True, False]
    store.pause("arena")
    assert [store.instruction(each) for each in (driver, late)] == [Instruction.STOP, Instruction.PAUSE]
    store.resume("arena")
    assert [store.instruction(each) for each in (driver, late)] == [Instruction.RUN] * 2
    store.leave(driver)
    store.leave(late)
    assert other.stop("arena") == []


def test_steering_needs_a_sweep(store: Store, driver: Driver) -> None:
    for call in (store.pause, store.resume, store.stop, store.paused, store.progress):
        with pytest.raises(SweepNotFoundError, match="did you mean 'arena'"):
            call("arean")
    store.remove_sweep("arena")
    with pytest.raises(SweepNotFoundError, match="was removed"):
        store.instruction(driver)


# ---- drivers and leases


def test_a_driver_is_known_until_it_leaves(store: Store, driver: Driver) -> None:
    assert [(other.id, other.pid, other.alive) for other in store.drivers("arena")] == [(driver.id, driver.pid, True)]
    store.leave(driver)
    store.leave(driver)
    assert store.drivers("arena") == []
    for call in (lambda: store.heartbeat(driver), lambda: store.start(driver, 0, {})):
        with pytest.raises(Exception, match="has left"):
            call()


def test_leaving_gives_up_what_the_driver_still_held(store: Store, driver: Driver) -> None:
    ended = store.start(driver, 0, {})
    store.end(ended, COMPLETED)
    held = store.start(driver, 1, {})
    store.leave(driver)
    assert [trial.state.value for trial in store.trials("arena")] == ["completed", "queued"]
    with pytest.raises(StaleAttemptError):
        store.end(held, COMPLETED)


def test_the_attempts_of_a_living_driver_are_not_released(
    store: Store, driver: Driver, other: Store, join_elsewhere: Callable[[float], Driver]
) -> None:
    store.start(driver, 0, {})
    other.start(other.join("arena"), 1, {})
    other.start(join_elsewhere(60.0), 2, {})
    assert store.release_lost("arena") == []
    assert {trial.state for trial in store.trials("arena")} == {TrialState.RUNNING}
    assert [driver.alive for driver in store.drivers("arena")] == [True] * 3


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_driver_without_heartbeat_loses_its_attempts(
    store: Store, driver: Driver, other: Store, join_elsewhere: Callable[[float], Driver], elsewhere: bool
) -> None:
    silent = join_elsewhere(0.2) if elsewhere else other.join("arena", 0.2)
    attempt = other.start(silent, 0, {})
    wait_until(lambda: not alive(store, silent))
    assert store.release_lost("arena") == [0]
    assert store.release_lost("arena") == []
    with pytest.raises(StaleAttemptError):
        other.end(attempt, COMPLETED)
    again = store.claim(driver)
    assert again
    assert again.attempt == 2
    assert store.end(again, COMPLETED).error is None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_heartbeat_renews_a_lease_even_after_it_ran_out(
    store: Store, other: Store, join_elsewhere: Callable[[float], Driver], elsewhere: bool
) -> None:
    for number, lease in enumerate([0.3, 3.0, 30.0]):  # on a slow machine it must hold longer to be seen
        silent = join_elsewhere(lease) if elsewhere else other.join("arena", lease)
        attempt = other.start(silent, number, {})
        wait_until(lambda: not alive(store, silent))  # noqa: B023
        renewed_at = time.monotonic()
        other.heartbeat(silent)
        released = store.release_lost("arena")
        if time.monotonic() - renewed_at < lease:
            break
    assert released == []
    assert other.end(attempt, COMPLETED).state is TrialState.COMPLETED


def test_a_process_never_takes_itself_for_dead(store: Store, driver: Driver) -> None:
    slow = store.join("arena", 0.0)
    attempt = store.start(slow, 0, {})
    time.sleep(0.01)
    assert store.release_lost("arena") == []
    assert alive(store, slow)
    assert store.end(attempt, COMPLETED).attempts == 1


def test_who_was_away_does_not_take_others_for_dead(store: Store, driver: Driver, other: Store) -> None:
    """All were stopped for longer than their leases; the first to go on must not give up what the others run."""
    others = other.join("arena", 3.0)
    other.start(others, 0, {})
    mine = store.join("arena", 3.0)
    time.sleep(3.1)
    assert store.release_lost("arena") == []
    store.heartbeat(mine)
    other.heartbeat(others)
    assert store.release_lost("arena") == []

    def lost() -> list[int]:
        store.heartbeat(mine)
        return store.release_lost("arena")

    wait_until(lambda: lost() == [0])  # the other one is not heard of again
    assert not alive(store, others)


def test_a_clock_set_back_does_not_hold_a_lease_for_ever(
    store: Store, other: Store, join_elsewhere: Callable[[float], Driver], store_url: str
) -> None:
    from sqlalchemy import create_engine, text

    dead = join_elsewhere(1.0)
    other.start(dead, 0, {})
    engine = create_engine(store_url)
    with engine.begin() as connection:  # the clock stood an hour ahead when the driver was last seen
        connection.execute(text("UPDATE metta_drivers SET seen_at = seen_at + 3600 WHERE id = :id"), {"id": dead.id})
    engine.dispose()
    wait_until(lambda: store.release_lost("arena") == [0])  # a server that has just started gives it a lease more


# ---- dropped trials


def test_a_dropped_trial_keeps_all_that_is_its_own(store: Store, driver: Driver) -> None:
    ended = store.end(store.start(driver, 0, {"lr": 0.1}), COMPLETED)
    failed = store.end(store.start(driver, 1, {"lr": 0.2}), Outcome(TrialState.FAILED, error="no"))
    before = store.revision("arena")
    assert store.drop("arena", [1, 0], "a typing error") == [
        replace(ended, dropped="a typing error"),
        replace(failed, dropped="a typing error"),
    ]
    assert store.trials("arena", changed_since=before) == store.trials("arena")
    assert [trial.dropped for trial in store.drop("arena", [0])] == [""]
    assert [trial.dropped for trial in store.trials("arena")] == ["", "a typing error"]
    before = store.revision("arena")
    assert store.restore("arena", {0, 1}) == [ended, failed]
    assert store.trials("arena", changed_since=before) == [ended, failed]
    assert store.drop("arena", []) == store.restore("arena", []) == []


def test_trials_are_dropped_and_restored_all_or_none(store: Store, driver: Driver) -> None:
    for _ in range(3):
        store.enqueue("arena", {})
    before = store.revision("arena")
    with pytest.raises(TrialStateError, match="arena: trial 7 is not in the sweep"):
        store.drop("arena", [0, 7])
    with pytest.raises(TrialStateError, match=f"trials -1, {10**30} are not in the sweep"):
        store.drop("arena", [-1, 10**30])
    assert store.revision("arena") == before
    store.drop("arena", [1])
    with pytest.raises(TrialStateError, match="trial 0 is not dropped"):
        store.restore("arena", [0, 1])
    with pytest.raises(TrialStateError, match="trial 3 is not in the sweep"):
        store.restore("arena", [1, 3])
    assert [trial.dropped for trial in store.trials("arena")] == [None, "", None]
    for call in (store.drop, store.restore):
        for numbers in ([0], []):
            with pytest.raises(SweepNotFoundError):
                call("arean", numbers)


def test_a_dropped_trial_is_neither_claimed_nor_retried(store: Store, driver: Driver) -> None:
    store.enqueue("arena", {})
    store.enqueue("arena", {})
    store.drop("arena", [0])
    assert store.claim(driver, 0) is None
    attempt = store.claim(driver)
    assert attempt
    assert attempt.number == 1
    assert store.claim(driver) is None
    store.drop("arena", [1], "while it runs")
    trial = store.end(attempt, Outcome(TrialState.FAILED, cost=2.0))
    assert (trial.state, trial.cost, trial.dropped) == (TrialState.FAILED, 2.0, "while it runs")
    with pytest.raises(TrialStateError, match="trial 1 is dropped; undo the drop first"):
        store.retry("arena", 1)
    store.restore("arena", [0, 1])
    assert store.retry("arena", 1).state is TrialState.QUEUED
    assert store.claim(driver, 0)


# ---- queued and added trials


def test_many_trials_are_added_at_once(store: Store, driver: Driver) -> None:
    store.enqueue("arena", {})
    outcome = Outcome(TrialState.PRUNED, 0.5, 3.0, cost_metric="tokens", dropped="as there")
    before = store.revision("arena")
    rows = [({"lr": 0.1}, COMPLETED), ({"lr": 0.2}, None), ({"lr": 0.3}, outcome)]
    rows.append(({"lr": 0.4}, Outcome(TrialState.QUEUED, dropped="never run")))
    assert store.append("arena", rows) == [1, 2, 3, 4]
    added = store.trials("arena", changed_since=before)
    assert [(trial.number, trial.state.value, trial.params) for trial in added] == [
        (1, "completed", {"lr": 0.1}),
        (2, "queued", {"lr": 0.2}),
        (3, "pruned", {"lr": 0.3}),
        (4, "queued", {"lr": 0.4}),
    ]
    assert [(trial.cost_metric, trial.dropped) for trial in added] == [
        (None, None),
        (None, None),
        ("tokens", "as there"),
        (None, "never run"),
    ]
    assert [trial.ended_at is None for trial in added] == [False, True, False, True]
    assert store.append("arena", []) == []
    with pytest.raises(SweepNotFoundError):
        store.append("arean", [])


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, 10**5000], ids=["an object", "a key", "too many digits"])
def test_trials_are_added_all_or_none(store: Store, driver: Driver, value: object) -> None:
    before = store.revision("arena")
    with pytest.raises(UserError) as caught:
        store.append("arena", [({}, COMPLETED), ({"a": value}, None)])
    assert "\n" not in str(caught.value)
    assert store.trials("arena") == []
    assert store.revision("arena") == before


def test_what_contains_itself_is_refused(store: Store, driver: Driver) -> None:
    itself: dict[str, object] = {}
    itself["a"] = itself
    with pytest.raises(UserError, match="contains itself"):
        store.enqueue("arena", itself)


def test_results_are_never_refused(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {"\ud800\x00": "\ud800\x00", "big": 10**100})
    store.record_progress(attempt, [Progress(2**70, -(2**70), 1.0, {"m": 10**400})])
    assert store.curve("arena", 0)[0].step == 2**63 - 1
    assert store.progress("arena")[0].total == -(2**63 - 1)
    odd: dict[Any, Any] = {"big": -(10**400), "text": "high", "none": None, "list": [1.0], "nul\x00\ud800": 1, 3: "2.5"}
    files: dict[str, Any] = {"policy": Path("p")}
    outcome = Outcome(TrialState.COMPLETED, odd["big"], -0.0, metrics=odd, artefacts=files, cost_metric="a\x00")
    trial = store.end(attempt, outcome)
    assert repr((trial.score, trial.cost, trial.cost_metric)) == repr((-math.inf, -0.0, "a\\x00"))
    assert repr(trial.metrics) == repr(
        {"big": -math.inf, "text": math.nan, "none": math.nan, "list": math.nan, "nul\x00\ud800": 1.0, "3": 2.5}
    )
    assert trial.artefacts == {"policy": "p"}
    assert trial.params == {"\ud800\x00": "\ud800\x00", "big": 10**100}
    assert repr(store.trials("arena")) == repr([trial])


def test_a_cost_says_what_it_is_measured_in(store: Store, driver: Driver) -> None:
    outcome = Outcome(TrialState.FAILED, cost=2.0, cost_metric="tokens")
    assert store.end(store.start(driver, 0, {}), outcome).cost_metric == "tokens"
    store.add("arena", {}, outcome)
    assert [trial.cost_metric for trial in store.trials("arena")] == ["tokens"] * 2
    assert store.retry("arena", 0).cost_metric is None


def test_enqueued_and_added_trials_take_their_turn_in_the_numbers(store: Store, driver: Driver) -> None:
    assert store.enqueue("arena", {"lr": 0.1}, {"source": "a person"}) == 0
    assert store.add("arena", {"lr": 0.2}, Outcome(TrialState.FAILED, math.nan, 3.0, error="old")) == 1
    assert store.start(driver, 2, {}).number == 2
    queued, added, _ = store.trials("arena")
    assert (queued.state, queued.attempts, queued.params, queued.started_at) == (
        TrialState.QUEUED,
        0,
        {"lr": 0.1},
        None,
    )
    assert queued.suggestion == {"source": "a person"}
    assert (added.state, added.attempts, added.cost, added.error) == (TrialState.FAILED, 0, 3.0, "old")
    assert math.isnan(added.score or 0.0)
    assert added.ended_at


# ---- reading


def test_trials_are_read_by_state_and_by_revision(store: Store, driver: Driver) -> None:
    attempts = [store.start(driver, number, {}) for number in range(4)]
    store.end(attempts[2], COMPLETED)
    seen = store.revision("arena")
    assert store.trials("arena", changed_since=seen) == []
    store.end(attempts[1], Outcome(TrialState.PRUNED))
    store.lose(attempts[0], "x")
    changed = store.trials("arena", changed_since=seen)
    assert [(trial.number, trial.state.value) for trial in changed] == [(0, "queued"), (1, "pruned")]
    by_state = store.trials("arena", states={TrialState.COMPLETED, TrialState.RUNNING})
    assert [trial.number for trial in by_state] == [2, 3]
    assert store.trials("arena", states=[]) == []
    both = store.trials("arena", states=[TrialState.PRUNED], changed_since=seen)
    assert [trial.number for trial in both] == [1]


def test_every_change_raises_the_revision_and_reading_does_not(store: Store, driver: Driver) -> None:
    attempt = store.start(driver, 0, {})
    changes: list[Callable[[], object]] = [
        lambda: store.lose(attempt, "x"),
        lambda: store.claim(driver),
        lambda: store.enqueue("arena", {}),
        lambda: store.add("arena", {}, COMPLETED),
        lambda: store.update_sweep("arena", {}),
        lambda: store.leave(driver),
    ]
    for change in changes:
        before = store.revision("arena")
        change()
        assert store.revision("arena") > before
    before = store.revision("arena")
    store.trials("arena")
    store.release_lost("arena")
    store.claim(store.join("arena"), 9)
    assert store.revision("arena") == before


def test_a_second_connection_reads_what_the_first_wrote(store: Store, driver: Driver, store_url: str) -> None:
    attempt = store.start(driver, 0, {"lr": 0.1})
    other = open_store(store_url)
    assert other.trials("arena") == store.trials("arena")
    trial = other.end(attempt, COMPLETED)
    assert store.trials("arena") == [trial]
    other.close()


def test_sweeps_do_not_see_each_other(store: Store, driver: Driver) -> None:
    store.create_sweep("other", {})
    theirs = store.join("other")
    store.start(driver, 0, {"of": "arena"})
    store.start(theirs, 0, {"of": "other"})
    store.enqueue("other", {})
    assert store.claim(driver) is None
    assert [trial.params for trial in store.trials("arena")] == [{"of": "arena"}]
    assert [other.id for other in store.drivers("other")] == [theirs.id]


def alive(store: Store, driver: Driver) -> bool:
    return next(known.alive for known in store.drivers("arena") if known.id == driver.id)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
