"""The faults of `benchmarks.faults` in a small size, and the answer to a commit that never arrives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.faults import scenarios
from metta.sweep.store import database, open_store, process
from metta.sweep.store.protocol import Attempt, Driver, Outcome, StaleAttemptError, Store, StoreError
from metta.sweep.trial import Progress, TrialState
from tests.support.postgresql import PostgresServer
from tests.support.proxy import Proxy

COMPLETED = Outcome(TrialState.COMPLETED, 0.5, 2.0, 2.0)


def test_kill_9_of_drivers_side_by_side(store_url: str, tmp_path: Path) -> None:
    verdict = scenarios.kill_9(store_url, tmp_path, kills=5)
    assert verdict.sound, verdict


def test_a_server_that_crashes(tmp_path: Path) -> None:
    with PostgresServer() as server:
        verdict = scenarios.restarted(server, tmp_path, signal.SIGQUIT, times=1, seconds=3.0, num_trials=40)
    assert verdict.sound, verdict
    assert any("trying again" in message for message in verdict.messages)
    assert any("answers again" in message for message in verdict.messages)
    assert not any("sesame" in message for message in verdict.messages)


def test_workers_train_on_while_the_store_is_away(tmp_path: Path) -> None:
    with PostgresServer("fsync=off") as server:
        verdict = scenarios.away_from_workers(server, tmp_path, seconds=2.0, num_trials=24)
    assert verdict.sound, verdict
    assert verdict.repeated == 0, "what ran when the server went has ended since, and is recorded"


def test_a_network_that_is_cut(postgres_server: PostgresServer, tmp_path: Path) -> None:
    verdict = scenarios.cut_off(
        postgres_server, tmp_path, lambda proxy: proxy.cut(), lambda proxy: proxy.heal(), 1, 0.5, num_trials=24
    )
    assert verdict.sound, verdict


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(tmp_path: Path) -> None:
    try:
        with scenarios.small_disk("1m"):
            pass
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    verdict = scenarios.disk_full(tmp_path, seconds=3.0, num_trials=40)
    assert verdict.sound, verdict
    assert any("the disk is full" in message for message in verdict.messages)


def test_after_the_server_was_away_every_lease_holds_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PostgresServer() as server:
        url = server.new_database()
        elsewhere = open_store(url)
        elsewhere.create_sweep("arena", {})
        for number, lease in enumerate([3.0, 30.0]):  # on a slow machine it must hold longer to be seen
            with monkeypatch.context() as patch:
                patch.setattr(process, "_boot", lambda: "another machine")
                driver = elsewhere.join("arena", lease)
            elsewhere.start(driver, number, {})
            server.stop()
            time.sleep(lease)
            started_at = time.monotonic()
            server.start()
            with closing(open_store(url)) as store:
                released = store.release_lost("arena")
                if time.monotonic() - started_at < lease:
                    break
        assert released == []
        with closing(open_store(url)) as store:
            deadline = time.monotonic() + 120
            while number not in store.release_lost("arena"):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        elsewhere.close()


# ---- the answer to a commit is lost


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
def store(postgres_server: PostgresServer, proxy: Proxy) -> Iterator[Store]:
    database_name = postgres_server.new_database().rpartition("/")[2]
    store = open_store(postgres_server.url(database_name, proxy.port))
    store.create_sweep("arena", {})
    yield store
    store.close()


@pytest.fixture
def driver(store: Store) -> Driver:
    return store.join("arena")


@pytest.fixture
def attempt(store: Store, driver: Driver) -> Attempt:
    return store.start(driver, 0, {"lr": 0.1})


def states(store: Store) -> list[tuple[str, int]]:
    return [(trial.state.value, trial.attempts) for trial in store.trials("arena")]


def test_a_sweep_is_created_once(store: Store, proxy: Proxy) -> None:
    proxy.lose_next_commit()
    store.create_sweep("other", {"seed": 1})
    assert [sweep.name for sweep in store.sweeps()] == ["arena", "other"]
    proxy.lose_next_commit()
    store.remove_sweep("other")
    assert [sweep.name for sweep in store.sweeps()] == ["arena"]
    assert proxy.commits_lost == 2


def test_a_driver_joins_once(store: Store, proxy: Proxy) -> None:
    proxy.lose_next_commit()
    driver = store.join("arena")
    assert [other.id for other in store.drivers("arena")] == [driver.id]
    proxy.lose_next_commit()
    store.leave(driver)
    assert store.drivers("arena") == []
    assert proxy.commits_lost == 2


def test_a_trial_is_started_once(store: Store, proxy: Proxy, driver: Driver) -> None:
    proxy.lose_next_commit()
    attempt = store.start(driver, 0, {})
    assert proxy.commits_lost == 1
    assert states(store) == [("running", 1)]
    assert store.end(attempt, COMPLETED).attempts == 1


def test_a_trial_is_claimed_once(store: Store, proxy: Proxy, driver: Driver) -> None:
    store.enqueue("arena", {"lr": 0.1})
    store.enqueue("arena", {"lr": 0.2})
    proxy.lose_next_commit(skip=1)  # of the transaction that only looks for a queued trial
    attempt = store.claim(driver)
    assert attempt
    assert proxy.commits_lost == 1
    assert states(store) == [("running", 1), ("queued", 0)]
    assert store.end(attempt, COMPLETED).params == {"lr": 0.1}


def test_lost_attempts_are_released_once(store: Store, proxy: Proxy, postgres_server: PostgresServer) -> None:
    other = open_store(postgres_server.url(store.url.rpartition("/")[2]))
    other.start(other.join("arena", lease_seconds=0.0), 0, {})
    other.close()
    time.sleep(0.01)
    proxy.lose_next_commit(skip=1)  # of the transaction that only looks for lost attempts
    assert store.release_lost("arena") == [0]
    assert proxy.commits_lost == 1
    assert states(store) == [("queued", 1)]


def test_an_attempt_ends_once(store: Store, proxy: Proxy, attempt: Attempt) -> None:
    proxy.lose_next_commit()
    assert store.end(attempt, COMPLETED).score == 0.5
    assert proxy.commits_lost == 1
    assert states(store) == [("completed", 1)]
    with pytest.raises(StaleAttemptError):
        store.end(attempt, COMPLETED)


def test_an_attempt_is_lost_once(store: Store, proxy: Proxy, attempt: Attempt) -> None:
    proxy.lose_next_commit()
    store.lose(attempt, "Ctrl-C", 3.0)
    assert proxy.commits_lost == 1
    assert states(store) == [("queued", 1)]
    assert store.seconds_lost("arena", 0) == 3.0


def test_a_point_of_a_curve_is_kept_once(store: Store, proxy: Proxy, attempt: Attempt) -> None:
    proxy.lose_next_commit()
    store.record_progress(attempt, [Progress(1, None, 1.0), Progress(2, None, 2.0)])
    assert proxy.commits_lost == 1
    assert [point.step for point in store.curve("arena", 0)] == [1, 2]


@pytest.mark.parametrize(
    "append", [lambda store: store.enqueue("arena", {}), lambda store: store.add("arena", {}, COMPLETED)]
)
def test_a_trial_is_appended_once(store: Store, proxy: Proxy, append: Callable[[Store], int]) -> None:
    proxy.lose_next_commit()
    assert append(store) == 0
    assert proxy.commits_lost == 1
    assert len(store.trials("arena")) == 1


def test_who_was_told_that_the_store_is_away_may_record_the_end_again(
    store: Store, proxy: Proxy, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.0)
    proxy.lose_next_commit()
    with pytest.raises(StoreError, match="gave up"):
        store.end(attempt, COMPLETED)
    assert store.end(attempt, COMPLETED).score == 0.5
    with pytest.raises(StaleAttemptError):
        store.end(attempt, COMPLETED)
    assert states(store) == [("completed", 1)]
