"""The base class of all sweeps: fields, definition, and preparation of trials.

`metta.sweep.session` runs it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import rich.console
from pydantic import Field, ValidationError, field_validator

from metta.common.config import Config, explain
from metta.common.console import Console
from metta.common.data_dir import default_store_url, resolved_store_url
from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError, nearest
from metta.common.tool import Tool
from metta.sweep.definition import OnChange, SweepDefinition
from metta.sweep.ending import trials_of
from metta.sweep.executor import ExecutorName, RayOptions, open_executor
from metta.sweep.executor.protocol import Executor
from metta.sweep.observations import search_centre
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.report.commands import next_commands
from metta.sweep.report.format import value_text
from metta.sweep.report.terminal.session_view import ConsoleSession
from metta.sweep.result import SweepResult
from metta.sweep.session import Session
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Attempt
from metta.sweep.sweep import TooManyFailuresError
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.sweep_name import name_problem, normalised, shown_name
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import TrialSpec, TrialState
from metta.sweep.wandb.config import WandbConfig


class AbstractSweep(Tool):
    """Searches hyperparameters, and keeps every trial in a store.

    A subclass is a kind of sweep and defines a trial: `definition` checks it before anything runs, and `prepare`
    creates it. It may also override `describe`, `shared_folder`, `open_executor`, `rebuilt_by`, `next_commands`,
    `command` and `drive`.

    Attributes:
        sweep: what to search, and for how many trials.
        sweep_name: the sweep's name in the store; the same name resumes or extends it.
        cost_metric: the metric that is the cost of a trial: "seconds" of training, or any other metric of the trial.
        seed: seed of the optimiser and of the trials; by default drawn once and stored.
        store: URL of the store.
        executor: where trials run: "inline" in this process, "local" in worker processes on this machine, or "ray";
            by default "ray" with a `ray.address`, "local" with more than one worker, and otherwise "inline".
        num_workers: number of trials at once; by default one inline, and otherwise as many as the resources allow.
        cpus_per_trial: CPU threads of each trial; by default the cores divided by the workers.
        gpus_per_trial: GPUs of each trial, a fraction or a whole number; by default one if there are GPUs.
        ray: options of Ray only: `ray.address` of a cluster, and `ray.ranks_per_trial`.
        wandb: whether and where the sweep is mirrored in Weights & Biases.
        on_change: what to do if the stored sweep has other settings: "refuse", or "extend" it with the trials that fit.
        write_report: whether to write a report into the folder of the runs when the sweep ends, if plotly is installed.
    """

    moved: ClassVar[Mapping[str, str]] = {"ray_address": "ray.address", "ranks_per_trial": "ray.ranks_per_trial"}

    sweep: SweepConfig
    sweep_name: str
    cost_metric: str = "seconds"
    seed: int | None = Field(default=None, ge=0)
    store: str = Field(default_factory=default_store_url)
    executor: ExecutorName | None = None
    num_workers: int | None = Field(default=None, ge=1)
    cpus_per_trial: int | None = Field(default=None, ge=1)
    gpus_per_trial: float | None = Field(default=None, ge=0)
    ray: RayOptions = RayOptions()
    wandb: WandbConfig = Field(default_factory=WandbConfig)
    on_change: OnChange = "refuse"
    write_report: bool = True

    @field_validator("sweep_name")
    @classmethod
    def _normalise_name(cls, name: str) -> str:
        return normalised(name)

    @field_validator("store")
    @classmethod
    def _resolve_store(cls, url: str) -> str:
        return resolved_store_url(url)

    @abstractmethod
    def definition(self) -> SweepDefinition:
        """Check the whole sweep before anything runs, and return its definition for the store.

        Raises:
            UserError: it cannot run with these settings.
        """

    @abstractmethod
    def prepare(self, definition: SweepDefinition, attempt: Attempt, seed: int, run_dir: Path) -> TrialSpec:
        """Make the spec of an attempt, which runs in the folder `run_dir` with these hyperparameters and this seed."""

    def shared_folder(self, definition: SweepDefinition, number: int) -> str | None:
        """URL of the folder where a trial stores files for other machines, or None if there is none."""
        return None

    def remarks(self) -> list[str]:
        """Remarks for the user, before the sweep runs, about how it was read."""
        metric = self.sweep.protein.metric
        if not self.sweep.protein.doubtful_goal:
            return []
        return [f"warning: {metric} is maximized, because no goal is given; if less of it is better: goal=minimize"]

    def describe(self, metrics: Mapping[str, float]) -> str:
        """A short description of a trial's metrics in the terms of the trained system."""
        return ""

    def open_executor(self) -> Executor:
        """Make the executor. It starts nothing before the first trial."""
        return open_executor(
            self.executor,
            self.num_workers,
            self.cpus_per_trial,
            self.gpus_per_trial,
            self.ray,
        )

    def rebuilt_by(self) -> EntryPoint | None:
        """The entry point that rebuilds this sweep on another machine, or None if there is none."""
        return self._entry_point

    def next_commands(self, state: SweepState) -> dict[str, str]:
        """Commands to run after the sweep, by purpose."""
        return next_commands(state)

    def command(self) -> str | None:
        """The command that resumes this sweep, without a password; None if no command can."""
        if self._entry_point is None:
            return None
        return self._entry_point.command()

    def invoke(self) -> int:
        return self.drive()

    def work(self) -> int:
        """Run the sweep together with its other drivers, and return an exit status."""
        return self.drive(exclusive=False)

    def drive(self, exclusive: bool = True) -> int:
        """Run the sweep from the command line, and return an exit status."""
        console = Console()
        try:
            result = self.run(console, exclusive)
        except TooManyFailuresError as error:
            command = self.command()
            resume = "" if command is None else f"\nto resume the sweep:\n  {command}"
            console.print(f"{error}{resume}", style="red", markup=False, highlight=False, soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            command = self.command()
            how = "invoke it again" if command is None else f"run the same command again:\n  {command}"
            message = f"\nstopped; every trial that ended is kept. To resume, {how}"
            console.print(message, markup=False, highlight=False, soft_wrap=True)
            return 130
        return exit_status(result.state)

    def run(
        self, console: rich.console.Console | None = None, exclusive: bool = True, outcome: bool = True
    ) -> SweepResult:
        """Run the sweep to its end and return its result.

        Args:
            console: where to show it; by default standard output.
            exclusive: whether to refuse to work together with other drivers.
            outcome: whether to show the outcome at the end.

        Raises:
            UserError: the sweep cannot run with these settings; nothing has run.
            TooManyFailuresError: five trials failed in a row.
            KeyboardInterrupt: it was stopped; every trial that ended is stored.
        """
        console = console or Console(force_jupyter=False)  # in a notebook: a stream, not one block for each line
        return Session(self, ConsoleSession(console, self.describe), exclusive, outcome).run()

    def stored_entry_point(self) -> dict[str, Any] | None:
        """The entry point as stored: without the store's URL, which may contain a password."""
        entry_point = self.rebuilt_by()
        if entry_point is None:
            return None
        overrides = {path: text for path, text in entry_point.overrides.items() if path != "store"}
        return entry_point.model_copy(update={"overrides": overrides}).model_dump()

    def entry_point_from_fields(self) -> EntryPoint:
        """The entry point that rebuilds this sweep from its fields. The sweep must have no other state."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"store", "on_change"})
        if "goal" in self.sweep.protein.model_fields_set:  # that it was given counts, see `doubtful_goal`
            fields["sweep"]["protein"]["goal"] = self.sweep.protein.goal
        texts = {name: value_text(value) for name, value in fields.items()}
        return EntryPoint(path=f"{type(self).__module__}.{type(self).__name__}", args=texts)

    def check_name(self) -> None:
        """Raise UserError unless the sweep's name is a valid folder name."""
        if problem := name_problem(self.sweep_name):
            raise UserError(f"sweep_name {shown_name(self.sweep_name)}: {problem}")

    def define(self, tool_class: str, tool: dict[str, Any], **more: Any) -> SweepDefinition:
        """The definition of this sweep.

        Args:
            tool_class, tool, more: fields of `SweepDefinition` that depend on the kind of sweep.
        """
        self.check_name()
        search_centre(self.sweep.protein)
        self._check_stopping()
        num_trials = trials_of(self.sweep)
        return SweepDefinition(
            protein=self.sweep.protein,
            num_trials=num_trials,
            target=self.sweep.target,
            max_cost=self.sweep.max_cost,
            max_runs=self.sweep.max_runs,
            max_hours=self.sweep.max_hours,
            trial_timeout=self.sweep.trial_timeout,
            seeds_per_trial=self.sweep.seeds_per_trial,
            early_stopping=self.sweep.early_stopping,
            min_share=self.sweep.min_share,
            rungs=self.sweep.rungs,
            eta=self.sweep.eta,
            progress_metric=self.sweep.progress_metric,
            progress_goal=self.sweep.progress_goal,
            keep_policies=self.sweep.keep_policies,
            seed=self.seed,
            cost_metric=self.cost_metric,
            wandb=self.wandb,
            tool_class=tool_class,
            tool=tool,
            **{"traits": ToolTraits(), **more},
        )

    def _check_stopping(self) -> None:
        seeds = self.sweep.seeds_per_trial
        if self.sweep.early_stopping != "off" and seeds != "auto" and seeds > 1:
            raise UserError(
                f"early_stopping={self.sweep.early_stopping} compares single runs, so it does not support "
                f"seeds_per_trial={seeds}; seeds_per_trial=auto repeats promising configurations instead"
            )


def exit_status(state: SweepState) -> int:
    """0 if a trial of the sweep has completed, else 1; see docs/command.md."""
    return 0 if state.counts[TrialState.COMPLETED] else 1


AnySweep = TypeVar("AnySweep", bound=AbstractSweep)
AnyConfig = TypeVar("AnyConfig", bound=Config)


def assemble(kind: type[AnySweep], fields: Mapping[str, Any], where: str) -> AnySweep:
    """Make a sweep from one mapping of its own fields and those of its `SweepConfig` and `ProteinConfig`.

    Args:
        where: the source of the fields, for error messages.

    Raises:
        UserError: a field is unknown (with the nearest names), or a value does not fit.
    """
    homes: list[tuple[type[Config], dict[str, Any]]] = [(ProteinConfig, {}), (SweepConfig, {}), (kind, {})]
    names = [name for model, _ in homes for name in model.model_fields if name not in ("protein", "sweep")]
    for name, value in fields.items():
        if name in kind.moved:
            homes[-1][1][name] = value
            continue
        if name not in names:
            raise UserError(f"{where}: unknown setting {name!r}; {nearest(name, names)}")
        next(values for model, values in homes if name in model.model_fields)[name] = value
    (_, protein), (_, sweep), (_, tool) = homes
    sweep["protein"] = _validated_model(ProteinConfig, protein, where)
    return _validated_model(kind, {"sweep": _validated_model(SweepConfig, sweep, where), **tool}, where)


def _validated_model(model: type[AnyConfig], fields: Mapping[str, Any], where: str) -> AnyConfig:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model, fields)}") from None
