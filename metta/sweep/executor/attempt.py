"""Run one attempt of a trial from its spec alone."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from metta.common.text import shortened
from metta.sweep.executor.messages import from_json, to_json
from metta.sweep.executor.repeats import run_repeats
from metta.sweep.executor.surroundings import kept
from metta.sweep.trial import Report, RunTrial, TrialResult, TrialSpec

LONGEST_ERROR = 50_000
"""Characters that are kept of an error, of its beginning and its end."""


def load_run_trial(tool_class: str) -> RunTrial:
    """The `run_trial` of the class at ``package.module:Class``."""
    module, _, name = tool_class.partition(":")
    return cast(RunTrial, getattr(importlib.import_module(module), name).run_trial)


def run_attempt(
    spec: TrialSpec, report: Report, load: Callable[[str], RunTrial] = load_run_trial, interruptible: bool = True
) -> TrialResult:
    """Run the trial as its Tool's class does, and turn an exception into a result with its traceback.

    A child process that the trial forks, and that returns from it, ends here, because it is no driver.

    Args:
        interruptible: whether a KeyboardInterrupt stops this process: a Ctrl-C, or a SIGTERM that a driver treats as
            one. In a process that gets neither, the trial itself raised it.
    """
    process = os.getpid()
    try:
        with kept():
            run_trial = load(spec.tool_class)
            return run_repeats(run_trial, spec, report) if spec.repeats else run_trial(spec, report)
    except BaseException as error:  # also SystemExit, from a script's main() that refused its arguments
        if isinstance(error, KeyboardInterrupt) and interruptible:
            raise
        return _failure()
    finally:
        if os.getpid() != process:
            os._exit(1)


def run_attempt_apart(spec_json: str | bytes, report: Report) -> str:
    """Run an attempt in a separate process: from JSON to JSON, with its output in the log of the run."""
    spec = from_json(TrialSpec, spec_json)
    try:
        with _output_to(log_path(spec)):
            ignores_ctrl_c = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a local worker does
            result = run_attempt(spec, report, interruptible=not ignores_ctrl_c)
    except OSError:  # the disk of the runs is full or unreachable
        result = _failure()
    try:
        return to_json(result)
    except (TypeError, ValueError):
        return to_json(_failure())


def log_path(spec: TrialSpec) -> Path:
    """The log of a worker's output while it runs this trial."""
    return Path(spec.run_dir) / "worker.log"


def _failure() -> TrialResult:
    """The result of an attempt that failed with the exception being handled."""
    return TrialResult(metrics={}, cost=0.0, error=shortened(traceback.format_exc(), LONGEST_ERROR))


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append the output of this process, including libraries in C, to the file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = [stream.fileno() for stream in (sys.stdout, sys.stderr)]
    kept = [os.dup(place) for place in places]

    def send(descriptors: Iterable[int]) -> None:
        for stream, place, descriptor in zip((sys.stdout, sys.stderr), places, descriptors, strict=True):
            with suppress(OSError, ValueError):  # the trial closed it, or no byte more fits on the disk
                stream.flush()
            os.dup2(descriptor, place)

    with path.open("ab") as log:
        send([log.fileno(), log.fileno()])
    try:
        yield
    finally:
        send(kept)
        for descriptor in kept:
            os.close(descriptor)
