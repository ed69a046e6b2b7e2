"""The settings that are stored with a sweep, and which of them may not change under the same name."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from metta.common.config import Config, flatten, reasons
from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError
from metta.sweep.protein.types import ETA, Rule
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.ranking import Goal, KeepPolicies
from metta.sweep.store.protocol import Store, SweepExistsError, SweepNotFoundError, SweepRecord
from metta.sweep.sweep_config import SeedsPerTrial
from metta.sweep.traits import ToolTraits, traits_of_older
from metta.sweep.wandb.config import WandbConfig

OnChange = Literal["refuse", "extend"]


class SweepChangedError(UserError):
    """The stored sweep of this name has settings that give its scores another meaning."""


class DefinitionError(UserError):
    """The stored definition of a sweep cannot be read."""


class SweepDefinition(Config):
    """All settings of a sweep, as stored with its name.

    Attributes:
        protein: the search.
        num_trials: how many trials should end; for a grid, at most its number of points.
        target: the sweep also ends when a completed trial has a score at least as good as this; None for no target.
        max_cost: the budget, in units of the cost metric; None for no limit.
        max_runs: the budget in whole runs, of which a stopped trial counts for its share; None for no limit.
        max_hours, trial_timeout, seeds_per_trial, keep_policies, early_stopping, min_share, rungs, eta,
            progress_metric, progress_goal: see `SweepConfig`. A sweep that was stored before early stopping existed
            stops no trial.
        seed: seed of the optimiser and of the trials; by default drawn once and stored.
        cost_metric: the metric that is the cost of a trial.
        train_overrides: fixed values on every Tool, flat with dotted keys.
        simulations: the simulations that trials are evaluated on, by name.
        tool_class: the swept Tool's class, as ``package.module:Class``.
        tool: the Tool's fields, without the hyperparameters of any trial.
        own_values: the Tool's own values of the searched hyperparameters, by dotted path, if they are known:
            trial 0 has them. Empty in a sweep that was stored before this field: its trial 0 was the search centre.
        traits: what the Tool declares about itself.
        wandb: where the sweep is mirrored.
    """

    protein: ProteinConfig
    num_trials: int
    target: float | None = None
    max_cost: float | None = None
    max_runs: float | None = None
    max_hours: float | None = None
    trial_timeout: float | None = None
    seeds_per_trial: SeedsPerTrial = 1
    early_stopping: Rule = "off"
    min_share: float = 0.04
    rungs: list[int] = []
    eta: float = ETA
    progress_metric: str | None = None
    progress_goal: Goal | None = None
    keep_policies: KeepPolicies = "all"
    seed: int | None = None
    cost_metric: str = "seconds"
    train_overrides: dict[str, Any] = {}
    simulations: dict[str, dict[str, Any]] = {}
    tool_class: str
    tool: dict[str, Any]
    own_values: dict[str, Any] = {}
    traits: ToolTraits = ToolTraits()
    wandb: WandbConfig = Field(default_factory=WandbConfig)

    @model_validator(mode="before")
    @classmethod
    def _with_traits(cls, data: Any) -> Any:
        if isinstance(data, dict) and "traits" not in data and isinstance(data.get("tool_class"), str):
            return {**data, "traits": traits_of_older(data["tool_class"])}
        return data

    @property
    def fixed_seed(self) -> str | None:
        """The path of the seed if the sweep fixes or searches it, so that no trial can run on another; else None."""
        path = self.traits.seed_path
        return path if path in {**self.train_overrides, **flatten(self.protein.parameters)} else None

    @property
    def seeds(self) -> int:
        """The number of seeds on which each trial runs."""
        return 1 if self.seeds_per_trial == "auto" else self.seeds_per_trial

    @property
    def learns_from_curves(self) -> bool:
        return self.early_stopping != "off" or self.seeds_per_trial == "auto"

    @property
    def watched_metric(self) -> str:
        """The metric whose learning curves the optimiser uses."""
        return self.progress_metric or self.traits.progress or self.protein.metric

    @property
    def watched_goal(self) -> Goal:
        """Whether a better trial has a higher or a lower value of the watched metric."""
        if self.progress_goal is not None:
            return self.progress_goal
        declared = self.traits.progress_goal if self.watched_metric == self.traits.progress else None
        return self.protein.goal if self.watched_metric == self.protein.metric else declared or self.protein.goal

    @property
    def watched_sign(self) -> float:
        """What turns the watched metric into the direction of the sweep's goal: 1 or -1."""
        return 1.0 if self.watched_goal == self.protein.goal else -1.0

    def question(self) -> dict[str, Any]:
        """The settings that give a score its meaning: trials are comparable only if these are equal."""
        whole = self.model_dump(mode="json")
        protein, program = whole["protein"], self.tool.get("program", {})
        return flatten(
            {
                "parameters": protein["parameters"],
                "metric": protein["metric"],
                "goal": protein["goal"],
                "cost_metric": whole["cost_metric"],
                "seeds_per_trial": self.seeds,
                "train_overrides": whole["train_overrides"],
                "evaluation_simulations": whole["simulations"],
                # How a program's values become its score
                "metric.take": program.get("take", "last"),
                "metric.window": program.get("window"),
            }
        )


def built_from_fields(entry_point: EntryPoint) -> bool:
    """Whether an entry point was made from a sweep's fields, so that it is not a command for users."""
    return {"sweep", "sweep_name"} <= entry_point.args.keys()


def differences(old: SweepDefinition, new: SweepDefinition) -> list[str]:
    """One line for each value that changes the question: ``parameters.lr.max: 0.01 -> 0.1``."""
    before, after = old.question(), new.question()
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [f"{path}: {before.get(path, '(absent)')} -> {after.get(path, '(absent)')}" for path in paths]


def what_runs(definition: SweepDefinition) -> Any:
    """The program's command or the function that trials run, as stored; None if a Tool is swept."""
    return definition.tool.get("program", {}).get("command") or definition.tool.get("function")


def read_entry_point(record: SweepRecord) -> EntryPoint | None:
    """The entry point that rebuilds the sweep, or None if there is none.

    Raises:
        DefinitionError: it cannot be read.
    """
    try:
        return None if record.entry_point is None else EntryPoint.model_validate(record.entry_point)
    except ValidationError as error:
        reason = reasons(error.errors(include_url=False))
        raise DefinitionError(
            f"sweep {record.name!r}: its stored entry point cannot be read ({reason}); "
            "to store it again, run the command that started the sweep"
        ) from None


def readable_entry_point(record: SweepRecord) -> EntryPoint | None:
    """The entry point that rebuilds the sweep; None also if it cannot be read."""
    try:
        return read_entry_point(record)
    except DefinitionError:
        return None


def definition_problem(record: SweepRecord) -> str | None:
    """Why the definition or the entry point of a sweep cannot be read; None if both can."""
    try:
        _validated(record)
        if record.entry_point:  # an empty one could not be read when the sweep was exported
            read_entry_point(record)
    except DefinitionError as error:
        return str(error)
    except (ValueError, RecursionError) as error:
        return _reason(error)
    return None


def read_definition(record: SweepRecord) -> SweepDefinition:
    """The stored definition of a sweep.

    Raises:
        DefinitionError: it cannot be read, with the reason.
    """
    try:
        return _validated(record)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(
            f"sweep {record.name!r}: its stored definition cannot be read ({_reason(error)}); its trials are kept. "
            "To store it again, run the command that started the sweep with on_change=extend"
        ) from None


def _validated(record: SweepRecord) -> SweepDefinition:
    if record.damage:
        raise ValueError(record.damage)
    return SweepDefinition.model_validate(record.config)


def _reason(error: Exception) -> str:
    return reasons(error.errors(include_url=False)) if isinstance(error, ValidationError) else str(error)


def open_sweep(
    store: Store,
    name: str,
    definition: SweepDefinition,
    entry_point: dict[str, Any] | None = None,
    on_change: OnChange = "refuse",
) -> SweepDefinition:
    """Create the sweep, or resume or extend the one of that name, and return its current definition.

    A sweep that has learnt nothing yet, and that nobody runs, takes any definition.

    Raises:
        SweepChangedError: the meaning of scores changed and `on_change` is "refuse"; the message lists the changes.
        DefinitionError: the stored definition cannot be read and `on_change` is "refuse".
    """
    try:
        record = store.sweep(name)
    except SweepNotFoundError:
        definition = _with_seed(definition, None)
        try:
            store.create_sweep(name, definition.model_dump(mode="json"), entry_point)
        except SweepExistsError:
            return open_sweep(store, name, definition, entry_point, on_change)
        return definition
    try:
        stored = read_definition(record)
    except DefinitionError:
        if on_change == "refuse":
            raise
        definition = _with_seed(definition, None)
        store.update_sweep(name, definition.model_dump(mode="json"), entry_point)
        return definition
    changes = differences(stored, definition)
    if changes and nothing_learnt(store, name):
        _drop_ended(store, name)
    elif changes and on_change == "refuse":
        raise SweepChangedError(
            f"sweep {name!r} in {store.url} was made with other settings: {'; '.join(changes[:6])}"
            + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
            + "\nuse another sweep_name, or keep the old trials that still fit with on_change=extend "
            "(on the command line: --overrides on_change=extend)"
        )
    definition = _with_seed(definition, stored.seed)
    if definition != stored or (entry_point is not None and readable_entry_point(record) is None):
        store.update_sweep(name, definition.model_dump(mode="json"), entry_point)
    return definition


def nothing_learnt(store: Store, name: str) -> bool:
    """Whether a sweep has no trial that counts, and no driver runs it, so that its settings can change without loss."""
    idle = not any(driver.alive for driver in store.drivers(name))
    return idle and not any(trial.counted for trial in store.trials(name))


def _drop_ended(store: Store, name: str) -> None:
    """Drop the mishaps, which would otherwise be run again with hyperparameters that may not fit any more."""
    numbers = [each.number for each in store.trials(name) if each.state.ended and each.dropped is None]
    if numbers:
        store.drop(name, numbers, "the sweep got other settings before it had learnt anything")


def _with_seed(definition: SweepDefinition, kept: int | None) -> SweepDefinition:
    """The definition with its own seed, or else the stored one, or else a new one."""
    if definition.seed is not None:
        return definition
    return definition.model_copy(update={"seed": secrets.randbits(31) if kept is None else kept})
