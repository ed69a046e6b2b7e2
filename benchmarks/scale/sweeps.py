"""Sweeps of `Sleeper`, with a clock on each part of the driver."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scale.sleeper import TOOL_CLASS, Sleeper
from metta.sweep.definition import SweepDefinition, open_sweep
from metta.sweep.executor.protocol import Executor
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt
from metta.sweep.sweep import SweepLoop
from metta.sweep.trial import Progress, Trial, TrialSpec


@dataclass
class Clock:
    """Seconds spent in parts of the driver, on the wall and of its CPU, and the wall seconds of each call."""

    wall: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                self.calls[part].append(time.perf_counter() - wall)
                self.wall[part] += self.calls[part][-1]
                self.cpu[part] += time.process_time() - cpu

        return call


class _Timed:
    """A proxy that times an object's methods, each under its name after `prefix`."""

    def __init__(self, inner: Any, clock: Clock, prefix: str = "") -> None:
        self._inner, self._clock, self._prefix = inner, clock, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._clock.timed(self._prefix + name, value) if callable(value) else value


class _Silent:
    """Shows nothing."""

    def notice(self, message: str) -> None:
        print(message)

    def started(self, attempt: Attempt) -> None: ...

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None: ...


def sweep_sleepers(
    folder: Path, executor: Executor, num_trials: int, mean_seconds: float, by_model: bool, clock: Clock
) -> None:
    """Run a sweep with the real loop, store and optimiser, and time its parts: "suggest", "tell", "store.start", ....

    Args:
        by_model: let Protein suggest by its model; otherwise all suggestions are random.
    """
    dimensions = {name: ParameterConfig(min=0.0, max=1.0, distribution="uniform") for name in "xyz"}
    settings = ProteinSettings() if by_model else ProteinSettings(num_random_samples=num_trials)
    definition = SweepDefinition(
        protein=ProteinConfig(metric="score", parameters=dimensions, settings=settings),
        num_trials=num_trials,
        seed=0,
        tool_class=TOOL_CLASS,
        tool=Sleeper(mean_seconds=mean_seconds).model_dump(),
    )
    store: Any = open_store(f"sqlite:///{folder / 'sweeps.db'}")
    definition = open_sweep(store, "scale", definition)

    def prepare(attempt: Attempt) -> TrialSpec:
        run_dir = str(folder / f"{attempt.number:05d}")
        return TrialSpec(
            attempt.number, attempt.attempt, TOOL_CLASS, {**definition.tool, **attempt.params}, [], run_dir
        )

    loop = SweepLoop("scale", definition, _Timed(store, clock, "store."), executor, prepare, _Silent())
    loop._learner = _Timed(loop._learner, clock)  # type: ignore[assignment]
    try:
        loop.run()
    finally:
        executor.close()
        store.close()
