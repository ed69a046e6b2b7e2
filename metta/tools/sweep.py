"""SweepTool: search the hyperparameters of a TrainTool, or of another TrainingTool. Imports no training code."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, SkipValidation

from metta.common.config import Overrides
from metta.common.data_dir import default_store_url
from metta.common.errors import UserError
from metta.common.trust import require_own
from metta.rl.launch import is_launched, leads
from metta.sweep.abstract_sweep import AbstractSweep
from metta.sweep.definition import SweepDefinition
from metta.sweep.executor.protocol import Executor
from metta.sweep.observations import own_values, search_centre
from metta.sweep.session import trial_seed
from metta.sweep.state import SweepState, read_state
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Trial, TrialSpec
from metta.tools.ranked_sweep import LeadingExecutor, follow
from metta.tools.training import TrainingTool

AnyTrainingTool = TrainingTool[Any, Any]


class SweepTool(AbstractSweep):
    """Searches the hyperparameters of a TrainTool, and records every trial in a store.

    Attributes:
        train_tool_factory: creates a TrainTool for a run's name; it runs only in the driver.
        train_overrides: fixed values, set on every TrainTool before the hyperparameters.
    """

    train_tool_factory: SkipValidation[Callable[[str], AnyTrainingTool]] = Field(exclude=True, repr=False)
    train_overrides: Overrides = Field(default_factory=Overrides)

    def drive(self, exclusive: bool = True) -> int:
        return super().drive(exclusive) if leads() else follow()

    def open_executor(self) -> Executor:
        if not is_launched():
            ranks, on_ray = self.ray.ranks_per_trial, self.executor == "ray" or self.ray.address is not None
            if ranks > 1 and not on_ray:
                raise UserError(
                    f"ray.ranks_per_trial={ranks}: with executor={self.executor or 'inline'} trials start their ranks; "
                    f"set train_overrides.trainer.num_ranks={ranks}"
                )
            return super().open_executor()
        if self.executor not in (None, "inline") or (self.num_workers or 1) > 1:
            raise UserError("torchrun has already started the ranks of every trial; do not set executor or num_workers")
        return LeadingExecutor()

    def definition(self) -> SweepDefinition:
        """Check the whole sweep before training, and return its definition for the store.

        Raises:
            UserError: the name is not valid, the TrainTool lacks a path or refuses a value, or the metric is unknown.
        """
        self.check_name()
        tool = self._fresh_tool(self.sweep_name)
        centre = search_centre(self.sweep.protein)
        tool.model_copy(deep=True).update(centre)
        fields = tool.model_dump(mode="json")
        seed, seeds = tool.traits.seed_path, self.sweep.seeds_per_trial
        if seeds != 1 and seed in {**self.train_overrides.root, **centre}:
            raise UserError(f"seeds_per_trial={seeds}: {seed} is set, so all seeds would be the same")
        simulations = self._simulations(tool)
        for metric in (self.sweep.protein.metric, self.cost_metric):
            tool.check_metric(metric, simulations)
        if self.sweep.progress_metric is not None:
            tool.check_progress_metric(self.sweep.progress_metric, simulations)
        return self.define(
            tool_class=f"{type(tool).__module__}:{type(tool).__qualname__}",
            tool=fields,
            own_values=own_values(self.sweep.protein, fields),
            traits=tool.traits,
            train_overrides=self.train_overrides.root,
            simulations={simulation.name: simulation.model_dump(mode="json") for simulation in simulations},
        )

    def prepare(self, definition: SweepDefinition, attempt: Attempt, seed: int, run_dir: Path) -> TrialSpec:
        tool = self._fresh_tool(self._run_name(attempt.number))
        seed_path = tool.traits.seed_path
        seeds = {seed_path: seed} if seed_path and not definition.fixed_seed else {}
        tool.update({**seeds, **attempt.params})
        return TrialSpec(
            number=attempt.number,
            attempt=attempt.attempt,
            tool_class=definition.tool_class,
            tool=tool.model_dump(mode="json"),
            simulations=[simulation.model_dump(mode="json") for simulation in self._simulations(tool)],
            run_dir=str(run_dir),
        )

    def shared_folder(self, definition: SweepDefinition, number: int) -> str | None:
        policies = definition.tool.get("policies")  # missing in sweeps that were stored before this setting existed
        return policies and TrainingTool.shared_folder(policies, self._run_name(number))

    def describe(self, metrics: Mapping[str, float]) -> str:
        return self._tool_class.describe(metrics)

    @cached_property
    def _tool_class(self) -> type[AnyTrainingTool]:
        return type(self._fresh_tool(self.sweep_name))

    def _run_name(self, number: int) -> str:
        return f"{self.sweep_name}.{number:04d}"

    def _fresh_tool(self, run_name: str) -> AnyTrainingTool:
        return self.train_tool_factory(run_name).update(self.train_overrides.root)

    def _simulations(self, tool: AnyTrainingTool) -> list[Any]:
        chosen = self.sweep.evaluation_simulations
        return list(tool.simulations if chosen is None else chosen)


def retrain(
    sweep_name: str, trial: int | None = None, seed: int | None = None, store: str | None = None, trust: bool = False
) -> AnyTrainingTool:
    """Train again with the hyperparameters of a sweep's trial.

    Args:
        sweep_name: the sweep.
        trial: the trial's number; by default the best trial.
        seed: a new seed, to check whether the score was luck; by default the trial's own seed.
        store: URL of the store; by default the one in the data folder.
        trust: whether to import the Tool that the store names even if it is not in the current folder or in metta.

    Raises:
        UserError: the sweep or the trial does not exist, or its Tool is not trusted.
    """
    opened = open_store(store or default_store_url())
    try:
        state = read_state(opened, sweep_name)
    finally:
        opened.close()
    definition, chosen = state.definition, _trial_to_retrain(state, trial)
    if not trust:
        require_own([definition.tool_class], Path.cwd(), "add --args trust=true")
    tool = _tool_class(definition).model_validate(definition.tool).update(state.params_of(chosen))
    if seed is not None:
        tool.override("trainer.seed", seed)
    elif "trainer.seed" not in {**definition.train_overrides, **chosen.params}:
        tool.override("trainer.seed", trial_seed(definition.seed or 0, chosen.number))
    return tool.override("run_name", f"{sweep_name}.{chosen.number:04d}.seed{tool.trainer.seed}")


def _trial_to_retrain(state: SweepState, number: int | None) -> Trial:
    """The trial with that number, or by default the best one."""
    if number is not None:
        return state.trial(number)
    if state.best is None:
        raise UserError(f"no trial of {state.name!r} has a score, so there is no best trial")
    return state.best


def _tool_class(definition: SweepDefinition) -> type[AnyTrainingTool]:
    """The class of the Tool that a sweep trained."""
    module, _, name = definition.tool_class.partition(":")
    found: type[AnyTrainingTool] = getattr(importlib.import_module(module), name)
    return found
