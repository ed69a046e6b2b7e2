"""Sweeps of probes, and what the tests of executors wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from metta.sweep.definition import SweepDefinition, open_sweep
from metta.sweep.executor.protocol import Executor, Finished
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.store.protocol import Attempt, Store
from metta.sweep.sweep import SweepLoop
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.trial import Progress, Trial, TrialSpec
from metta.tools.sweep import SweepTool
from metta.tools.train import TrainTool
from tests.rl.small import small_env
from tests.support.parabola import parabola_definition
from tests.sweep.executor.probe import TOOL_CLASS, Probe
from tests.sweep.executor.probe_train import ProbeTrainTool
from tests.sweep.test_sweep import SilentView

PATIENCE_SECONDS = 180.0


def probe(number: int, folder: Path, attempt: int = 1, **fields: object) -> TrialSpec:
    """The spec of a Probe that runs in ``folder/number``."""
    tool = Probe.model_validate(fields).model_dump()
    return TrialSpec(number, attempt, TOOL_CLASS, tool, [], run_dir=str(folder / str(number)))


def probe_definition(num_trials: int, **fields: object) -> SweepDefinition:
    """The definition of a sweep of a Probe's x."""
    tool = Probe.model_validate(fields).model_dump()
    return parabola_definition(num_trials).model_copy(update={"tool_class": TOOL_CLASS, "tool": tool})


def drive(store: Store, definition: SweepDefinition, executor: Executor, folder: Path) -> list[Trial]:
    """Run a sweep of probes to its end."""
    definition = open_sweep(store, "s", definition)

    def prepare(attempt: Attempt) -> TrialSpec:
        return probe(attempt.number, folder, attempt.attempt, **{**definition.tool, **attempt.params})

    return list(SweepLoop("s", definition, store, executor, prepare, SilentView()).run().trials)


def probe_sweep(sweep_name: str, wait_for: str, num_trials: int = 9) -> SweepTool:
    """A sweep whose trials run until `wait_for` exists, as a Probe's do."""
    clip_coef = ParameterConfig(min=0.1, max=0.3, distribution="uniform")
    protein = ProteinConfig(metric="reward", parameters={"trainer": {"ppo": {"clip_coef": clip_coef}}})
    return SweepTool(
        sweep=SweepConfig(num_trials=num_trials, protein=protein),
        sweep_name=sweep_name,
        train_tool_factory=partial(_probe_train, wait_for),
    )


def _probe_train(wait_for: str, run_name: str) -> TrainTool:
    return ProbeTrainTool(run_name=run_name, env=small_env(), wait_for=wait_for)


def go_on(progress: Progress) -> bool:
    return True


def next_finished(executor: Executor) -> Finished:
    finished = executor.wait(PATIENCE_SECONDS)
    assert finished is not None
    return finished


def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(folder: Path) -> list[int]:
    """Every process that attempts below a folder told of."""
    return [int(pid) for path in folder.glob("**/pids.?") for pid in path.read_text().split()]
