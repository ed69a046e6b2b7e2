"""The process that talks to Weights & Biases: ``python -m metta.sweep.wandb.worker``.

It reads one line of JSON, a `Request`, carries it out, and writes events as lines of JSON. It has no state: sent items
are recorded in the store, so it may be killed at any time. At the first error it reports it and ends. When its input is
closed, it sends the remaining items and ends.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TextIO

from metta.common.config import Config, flatten
from metta.common.parent import when_parent_ends
from metta.sweep.definition import DefinitionError, read_definition
from metta.sweep.ranking import judged
from metta.sweep.retention import require_written_by
from metta.sweep.state import read_state
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Store, StoreError, SweepRecord, TrialHistory
from metta.sweep.trial import Trial, TrialState
from metta.sweep.wandb import records
from metta.sweep.wandb.config import WandbConfig

POLL_SECONDS = 2.0
MAX_REFUSED = 3
"""If more trials than these are refused in a row, the trials are not the cause."""


class Request(Config):
    """A worker's task.

    Attributes:
        task: "send" items that W&B lacks until the input is closed, or "pull" the sweep into the store.
        store: the store's URL, with its password.
        sweep: the sweep's name.
        config: names the project.
        mirror: the name under which the store records sent items.
        offline: write files instead of sending.
        folder: for files to keep: the log and, in offline mode, the client's files in its subfolder `wandb`.
        driver: the driver that sends for the sweep, if any. Only one of several drivers sends.
        patience: see `Project`.
    """

    task: Literal["send", "pull"]
    store: str
    sweep: str
    config: WandbConfig
    mirror: str
    offline: bool = False
    folder: str
    driver: int | None = None
    patience: float


class Sender:
    """Sends the items of a sweep that W&B lacks.

    An ended trial is sent if its digest differs from the recorded one. The runs of running trials are kept open, for
    their learning curves.
    """

    def __init__(self, request: Request, store: Store, project: Any, events: TextIO) -> None:
        self._request = request
        self._store = store
        self._project = project
        self._events = events
        self._record = store.sweep(request.sweep)
        self._noted: dict[str, str] = {}
        self._revision = -1  # a sweep without trials is sent as well
        self._open: dict[int, Any] = {}
        self._running: dict[int, Trial] = {}
        self._refused: set[int] = set()
        self._refused_in_a_row = 0

    def run(self, closed: threading.Event) -> None:
        """Send the existing trials, and new ones until `closed`."""
        led = False
        while True:
            last, leads = closed.is_set(), self._leads()
            if leads and not led:  # another driver sent until now
                self._noted = self._store.mirrored(self._request.sweep, self._request.mirror)
            if leads:
                self._send_changes()
            if leads and last:
                self._send_best_policy()
            led = leads
            if last:
                break
            closed.wait(POLL_SECONDS)
        for run in self._open.values():
            run.interrupt()

    def _leads(self) -> bool:
        """Whether this driver sends: the one with the smallest id does."""
        if self._request.driver is None:
            return True
        alive = [driver for driver in self._store.drivers(self._request.sweep) if driver.alive]
        leader = min(alive, key=lambda driver: driver.id, default=None)
        return leader is None or (leader.host, leader.pid) == (socket.gethostname(), self._request.driver)

    def _send_changes(self) -> None:
        revision = self._store.revision(self._request.sweep)
        if revision != self._revision:
            self._send_sweep()
            for trial in self._store.trials(self._request.sweep, changed_since=self._revision):
                self._track(trial)
            self._revision = revision
        if not self._request.offline:
            for trial in self._running.values():
                self._try(trial, self._show)

    def _send_sweep(self) -> None:
        self._record = self._store.sweep(self._request.sweep)
        text = records.encode_sweep(self._record)
        if self._noted.get(records.DEFINITION) != records.digest(text):
            self._project.send_sweep(self._record, text)
            self._note(records.DEFINITION, text)
            say(self._events, event="began", url=self._project.url)

    def _track(self, trial: Trial) -> None:
        self._running.pop(trial.number, None)
        if trial.state is TrialState.RUNNING:
            self._running[trial.number] = trial
        elif trial.state.ended and self._noted.get(str(trial.number)) != records.digest(self._version(trial)):
            self._try(trial, self._send_trial)

    def _try(self, trial: Trial, action: Callable[[Trial], None]) -> None:
        """Skip a trial that W&B refuses, for example because its run was deleted, so that the others are sent."""
        if trial.number in self._refused:
            return
        try:
            action(trial)
            self._refused_in_a_row = 0
        except StoreError:
            raise
        except Exception as error:
            self._refused_in_a_row += 1
            if self._refused_in_a_row > MAX_REFUSED or not self._project.answers(self._record):
                raise
            self._refused.add(trial.number)
            self._open.pop(trial.number, None)
            say(self._events, event="refused", what=f"trial {trial.number}", reason=records.explain(error))

    def _show(self, trial: Trial) -> None:
        self._run_of(trial).log(self._store.curve(self._request.sweep, trial.number))

    def _judged(self, trial: Trial) -> Trial:
        """The trial with its score and cost under the current definition, if that can be read."""
        try:
            definition = read_definition(self._record)
        except DefinitionError:
            return trial
        return judged(trial, definition.protein.metric, definition.cost_metric)

    def _version(self, trial: Trial) -> str:
        """A text that changes if anything that is sent of the trial changes."""
        text, shown = records.encode_trial(trial), self._judged(trial)
        return text if shown is trial else f"{text} {shown.score} {shown.cost}"

    def _send_trial(self, trial: Trial, policy: str | None = None) -> None:
        shown, text = self._judged(trial), records.encode_trial(trial)
        run = self._run_of(trial)
        run.log(self._store.curve(self._request.sweep, trial.number))
        if policy is not None:
            metadata = {"sweep": self._record.name, "trial": trial.number, "score": shown.score}
            try:
                require_written_by(read_state(self._store, self._request.sweep), trial, policy)
                run.log_policy(policy, f"{self._record.name}-policy", metadata)
                self._note(records.BEST, str(trial.number))
            except Exception as error:  # the trial matters more than its policy, which is kept locally
                what = f"the policy of trial {trial.number}"
                say(self._events, event="refused", what=what, reason=records.explain(error))
        run.end(shown, text)
        del self._open[trial.number]
        self._note(str(trial.number), self._version(trial))
        say(self._events, event="sent", number=trial.number, url=self._project.url)

    def _send_best_policy(self) -> None:
        """Log the policy of the best trial as an artefact of its run, unless it was the last one logged."""
        if not self._request.config.log_policy:
            return
        try:
            best = read_state(self._store, self._request.sweep).best
        except DefinitionError as error:
            say(self._events, event="refused", what="the best policy", reason=records.explain(error))
            return
        policy = None if best is None else best.artefacts.get("policy")
        if best is None or policy is None or self._noted.get(records.BEST) == records.digest(str(best.number)):
            return
        (stored,) = [trial for trial in self._store.trials(self._request.sweep) if trial.number == best.number]
        self._try(stored, lambda trial: self._send_trial(trial, policy))

    def _run_of(self, trial: Trial) -> Any:
        if trial.number not in self._open:
            self._open[trial.number] = self._project.open_trial(self._record, trial)
        return self._open[trial.number]

    def _note(self, item: str, text: str) -> None:
        self._noted[item] = records.digest(text)
        self._store.set_mirrored(self._request.sweep, self._request.mirror, {item: self._noted[item]})


def pull(request: Request, store: Store, project: Any, events: TextIO) -> None:
    """Read the newest sweep of that name from W&B into the store: all trials that ended, under their numbers.

    A trial that had not ended is tried again with the same hyperparameters, if a trial with a higher number had ended.
    """
    found = project.sweeps(request.sweep)
    if not found:
        say(events, event="nothing")
        return
    record = found[0]
    trials: dict[int, Trial] = {}
    for text in project.trials(record):
        trial = records.decode_trial(text)
        trials[trial.number] = trial
    ended = {number for number, trial in trials.items() if trial.state.ended}
    histories = []
    for number in range(max(ended, default=-1) + 1):
        if number in ended:
            histories.append(TrialHistory(trials[number]))
        elif number in trials or _is_rebuildable(record):
            histories.append(_queued_again(project, record, number, trials.get(number)))
    store.import_sweep(record, histories)
    noted = {str(number): records.digest(records.encode_trial(trials[number])) for number in ended}
    noted[records.DEFINITION] = records.digest(records.encode_sweep(record))
    store.set_mirrored(request.sweep, request.mirror, noted)
    say(events, event="pulled", ended=len(ended), queued=len(histories) - len(ended), others=len(found) - 1)


def _is_rebuildable(record: SweepRecord) -> bool:
    """Whether the Tool's own hyperparameters are known."""
    return isinstance(record.config.get("tool"), dict) and isinstance(record.config.get("protein"), dict)


def _queued_again(project: Any, record: SweepRecord, number: int, trial: Trial | None) -> TrialHistory:
    """A trial to be tried again: with the Tool's own hyperparameters if its run was deleted."""
    if trial is None:
        searched = flatten(record.config["protein"]["parameters"]).keys()
        own = flatten(record.config["tool"])
        params = {path: value for path, value in own.items() if any(name.startswith(f"{path}.") for name in searched)}
        return TrialHistory(Trial(number, TrialState.QUEUED, params, created_at=record.created_at))
    curve = project.curve(record, number)
    lost = sum(max(point.seconds for point in points) for _, points in groupby(curve, lambda point: point.attempt))
    return TrialHistory(replace(trial, state=TrialState.QUEUED), curve, lost)


def say(events: TextIO, **event: Any) -> None:
    with suppress(BrokenPipeError):  # the driver may have been killed
        events.write(json.dumps(event) + "\n")
        events.flush()


def main() -> None:
    commands, events = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    line = commands.readline()
    if not line:  # the driver was killed before it sent the request
        return
    request = Request.model_validate_json(line)
    _redirect(Path(request.folder) / "wandb.log")
    closed = threading.Event()
    when_parent_ends(commands.read, closed.set)  # but the remaining items are sent
    status = 1
    try:
        with tempfile.TemporaryDirectory(prefix="metta-wandb-", ignore_cleanup_errors=True) as scratch:
            tempfile.tempdir = scratch  # wandb.Api creates a folder there for each run that it reads
            _do(request, events, Path(request.folder if request.offline else scratch), closed)
        status = 0
    except Exception as error:
        traceback.print_exc()
        say(events, event="failed", reason=records.explain(error))
    finally:
        os._exit(status)  # because the client would wait until it has sent everything


def _do(request: Request, events: TextIO, folder: Path, closed: threading.Event) -> None:
    from metta.sweep.wandb.project import Project

    store = open_store(request.store, create=request.task == "pull")
    project = Project(request.config, folder, request.patience, request.offline)
    if request.task == "pull":
        pull(request, store, project, events)
    else:
        Sender(request, store, project, events).run(closed)
    store.close()


def _redirect(log: Path) -> None:
    """Redirect the output of the client, and of the process that it starts, to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for source, flags, target in ((os.devnull, os.O_RDONLY, 0), (log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)):
        opened = os.open(source, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)
    os.dup2(1, 2)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
