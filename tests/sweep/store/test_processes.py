"""Several processes at one store: nothing is done twice, and nothing is left out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from itertools import chain
from multiprocessing.connection import Connection

from metta.sweep.store import open_store
from metta.sweep.store.protocol import NumberTakenError, Outcome, SweepExistsError
from metta.sweep.trial import TrialState

PROCESSES, TRIALS = 4, 24
_fork = multiprocessing.get_context("fork")  # no store is open in the parent while it forks


def _create(url: str) -> bool:
    store = open_store(url)
    try:
        store.create_sweep("arena", {"by": os.getpid()})
    except SweepExistsError:
        return False
    finally:
        store.close()
    return True


def _start_trials(url: str) -> list[int]:
    """Start and end trials until there are enough, beside others who do the same; return the numbers that were ours."""
    store = open_store(url)
    driver = store.join("arena")
    mine = []
    while (number := len(store.trials("arena"))) < TRIALS:
        try:
            attempt = store.start(driver, number, {"by": os.getpid()})
        except NumberTakenError:
            continue
        mine.append(number)
        store.end(attempt, Outcome(TrialState.COMPLETED, float(os.getpid()), 1.0))
    store.leave(driver)
    store.close()
    return mine


def _claim_trials(url: str) -> list[int]:
    store = open_store(url)
    driver = store.join("arena")
    mine = []
    while attempt := store.claim(driver):
        mine.append(attempt.number)
        store.end(attempt, Outcome(TrialState.COMPLETED, 1.0, 1.0))
    store.leave(driver)
    store.close()
    return mine


def _enqueue(url: str) -> list[int]:
    store = open_store(url)
    numbers = [store.enqueue("arena", {}) for _ in range(TRIALS // PROCESSES)]
    store.close()
    return numbers


def test_one_process_creates_a_sweep(store_url: str) -> None:
    with _fork.Pool(PROCESSES) as pool:
        created = pool.map(_create, [store_url] * PROCESSES, chunksize=1)
    assert created.count(True) == 1


def test_numbers_have_no_gap_and_are_started_once(store_url: str) -> None:
    _create(store_url)
    with _fork.Pool(PROCESSES) as pool:
        numbers = pool.map(_start_trials, [store_url] * PROCESSES, chunksize=1)
    assert sorted(chain.from_iterable(numbers)) == list(range(TRIALS))
    store = open_store(store_url)
    assert [trial.number for trial in store.trials("arena")] == list(range(TRIALS))
    assert all(trial.params["by"] == trial.score for trial in store.trials("arena"))
    store.close()


def test_queued_trials_are_claimed_once(store_url: str) -> None:
    _create(store_url)
    with _fork.Pool(PROCESSES) as pool:
        enqueued = pool.map(_enqueue, [store_url] * PROCESSES, chunksize=1)
        claimed = pool.map(_claim_trials, [store_url] * PROCESSES, chunksize=1)
    assert sorted(chain.from_iterable(enqueued)) == list(range(TRIALS))
    assert sorted(chain.from_iterable(claimed)) == list(range(TRIALS))


def _start_and_hang(url: str, ready: Connection) -> None:
    store = open_store(url)
    store.start(store.join("arena", lease_seconds=3600.0), 0, {})
    ready.send(True)
    time.sleep(3600)


def test_the_trial_of_a_killed_process_is_free_at_once(store_url: str) -> None:
    """The lease would hold for an hour, but the process is seen to be dead."""
    _create(store_url)
    ready, theirs = _fork.Pipe()
    process = _fork.Process(target=_start_and_hang, args=(store_url, theirs))
    process.start()
    assert ready.recv()
    store = open_store(store_url)
    assert store.release_lost("arena") == []
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while store.release_lost("arena") != [0]:  # not even waited for: a zombie is dead too
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.join()
    assert store.drivers("arena")[0].alive is False
    store.close()
