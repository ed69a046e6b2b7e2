"""Watch a sweep that runs elsewhere, through its store."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console

from metta.common.counts import count_text
from metta.common.entry_point import metta_sweep_command
from metta.common.plain import strict
from metta.sweep.definition import read_definition
from metta.sweep.report.commands import resume_command
from metta.sweep.report.json_data import progress_as_json
from metta.sweep.report.terminal.console import PLAIN_SECONDS, print_ended, show_sweep
from metta.sweep.report.terminal.live_display import LiveDisplay
from metta.sweep.report.terminal.live_view import RunningSweep
from metta.sweep.state import SweepState, with_all_curves
from metta.sweep.store.protocol import Store
from metta.sweep.trial import Progress, Trial, TrialState

POLL_SECONDS = 1.0


class WatchedSweep:
    """A stored sweep; `read` reads what changed.

    Attributes:
        live: the sweep and its running trials, as of the last `read`.
        over: whether every trial has ended and no driver runs the sweep.
        drivers: how many work on it.
        paused: whether it is paused.
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
        """Read what changed, and return the trials that ended since the last call."""
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
        resume = resume_command(record, self._store.url)
        self._command = f"; resume with: {resume}" if resume else ""
        trials = [trial for _, trial in sorted(self._trials.items())]
        state = SweepState.of(record, read_definition(record), trials, store_url=self._store.url)
        self.live = RunningSweep(state)
        if self._trials:
            newest = self._trials[max(self._trials)]
            self.live.suggested = newest.number, newest.suggestion
        return ended

    def _remark(self, stopping: int) -> str:
        if self.paused:
            return f"paused; resume with: {metta_sweep_command(self._store.url, 'resume', self._name)}"
        if stopping:
            count = len(self.live.running)
            return f"asked to stop: {count_text(count, 'running trial is', 'running trials are')} being finished"
        if self.drivers or self.state.complete:
            return ""
        return f"no driver is running{self._command}"

    def as_json(self) -> dict[str, Any]:
        """The sweep as strict JSON data."""
        live, expected = self.live, self.live.progress()
        state = with_all_curves(self._store, self.state)
        return {
            "sweep": self._name,
            "num_trials": state.definition.num_trials,
            "states": {str(name): count for name, count in state.counts.items()},
            "dropped": len(state.dropped),
            "spent": strict(state.spent),
            "expected_cost": expected.expected_cost,
            "seconds_left": expected.seconds_left,
            "best": state.best.number if state.best else None,
            "best_score": state.best.score if state.best else None,
            "top": state.top.number if state.top else None,
            "top_score": state.top.score if state.top else None,
            "pareto": [trial.number for trial in state.front],
            "running": [
                {"number": number} | (progress_as_json(progress) if progress else {})
                for number, progress in sorted(live.running.items())
            ],
            "drivers": self.drivers,
            "paused": self.paused,
        }


def watch(console: Console, store: Store, name: str) -> WatchedSweep:
    """Show a sweep until it is over or no driver runs it, and return its final state."""
    watched = WatchedSweep(store, name)
    with LiveDisplay(console, PLAIN_SECONDS) as display:
        while watched.drivers:
            show_sweep(display, watched.live, at_once=True)
            time.sleep(POLL_SECONDS)
            for trial in watched.read():
                print_ended(console, watched.state.by_number[trial.number], watched.state)
    return watched


def watch_json(store: Store, name: str) -> None:
    """Print a sweep as a line of JSON whenever it has changed, until it is over or no driver runs it."""
    watched, before = WatchedSweep(store, name), None
    while True:
        if (now := watched.as_json()) != before:
            print(json.dumps(now, allow_nan=False), flush=True)
        if not watched.drivers:
            return
        before = now
        time.sleep(POLL_SECONDS)
        watched.read()
