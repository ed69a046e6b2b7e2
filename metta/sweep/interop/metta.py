"""Sweeps of Metta AI's repository: its presets, its parameters, and the arguments of its `make_sweep`.

Its scripts use the parameter paths of its trainer. Paths that differ in the trainer here are renamed.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from metta.common.config import reasons
from metta.common.errors import UserError, nearest
from metta.sweep.interop.ranges import adjusted_range
from metta.sweep.protein_config import Method, ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig

Space = Mapping[str, Any]

_RANGE = {"min", "max", "distribution"}

RENAMED = {
    "trainer.losses.ppo_actor.clip_coef": "trainer.ppo.clip_coef",
    "trainer.losses.ppo_actor.ent_coef": "trainer.ppo.ent_coef",
    "trainer.losses.ppo_critic.vf_coef": "trainer.ppo.vf_coef",
    "trainer.losses.ppo.clip_coef": "trainer.ppo.clip_coef",
    "trainer.losses.ppo.ent_coef": "trainer.ppo.ent_coef",
    "trainer.losses.ppo.vf_coef": "trainer.ppo.vf_coef",
    "trainer.losses.ppo.gae_lambda": "trainer.ppo.gae_lambda",
    "trainer.advantage.gae_lambda": "trainer.ppo.gae_lambda",
    "trainer.advantage.gamma": "trainer.ppo.gamma",
}
"""The hyperparameters of its trainer, with their paths in the trainer here."""


class Distribution(StrEnum):
    """The distributions of its `SP.param`."""

    UNIFORM = "uniform"
    INT_UNIFORM = "int_uniform"
    UNIFORM_POW2 = "uniform_pow2"
    LOG_NORMAL = "log_normal"
    LOGIT_NORMAL = "logit_normal"


def _preset(
    path: str, low: float, high: float, distribution: Distribution, centre: float
) -> dict[str, ParameterConfig]:
    return {path: ParameterConfig(min=low, max=high, distribution=distribution.value, mean=centre)}


class SweepParameters:
    """Its builders of parameters and its presets, each a search space of one parameter."""

    LEARNING_RATE = _preset("trainer.optimizer.learning_rate", 1e-5, 1e-2, Distribution.LOG_NORMAL, 1e-3)
    ADAM_EPS = _preset("trainer.optimizer.eps", 1e-8, 1e-4, Distribution.LOG_NORMAL, 1e-6)
    PPO_CLIP_COEF = _preset("trainer.ppo.clip_coef", 0.05, 0.3, Distribution.UNIFORM, 0.2)
    PPO_ENT_COEF = _preset("trainer.ppo.ent_coef", 1e-4, 0.03, Distribution.LOG_NORMAL, 0.01)
    PPO_GAE_LAMBDA = _preset("trainer.ppo.gae_lambda", 0.8, 0.99, Distribution.UNIFORM, 0.95)
    PPO_VF_COEF = _preset("trainer.ppo.vf_coef", 0.1, 1.0, Distribution.UNIFORM, 0.5)

    @staticmethod
    def param(
        name: str,
        distribution: str,
        min: float,
        max: float,
        search_center: float | None = None,
        scale: float | Literal["auto"] = "auto",
    ) -> dict[str, ParameterConfig]:
        """A range of numbers. Without a search centre, it is the middle of the range on its scale."""
        fields = {"distribution": str(distribution), "min": min, "max": max, "mean": search_center, "scale": scale}
        return {name: _range(name, fields)}

    @staticmethod
    def categorical(name: str, choices: Sequence[Any]) -> dict[str, ParameterConfig]:
        return {name: _choices(name, choices)}


SP = SweepParameters


def from_metta(search_space: Space | Iterable[Space]) -> dict[str, ParameterConfig | Any]:
    """Convert a search space: a mapping of dotted paths, or a list of such mappings as its presets are.

    Its package need not be installed. A value with `min`, `max` and `distribution`, as attributes or keys, is a range;
    a value with `choices`, or a list as in its `grid_search`, is a choice; any other mapping holds nested parameters,
    and anything else is a fixed value. A logit scale excludes 0 and 1, so these bounds are moved inside by a millionth,
    as in its own code.

    Raises:
        UserError: a range cannot be searched, or a parameter appears twice.

    Example:
        >>> from_metta([SP.LEARNING_RATE, {"trainer.gamma": {"min": 0.9, "max": 1, "distribution": "logit_normal"}}])[
        ...     "trainer.gamma"
        ... ].max
        0.999999
    """
    spaces = [search_space] if isinstance(search_space, Mapping) else search_space
    converted: dict[str, Any] = {}
    for space in spaces:
        for path, value in _leaves(space):
            path = RENAMED.get(path, path)
            if path in converted:
                raise UserError(f"{path}: given twice")
            converted[path] = _converted(path, value)
    return converted


def make_sweep(
    name: str,
    recipe: str,
    train_entrypoint: str,
    eval_entrypoint: str,
    metric_key: str,
    search_space: Space | Iterable[Space],
    cost_key: str | None = None,
    max_trials: int = 10,
    num_parallel_trials: int = 1,
    goal: Literal["maximize", "minimize"] = "maximize",
    method: Method = "bayes",
) -> dict[str, Any]:
    """The arguments of a `SweepTool`, from those of Metta's `make_sweep`: ``SweepTool(**make_sweep(...))``.

    Args:
        name: the sweep's name.
        recipe: a module, such as ``"experiments.arena"``.
        train_entrypoint: its function that creates a training Tool for a run's name.
        eval_entrypoint: its function, without arguments, that returns the simulations that a trial is evaluated on, or
            a Tool with them; "" for those of the training Tool.
        metric_key: the metric. ``evaluator/eval_arena/score`` is ``arena`` here.
        search_space: see `from_metta`.
        cost_key: the metric that is a trial's cost; by default the seconds of training.
        max_trials: the number of trials.
        num_parallel_trials: the number of concurrent trials.
        goal: whether a larger or a smaller metric is better.
        method: how hyperparameters are chosen; see `ProteinConfig`.

    Raises:
        UserError: the module or function does not exist, or the search space cannot be searched.
    """
    protein = ProteinConfig(metric=metric_key, goal=goal, method=method, parameters=from_metta(search_space))
    return {
        "sweep_name": name,
        "sweep": SweepConfig(
            num_trials=max_trials, protein=protein, evaluation_simulations=_simulations(recipe, eval_entrypoint)
        ),
        "train_tool_factory": _entry_point(recipe, train_entrypoint),
        "cost_metric": cost_key or "seconds",
        "num_workers": num_parallel_trials,
    }


def grid_search(
    name: str,
    recipe: str,
    train_entrypoint: str,
    eval_entrypoint: str,
    objective: str,
    parameters: Space | Iterable[Space],
    max_trials: int = 10,
    num_parallel_trials: int = 1,
    goal: Literal["maximize", "minimize"] = "maximize",
) -> dict[str, Any]:
    """The arguments of a `SweepTool` that tries each combination of choices once. The last choice changes fastest.

    Args:
        objective: the metric.
        parameters: lists of choices, by nested or dotted names; a range needs countable values.
        max_trials: the maximum number of points of the grid that are tried.
        name, recipe, train_entrypoint, eval_entrypoint, num_parallel_trials, goal: see `make_sweep`.

    Raises:
        UserError: as `make_sweep`. A continuous range is refused when the sweep is defined.
    """
    return make_sweep(
        name,
        recipe,
        train_entrypoint,
        eval_entrypoint,
        objective,
        parameters,
        max_trials=max_trials,
        num_parallel_trials=num_parallel_trials,
        goal=goal,
        method="grid",
    )


def _simulations(recipe: str, entry_point: str) -> Any:
    if not entry_point:
        return None
    function = _entry_point(recipe, entry_point)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UserError(
            f"{recipe}.{entry_point} must return simulations when called without arguments: {error}"
        ) from None
    made = function()
    return getattr(made, "simulations", made)


def _entry_point(recipe: str, name: str) -> Any:
    try:
        module = importlib.import_module(recipe)
    except ModuleNotFoundError as error:
        raise UserError(f"recipe: {error}") from None
    if not callable(found := getattr(module, name, None)):
        functions = [each for each, value in vars(module).items() if callable(value)]
        raise UserError(f"{recipe} has no function {name!r}; {nearest(name, functions)}")
    return found


def _leaves(space: Space, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The parameters in a nested space, by dotted path."""
    for name, value in space.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and "choices" not in value and not value.keys() >= _RANGE:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _converted(path: str, value: Any) -> Any:
    if isinstance(value, ParameterConfig):
        return value
    fields = value.model_dump() if isinstance(value, BaseModel) else value
    if isinstance(fields, Mapping) and "choices" in fields:
        return _choices(path, fields["choices"])
    if isinstance(fields, Mapping) and fields.keys() >= _RANGE:
        return _range(path, fields)
    return _choices(path, value) if isinstance(value, list | tuple) else value


def _range(path: str, fields: Mapping[str, Any]) -> ParameterConfig:
    try:
        return ParameterConfig.model_validate(adjusted_range(path, fields))
    except ValidationError as error:
        raise UserError(f"{path}: {reasons(error.errors(include_url=False))}") from None
    except (TypeError, KeyError):
        raise UserError(f"{path}: {dict(fields)} is not a range") from None


def _choices(path: str, choices: Sequence[Any]) -> ParameterConfig:
    try:
        return ParameterConfig.model_validate({"choices": list(choices)})
    except ValidationError as error:
        raise UserError(f"{path}: {reasons(error.errors(include_url=False))}") from None
