"""Random sequences of calls, against a model of a few lines."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, create_engine, text

from metta.sweep.store import open_store
from metta.sweep.store.protocol import (
    MAX_ATTEMPTS,
    Attempt,
    Driver,
    NumberTakenError,
    Outcome,
    StaleAttemptError,
    Store,
    StoreError,
    TrialStateError,
)
from metta.sweep.trial import Progress, Trial, TrialState

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
any_params = st.dictionaries(any_text, any_json, max_size=3)
any_score = st.none() | st.floats()
any_outcome = st.builds(
    Outcome,
    state=st.sampled_from([TrialState.COMPLETED, TrialState.FAILED, TrialState.PRUNED]),
    score=any_score,
    cost=any_score,
    seconds=st.floats(0, 1e6),
    metrics=st.dictionaries(any_text, st.floats(), max_size=3),
    artefacts=st.dictionaries(any_text, any_text, max_size=2),
    error=st.none() | any_text.filter(lambda value: "\x00" not in value),
)


@dataclass
class Expected:
    """What the model knows of a trial."""

    params: dict[str, Any]
    state: TrialState
    attempts: int = 0
    losses: int = 0
    outcome: Outcome | None = None
    holder: str | None = None
    token: str | None = None
    seconds_lost: list[float] = field(default_factory=list)

    def lose(self, seconds: float) -> None:
        self.losses += 1
        self.seconds_lost.append(seconds)
        self.state = TrialState.FAILED if self.losses % MAX_ATTEMPTS == 0 else TrialState.QUEUED
        self.token = self.holder = self.outcome = None


class StoreMachine(RuleBasedStateMachine):
    """Calls of the store in any order; after each, the store holds what the model holds."""

    store: Store
    drivers_store: Store  # drivers join here: a process does not take its own for dead
    engine: Engine

    drivers = Bundle("drivers")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.sweep = uuid.uuid4().hex
        self.store.create_sweep(self.sweep, {})
        self.trials: list[Expected] = []
        self.alive: set[str] = set()
        self.left: set[str] = set()
        self.followed: dict[int, Trial] = {}
        self.revision = 0

    # ---- drivers

    @rule(target=drivers)
    def join(self) -> Driver:
        driver = self.drivers_store.join(self.sweep)
        self.alive.add(driver.id)
        return driver

    @rule(driver=drivers)
    def leave(self, driver: Driver) -> None:
        self.store.leave(driver)
        self._lose_all_of({driver.id})
        self.alive.discard(driver.id)
        self.left.add(driver.id)

    @rule(driver=drivers)
    def die(self, driver: Driver) -> None:
        """As if the pid now belonged to a process that started later."""
        with self.engine.begin() as connection:
            connection.execute(
                text("UPDATE metta_drivers SET process_started = 'earlier' WHERE id = :id"), {"id": driver.id}
            )
        self.alive.discard(driver.id)

    @rule()
    def release_lost(self) -> None:
        dead = {trial.holder for trial in self.trials if trial.holder} - self.alive
        lost = [number for number, trial in enumerate(self.trials) if trial.holder in dead]
        assert self.store.release_lost(self.sweep) == lost
        self._lose_all_of(dead)

    # ---- attempts

    @rule(target=attempts, driver=drivers, params=any_params, ahead=st.sampled_from([0, 0, 0, -1, 1]))
    def start(self, driver: Driver, params: dict[str, Any], ahead: int) -> Attempt | None:
        number = len(self.trials) + ahead
        refusal = StoreError if driver.id in self.left else NumberTakenError if ahead else None
        if refusal:
            with pytest.raises(refusal):
                self.store.start(driver, number, params)
            return None
        attempt = self.store.start(driver, number, params, {"source": params})
        self.trials.append(Expected(params, TrialState.RUNNING, 1, holder=driver.id, token=attempt.token))
        assert (attempt.number, attempt.attempt) == (number, 1)
        return attempt

    @rule(target=attempts, driver=drivers, number=st.none() | st.integers(0, 5))
    def claim(self, driver: Driver, number: int | None) -> Attempt | None:
        queued = [index for index, trial in enumerate(self.trials) if trial.state is TrialState.QUEUED]
        expected = [index for index in queued if number in (None, index)]
        if expected and driver.id in self.left:
            with pytest.raises(StoreError):
                self.store.claim(driver, number)
            return None
        attempt = self.store.claim(driver, number)
        if not expected:
            assert attempt is None
            return None
        assert attempt
        trial = self.trials[expected[0]]
        trial.state, trial.attempts, trial.holder, trial.token = (
            TrialState.RUNNING,
            trial.attempts + 1,
            driver.id,
            attempt.token,
        )
        assert (attempt.number, attempt.attempt, repr(attempt.params)) == (
            expected[0],
            trial.attempts,
            repr(trial.params),
        )
        return attempt

    @rule(attempt=attempts, outcome=any_outcome)
    def end(self, attempt: Attempt | None, outcome: Outcome) -> None:
        if attempt and (trial := self._held(attempt)):
            self.store.end(attempt, outcome)
            trial.state, trial.outcome, trial.token, trial.holder = outcome.state, outcome, None, None
        elif attempt:
            with pytest.raises(StaleAttemptError):
                self.store.end(attempt, outcome)

    @rule(attempt=attempts, seconds=st.floats(0, 1e6))
    def lose(self, attempt: Attempt | None, seconds: float) -> None:
        if attempt and (trial := self._held(attempt)):
            self.store.lose(attempt, "lost", seconds)
            trial.lose(seconds)
        elif attempt:
            with pytest.raises(StaleAttemptError):
                self.store.lose(attempt, "lost", seconds)

    @rule(attempt=attempts)
    def record_progress(self, attempt: Attempt | None) -> None:
        if attempt and self._held(attempt):
            before = len(self.store.curve(self.sweep, attempt.number))
            self.store.record_progress(attempt, [Progress(1, None, 0.0, {"r": math.nan})])
            assert len(self.store.curve(self.sweep, attempt.number)) == before + 1
        elif attempt:
            with pytest.raises(StaleAttemptError):
                self.store.record_progress(attempt, [Progress(1, None, 0.0)])

    # ---- trials

    @rule(params=any_params)
    def enqueue(self, params: dict[str, Any]) -> None:
        assert self.store.enqueue(self.sweep, params) == len(self.trials)
        self.trials.append(Expected(params, TrialState.QUEUED))

    @rule(params=any_params, outcome=any_outcome)
    def add(self, params: dict[str, Any], outcome: Outcome) -> None:
        assert self.store.add(self.sweep, params, outcome) == len(self.trials)
        self.trials.append(Expected(params, outcome.state, outcome=outcome))

    @rule(number=st.integers(0, 5))
    def retry(self, number: int) -> None:
        if number >= len(self.trials) or self.trials[number].state is not TrialState.FAILED:
            with pytest.raises(TrialStateError):
                self.store.retry(self.sweep, number)
            return
        self.store.retry(self.sweep, number)
        trial = self.trials[number]
        if trial.outcome and trial.attempts:  # its last attempt had ended; now it counts as lost
            trial.losses += 1
            trial.seconds_lost.append(trial.outcome.seconds)
        trial.state, trial.outcome = TrialState.QUEUED, Outcome(TrialState.QUEUED)

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        self.store.pause(self.sweep) if paused else self.store.resume(self.sweep)
        assert self.store.paused(self.sweep) is paused

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        trials = self.store.trials(self.sweep)
        assert [trial.number for trial in trials] == list(range(len(self.trials)))
        for trial, expected in zip(trials, self.trials, strict=True):
            assert (trial.state, trial.attempts, repr(trial.params)) == (
                expected.state,
                expected.attempts,
                repr(expected.params),
            )
            if expected.outcome:
                kept = (trial.score, trial.cost, trial.metrics, trial.artefacts, trial.error)
                told = expected.outcome
                assert repr(kept) == repr((told.score, told.cost, told.metrics, told.artefacts, told.error))
            assert self.store.seconds_lost(self.sweep, trial.number) == pytest.approx(sum(expected.seconds_lost))

    @invariant()
    def following_the_news_shows_the_same_as_reading_all(self) -> None:
        revision = self.store.revision(self.sweep)
        for trial in self.store.trials(self.sweep, changed_since=self.revision):
            self.followed[trial.number] = trial
        self.revision = revision
        assert repr(sorted(self.followed.items())) == repr(
            [(trial.number, trial) for trial in self.store.trials(self.sweep)]
        )

    def _held(self, attempt: Attempt) -> Expected | None:
        trial = self.trials[attempt.number]
        return trial if trial.token == attempt.token else None

    def _lose_all_of(self, drivers: set[str]) -> None:
        for trial in self.trials:
            if trial.holder in drivers:
                trial.lose(0.0)


def test_any_sequence_of_calls_agrees_with_the_model(store_url: str) -> None:
    class Machine(StoreMachine):
        store = open_store(store_url)
        drivers_store = open_store(store_url)
        engine = create_engine(store_url)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    Machine.store.close()
    Machine.drivers_store.close()
    Machine.engine.dispose()
