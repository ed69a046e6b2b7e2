"""What is kept with a sweep's name, and what of it may not change while the name stays the same."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import Field, ValidationError

from metta.common.config import Config, flatten, reasons
from metta.common.errors import UserError
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.ranking import KeepPolicies
from metta.sweep.store.protocol import Store, SweepExistsError, SweepNotFoundError, SweepRecord
from metta.sweep.store.wandb_mirror.config import WandbConfig

OnChange = Literal["refuse", "extend"]


class SweepChangedError(UserError):
    """The sweep in the store answers another question than the one asked under its name."""


class DefinitionError(UserError):
    """What is stored as a sweep's definition cannot be read."""


class SweepDefinition(Config):
    """All that says what a sweep does, as stored with its name.

    Attributes:
        protein: the search.
        num_trials: how many trials are to end.
        max_cost: the budget, in units of the cost metric; None is without limit.
        max_hours, trial_timeout, seeds_per_trial, keep_policies: see `SweepConfig`.
        seed: of the optimiser and of the trials; drawn once when left out, and then kept.
        cost_metric: the metric that is a trial's cost.
        train_overrides: fixed values on every Tool, flat with dotted keys.
        simulations: what trials are evaluated on, by name.
        tool_class: the swept Tool's class, as ``package.module:Class``.
        tool: that Tool's fields before any hyperparameter is put on it.
        wandb: where the sweep is mirrored.
    """

    protein: ProteinConfig
    num_trials: int
    max_cost: float | None = None
    max_hours: float | None = None
    trial_timeout: float | None = None
    seeds_per_trial: int = 1
    keep_policies: KeepPolicies = "all"
    seed: int | None = None
    cost_metric: str = "seconds"
    train_overrides: dict[str, Any] = {}
    simulations: dict[str, dict[str, Any]] = {}
    tool_class: str
    tool: dict[str, Any]
    wandb: WandbConfig = Field(default_factory=WandbConfig)

    def question(self) -> dict[str, Any]:
        """The part that gives a score its meaning: trials may be compared only where this is equal."""
        whole = self.model_dump(mode="json")
        protein = whole["protein"]
        return flatten(
            {
                "parameters": protein["parameters"],
                "metric": protein["metric"],
                "goal": protein["goal"],
                "cost_metric": whole["cost_metric"],
                "seeds_per_trial": whole["seeds_per_trial"],
                "train_overrides": whole["train_overrides"],
                "evaluation_simulations": whole["simulations"],
            }
        )


def differences(old: SweepDefinition, new: SweepDefinition) -> list[str]:
    """One line for each value that changes the question: ``parameters.lr.max: 0.01 -> 0.1``."""
    before, after = old.question(), new.question()
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [f"{path}: {before.get(path, '(absent)')} -> {after.get(path, '(absent)')}" for path in paths]


def read_definition(record: SweepRecord) -> SweepDefinition:
    """The definition that is stored with a sweep.

    Raises:
        DefinitionError: it cannot be read, with the reason.
    """
    try:
        if record.damage:
            raise ValueError(record.damage)
        return SweepDefinition.model_validate(record.config)
    except (ValueError, RecursionError) as error:
        reason = reasons(error.errors(include_url=False)) if isinstance(error, ValidationError) else str(error)
        raise DefinitionError(
            f"sweep {record.name!r}: its stored definition cannot be read ({reason}); its trials are kept. "
            "The command that started it stores it again with on_change=extend"
        ) from None


def open_sweep(
    store: Store,
    name: str,
    definition: SweepDefinition,
    entry_point: dict[str, Any] | None = None,
    on_change: OnChange = "refuse",
) -> SweepDefinition:
    """Create the sweep, or resume or extend the one of that name, and return the definition that now holds.

    Raises:
        SweepChangedError: the question changed and `on_change` is "refuse"; the message shows how.
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
    if changes and on_change == "refuse":
        raise SweepChangedError(
            f"sweep {name!r} in {store.url} was made with other settings: {'; '.join(changes[:6])}"
            + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
            + "\nuse another sweep_name, or keep the old trials that still fit with on_change=extend "
            "(on the command line: --overrides on_change=extend)"
        )
    definition = _with_seed(definition, stored.seed)
    if definition != stored:
        store.update_sweep(name, definition.model_dump(mode="json"), entry_point)
    return definition


def _with_seed(definition: SweepDefinition, kept: int | None) -> SweepDefinition:
    """The definition with its own seed, or the one that was kept, or a new one."""
    if definition.seed is not None:
        return definition
    return definition.model_copy(update={"seed": secrets.randbits(31) if kept is None else kept})
