"""The store's cost for a driver: writing a trial, opening a sweep of 10,000 trials, and polling it for changes.

    uv run python -m benchmarks.scale.store

It uses SQLite with each transaction synced, and a separate PostgreSQL server on this machine with its default
`fsync=on`. The trials have the size of those of the arena's sweep: ten hyperparameters, forty metrics.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store, SweepRecord, TrialHistory
from metta.sweep.trial import Progress, Trial, TrialState
from tests.support.postgresql import PostgresServer

PARAMS = [f"trainer.ppo.hyperparameter_{index}" for index in range(10)]
METRICS = [f"arena/basic/agent.statistic_{index}" for index in range(40)]
REPEATS = 5


def measure(url: str, num_writes: int, num_trials: int) -> None:
    """Print the time of each call of the store at `url`, which must be empty."""
    store = open_store(url)
    store.create_sweep("writes", {})
    driver = store.join("writes")
    calls: dict[str, list[float]] = {name: [] for name in ("start", "record_progress", "end", "poll: no news")}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        calls.setdefault(name, []).append(time.perf_counter() - started)
        return result

    generator = random.Random(0)
    for number in range(num_writes):
        trial = _trial(generator, number)
        curve = [Progress(1000 * step, 10_000, float(step), {"reward": 0.1 * step}) for step in range(5)]
        attempt = timed("start", lambda: store.start(driver, number, trial.params, trial.suggestion))  # noqa: B023
        timed("record_progress", lambda: store.record_progress(attempt, curve))  # noqa: B023
        outcome = Outcome(TrialState.COMPLETED, trial.score, trial.cost, 60.0, trial.metrics, trial.artefacts)
        timed("end", lambda: store.end(attempt, outcome))  # noqa: B023
        timed("poll: no news", lambda: store.revision("writes"))
    _import(store, "big", num_trials)
    driver = store.join("big")
    store.close()

    for _ in range(REPEATS):
        store = timed("open a store", lambda: open_store(url, create=False))
        timed(f"read {num_trials} trials", lambda: store.trials("big"))  # noqa: B023
        revision = timed("first poll", lambda: store.revision("big"))  # noqa: B023
        store.claim(driver, store.enqueue("big", {"x": 0.5}))
        changed = timed("poll: one trial is new", lambda: store.trials("big", changed_since=revision))  # noqa: B023
        assert len(changed) == 1
        store.close()
    for name, seconds in calls.items():
        last = statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 20 else max(seconds)
        label = "95th percentile" if len(seconds) > 20 else "longest"
        print(f"  {name:<24} median {1e3 * statistics.median(seconds):8.2f} ms, {label} {1e3 * last:8.2f} ms")


def _trial(generator: random.Random, number: int) -> Trial:
    """An ended trial with all the data that trials of the arena have."""
    return Trial(
        number,
        TrialState.COMPLETED,
        params={name: generator.random() for name in PARAMS},
        suggestion={"source": "model", "score_mean": generator.random(), "score_deviation": generator.random()},
        attempts=1,
        score=generator.random(),
        cost=60 * generator.random(),
        metrics={name: generator.random() for name in METRICS},
        artefacts={"policy": f"file:///data/sweeps/big/20260101-000000/trial_{number:05d}/checkpoints/last"},
        created_at=datetime.now(UTC),
        started_at=datetime.now(UTC),
        ended_at=datetime.now(UTC),
    )


def _import(store: Store, name: str, num_trials: int) -> None:
    generator = random.Random(1)
    record = SweepRecord(name, {}, None, datetime.now(UTC))
    store.import_sweep(record, [TrialHistory(_trial(generator, number)) for number in range(num_trials)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=500, help="trials that are written one by one")
    parser.add_argument("--trials", type=int, default=10_000, help="of the sweep that is opened")
    parser.add_argument("--folder", type=Path, help="where to put the databases: a folder on the disk to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print("SQLite", flush=True)
        measure(f"sqlite:///{folder}/store.sqlite", arguments.writes, arguments.trials)
    with PostgresServer(folder=arguments.folder) as server:
        print("PostgreSQL", flush=True)
        measure(server.new_database(), arguments.writes, arguments.trials)


if __name__ == "__main__":
    main()
