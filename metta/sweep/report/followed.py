"""A sweep that runs elsewhere, followed through its store."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console

from metta.common.entry_point import EntryPoint
from metta.sweep.definition import read_definition
from metta.sweep.report.console import PLAIN_SECONDS, print_ended, show_sweep
from metta.sweep.report.foot import Foot
from metta.sweep.report.live_view import RunningSweep
from metta.sweep.report.summary import strict, with_store
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Store
from metta.sweep.trial import Progress, Trial, TrialState

POLL_SECONDS = 1.0


class FollowedSweep:
    """What the store says of a sweep, read again where something changed.

    Attributes:
        live: how the sweep goes on, as of the last `read`.
        over: whether every trial has ended and nobody works on the sweep.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._revision = -1
        self._trials: dict[int, Trial] = {}
        self.over = False
        self.drivers = 0
        self.paused = False
        self.read()

    @property
    def state(self) -> SweepState:
        return self.live.state

    def read(self) -> list[Trial]:
        """Read what is new, and return the trials that ended since."""
        news = self._read_trials()
        drivers = [driver for driver in self._store.drivers(self._name) if driver.alive]
        self.drivers, self.paused = len(drivers), self._store.paused(self._name)
        running = [trial.number for trial in self._trials.values() if trial.state is TrialState.RUNNING]
        progress: dict[int, Progress | None] = dict(self._store.progress(self._name)) if running else {}
        self.live.running = {number: progress.get(number) for number in running}
        self.live.remark = self._remark(sum(driver.stopping for driver in drivers))
        self.over = self.state.complete and not drivers
        return news

    def _read_trials(self) -> list[Trial]:
        revision = self._store.revision(self._name)
        if revision == self._revision:
            return []
        changed = self._store.trials(self._name, changed_since=max(0, self._revision))
        ended = [
            trial
            for trial in changed
            if trial.state.ended and not (trial.number in self._trials and self._trials[trial.number].state.ended)
        ]
        self._revision = revision
        self._trials |= {trial.number: trial for trial in changed}
        record = self._store.sweep(self._name)
        self._command = _command(record.entry_point, self._store.url)
        trials = [trial for _, trial in sorted(self._trials.items())]
        state = SweepState.of(record, read_definition(record), trials, store_url=self._store.url)
        self.live = RunningSweep(state)
        if self._trials:
            newest = self._trials[max(self._trials)]
            self.live.suggested = newest.number, newest.suggestion
        return ended

    def _remark(self, stopping: int) -> str:
        if self.paused:
            return f"paused; go on with: metta-sweep resume {self._name}"
        if stopping:
            count = len(self.live.running)
            return f"asked to stop: {count} running {'trial is' if count == 1 else 'trials are'} being finished"
        if self.drivers or self.state.complete:
            return ""
        return f"nobody works on it now{self._command}"

    def as_json(self) -> dict[str, Any]:
        """The same as strict JSON data."""
        live, state, expected = self.live, self.state, self.live.forecast()
        return {
            "sweep": self._name,
            "num_trials": state.definition.num_trials,
            "states": {str(name): count for name, count in state.counts.items()},
            "dropped": len(state.dropped),
            "spent": strict(state.spent),
            "expected_cost": expected.cost,
            "seconds_left": expected.seconds_left,
            "best": state.best.number if state.best else None,
            "best_score": state.best.score if state.best else None,
            "top": state.top.number if state.top else None,
            "top_score": state.top.score if state.top else None,
            "pareto": [trial.number for trial in state.front],
            "running": [
                {"number": number} | (_progress_as_json(progress) if progress else {})
                for number, progress in sorted(live.running.items())
            ],
            "drivers": self.drivers,
            "paused": self.paused,
        }


def watch(console: Console, store: Store, name: str) -> FollowedSweep:
    """Show a sweep as it goes on, until it is over. Returns it as it then is."""
    followed = FollowedSweep(store, name)
    with Foot(console, PLAIN_SECONDS) as foot:
        while not followed.over:
            show_sweep(foot, followed.live, at_once=True)
            time.sleep(POLL_SECONDS)
            for trial in followed.read():
                print_ended(console, followed.state.by_number[trial.number], followed.state)
    return followed


def watch_json(store: Store, name: str) -> None:
    """Print a sweep as a line of JSON each time that it has changed, until it is over."""
    followed, told = FollowedSweep(store, name), None
    while True:
        if (now := followed.as_json()) != told:
            print(json.dumps(now, allow_nan=False), flush=True)
        if followed.over:
            return
        told = now
        time.sleep(POLL_SECONDS)
        followed.read()


def _command(entry_point: dict[str, Any] | None, store_url: str) -> str:
    if entry_point is None:
        return ""
    return f"; go on with: {with_store(EntryPoint.model_validate(entry_point), store_url).command()}"


def _progress_as_json(progress: Progress) -> dict[str, Any]:
    metrics = {name: strict(value) for name, value in progress.metrics.items()}
    return {"step": progress.step, "total": progress.total, "seconds": progress.seconds, "metrics": metrics}
