"""A trial as data: the messages between processes, and the stored record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from metta.sweep.mishaps import is_mishap


class TrialState(StrEnum):
    """States of a trial. `queued` trials wait to start; the last three states are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    PRUNED = "pruned"

    @property
    def ended(self) -> bool:
        return self in (TrialState.COMPLETED, TrialState.FAILED, TrialState.PRUNED)


@dataclass(frozen=True)
class TrialSpec:
    """Everything that a worker needs to run one attempt of a trial: class paths and validated JSON, never a closure.

    Attributes:
        number: number of the trial in its sweep, from 0.
        attempt: number of the attempt, from 1.
        tool_class: where the Tool's class lives, as ``package.module:Class``.
        tool: the Tool's fields as JSON-compatible data; the hyperparameters are already on it.
        simulations: the simulations to evaluate on, as JSON-compatible data; empty means the Tool's own.
        run_dir: folder for checkpoints, logs and results; the same for every attempt of a trial.
        repeats: one further `tool` for each further seed; the trial's result is then the mean over all seeds.
    """

    number: int
    attempt: int
    tool_class: str
    tool: dict[str, Any]
    simulations: list[dict[str, Any]]
    run_dir: str
    repeats: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """A report from a running trial.

    Attributes:
        step: work done so far, in the unit of `total`.
        total: all the work of the trial, or None if unknown.
        seconds: seconds of training so far in this attempt.
        metrics: the learning curve's values at this step, by name.
    """

    step: int
    total: int | None
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """How an attempt ended.

    Attributes:
        metrics: every number measured over the whole run, including attempts that this one resumed from, flat, by
            name; they include the sweep's metric and cost metric.
        cost: seconds of training in this attempt.
        artefacts: URIs of files that the trial made, by name (``"policy"`` is the trained policy).
        error: the traceback of an attempt that failed, else None.
        stopped: the attempt ended early because `report` returned False.
        spread: for a mean over several seeds, the standard deviation of each metric over them.
    """

    metrics: dict[str, float]
    cost: float
    artefacts: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    stopped: bool = False
    spread: dict[str, float] = field(default_factory=dict)


Report = Callable[[Progress], bool]
"""A running trial calls it with its progress; it returns True to continue and False to stop."""


class RunTrial(Protocol):
    """Class method of a Tool that can be swept: runs one attempt from its spec alone."""

    def __call__(self, spec: TrialSpec, report: Report) -> TrialResult: ...


class PeerLostError(RuntimeError):
    """An attempt failed in this process only because another process of the same attempt ended or failed.

    A Tool that runs a trial in several processes raises it, so that the trial fails with the error of the process that
    failed first.
    """


def lost_a_peer(error: str) -> bool:
    """Whether a traceback is that of a `PeerLostError`."""
    return f"{PeerLostError.__module__}.{PeerLostError.__qualname__}" in error


@dataclass(frozen=True, slots=True)
class Trial:
    """The stored record of a trial.

    Attributes:
        number: 0, 1, 2, ...; a gap means that a row was deleted by hand.
        state: see `TrialState`.
        params: hyperparameters, flat with dotted keys.
        suggestion: what the optimiser recorded about these params (source, predictions).
        attempts: attempts started so far.
        score: the sweep's metric as measured, including NaN and infinities; None if it was never measured.
        cost: cost summed over attempts, or None.
        metrics: every number measured by the last attempt.
        artefacts: URIs by name.
        error: traceback or reason of a failure.
        created_at, started_at, ended_at: UTC; `started_at` is that of the last attempt.
        dropped: why the trial was dropped, "" if no reason was given; None if it was not dropped.
        cost_metric: the metric that `cost` is measured in, or None if unknown.
        stopped: why the optimiser stopped it early, or None.
        share: the fraction of a whole run that it completed, 0..1; None if unknown.
        damage: one line for each part of the stored row that cannot be read, ``params: ...``. It is not stored.
    """

    number: int
    state: TrialState
    params: dict[str, Any]
    suggestion: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0
    score: float | None = None
    cost: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    artefacts: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    dropped: str | None = None
    cost_metric: str | None = None
    stopped: str | None = None
    share: float | None = None
    damage: tuple[str, ...] = ()

    @property
    def mishap(self) -> bool:
        """Whether it failed for a reason that does not depend on its hyperparameters; see `metta.sweep.mishaps`."""
        return self.state is TrialState.FAILED and is_mishap(self.error)

    @property
    def counted(self) -> bool:
        """Whether it counts among `num_trials`: it ended, not by a mishap, and was not dropped."""
        return self.state.ended and self.dropped is None and not self.mishap
