"""The space of hyperparameters that Protein searches, and the optimiser's settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from metta.common.config import Config, flatten, reasons
from metta.common.errors import nearest
from metta.common.plain import plain, plain_float, plain_number, shown
from metta.sweep.constraints import Constraint
from metta.sweep.distributions import KINDS, Distribution
from metta.sweep.foreign_ranges import foreign

Method = Literal["bayes", "random", "grid"]
"""How hyperparameters are chosen."""


class ParameterConfig(Config):
    """One hyperparameter's range.

    Attributes:
        min: the lower bound, which is in the range; for every distribution except `categorical`. A number of any
            library; whole numbers stay exact at any size.
        max: the upper bound, which is in the range as well.
        distribution: `uniform`; `int_uniform` (whole numbers); `log_normal` (searched on a log scale) and
            `int_log_normal`; `uniform_pow2` (powers of two); `logit_normal` (searched on the scale of
            log(x / (1 - x)), for shares near 0 or 1); `categorical` (one of `choices`, without order).
        mean: the search centre; by default the middle of the range (on its scale). If it is given, trial 0 has it
            instead of the Tool's own value.
        scale: width of the search around a good trial, as a share of the range; "auto" is the default width.
        step: values are the multiples of it within the bounds: `min=0, max=1, step=0.25` gives 0, 0.25, ..., 1. With a
            step, a continuous distribution has a grid.
        std: random values are normal instead of uniform, with this standard deviation around `mean`; both are on the
            scale of the distribution (for a log scale, of the natural logarithm). Values end at the bounds.
        beta: random values have a beta distribution with these two shapes over the range, instead of a uniform one.
        choices: the values of a categorical parameter, of any JSON type. They make it `categorical` by default.
        weights: how likely each choice is to be drawn at random, in any unit; by default all are equally likely.
        default: the value of this parameter in trials that were recorded without it.

    Example:
        >>> ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal").mean is None
        True
        >>> ParameterConfig(choices=["relu", "gelu"]).distribution
        'categorical'
    """

    min: int | float | None = None
    max: int | float | None = None
    distribution: Distribution
    mean: int | float | None = None
    scale: float | Literal["auto"] = "auto"
    step: int | float | None = None
    std: float | None = Field(default=None, gt=0)
    beta: tuple[float, float] | None = None
    choices: list[JsonValue] | None = None
    weights: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    default: JsonValue = None

    @model_validator(mode="before")
    @classmethod
    def _choices_make_it_categorical(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("choices") is not None and "distribution" not in data:
            return {**data, "distribution": "categorical"}
        if isinstance(data, Mapping) and (problem := foreign(data)) is not None:
            raise ValueError(problem)
        return data

    @field_validator("min", "max", "mean", "step", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return value if value is None else _finite_number(value)

    @field_validator("choices", "default", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        try:
            return plain(value)
        except TypeError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale != "auto" and not 0 < self.scale <= 1:
            raise ValueError(f"scale ({self.scale:g}) must be above 0 and at most 1")
        if self.distribution == "categorical":
            self._check_categorical()
        else:
            self._check_range()
            self._check_values()
        return self

    def _check_categorical(self) -> None:
        if not self.choices:
            raise ValueError("a categorical parameter needs choices")
        if any(same(one, other) for i, one in enumerate(self.choices) for other in self.choices[:i]):
            raise ValueError(f"a choice is given twice: {self.choices}")
        if any(value is not None for value in (self.min, self.max, self.mean, self.step, self.std, self.beta)):
            raise ValueError("a categorical parameter has choices, not min, max, mean, step, std or beta")
        if self.weights is not None and (len(self.weights) != len(self.choices) or not sum(self.weights)):
            raise ValueError(f"weights: expected {len(self.choices)} numbers, one for each choice, not all of them 0")
        if self.default is not None and not any(same(self.default, choice) for choice in self.choices):
            raise ValueError(f"default ({self.default!r}) is not one of the choices {self.choices}")

    def _check_range(self) -> None:
        if self.choices is not None or self.weights is not None:
            raise ValueError(f"choices and weights belong to a categorical parameter, not to {self.distribution}")
        if self.min is None or self.max is None:
            raise ValueError(f"{self.distribution} needs min and max")
        if not self.min < self.max:
            raise ValueError(f"min ({self.min:g}) must be below max ({self.max:g})")
        scale = KINDS[self.distribution].scale
        if scale == "log" and self.min <= 0:
            raise ValueError(f"a log scale needs min above 0, not {self.min:g}")
        if scale == "logit" and not 0 < self.min < self.max < 1:
            raise ValueError(f"a logit scale needs bounds between 0 and 1, not {self.min:g}..{self.max:g}")
        if not math.isfinite(float(self.max) - float(self.min)):
            raise ValueError(f"{self.min:g}..{self.max:g} is too wide: max - min exceeds the largest number, 1.8e308")
        if self.mean is not None and not self.min <= self.mean <= self.max:
            raise ValueError(f"mean ({self.mean:g}) is outside {self.min:g}..{self.max:g}")
        if self.default is not None:
            self._check_default()

    def _check_values(self) -> None:
        """Check the possible values and their probabilities."""
        kind = KINDS[self.distribution]
        if self.step is not None:
            if kind.step == "power of two" or kind.scale == "logit":
                raise ValueError(f"{self.distribution} has no step")
            if self.step <= 0:
                raise ValueError(f"step ({self.step:g}) must be above 0")
            if kind.step == "integer" and self.step != int(self.step):
                raise ValueError(f"step ({self.step:g}) of {self.distribution} must be a whole number")
        if self.std is not None and (self.beta is not None or self.mean is None):
            raise ValueError("std needs mean, and cannot be combined with beta")
        if self.beta is not None and not all(0 < shape < math.inf for shape in self.beta):
            raise ValueError(f"the shapes of beta must be above 0, not {self.beta}")

    def _check_default(self) -> None:
        """The default must be on the scale, because trials can have it."""
        try:
            default = plain_float(self.default)
        except TypeError as error:
            raise ValueError(f"default ({shown(self.default)}) must be a number: {error}") from None
        if not math.isfinite(default):
            raise ValueError(f"default ({self.default}) must be a finite number")
        scale = KINDS[self.distribution].scale
        if scale == "log" and default <= 0:
            raise ValueError(f"default ({self.default}) must be above 0, because {self.distribution} has a log scale")
        if scale == "logit" and not 0 < default < 1:
            raise ValueError(f"default ({self.default}) must be between 0 and 1, because the scale is a logit scale")


LESS_IS_BETTER = re.compile(r"(?:loss|error|_err|rmse|\bmse|_mse|\bmae|_mae|nll|perplexity|ppl)(?![a-z])")
"""How the words end that name a metric which is usually minimised, in small letters."""


class ProteinSettings(Config):
    """How Protein searches.

    Attributes:
        num_random_samples: trials after trial 0 and before the models. None means 4 without a budget. With one, it
            means trials at the cheap end of the space until a tenth of the budget is spent: 4 to 24 of them, and at
            most a quarter of all trials. See docs/benchmarks.md.
        suggestions_per_pareto: candidates around each trial of the Pareto front, for each suggestion. Fewer are
            faster; after 20 observations the number decreases.
        expansion_rate: how far the predicted cost of a suggestion may exceed the costs so far, as a share of their
            logarithmic range. Smaller is safer if an unexpected cost would do harm.
        max_suggestion_cost: the value of a suggestion decreases as its predicted cost exceeds this; None for no limit.
        global_search_scale: width of the candidates around the Pareto front, relative to each parameter's `scale`.
        random_suggestions: candidates from the whole space, for each suggestion. Fewer are faster; after 20
            observations the number decreases.
        resample_frequency: interval, in suggestions, at which the least tried hyperparameters of the Pareto front are
            repeated; 0 for never. For scores so noisy that one trial says little.
        seed_with_search_center: whether to begin with the Tool's own values, or with the search centre where they are
            unknown or outside the space, as a baseline. The search centre costs as much as the middle of the space: if
            the budget is only 5 times that, and neither own nor good values are known, turn it off; see
            docs/benchmarks.md.
    """

    num_random_samples: int | None = Field(default=None, ge=0)
    suggestions_per_pareto: int = Field(default=64, ge=1)
    expansion_rate: float = Field(default=1.0, ge=0)
    max_suggestion_cost: float | None = Field(default=None, gt=0)
    global_search_scale: float = Field(default=1.0, gt=0)
    random_suggestions: int = Field(default=1024, ge=1)
    resample_frequency: int = Field(default=0, ge=0)
    seed_with_search_center: bool = True


class ProteinConfig(Config):
    """A search: the metric, its goal, and the hyperparameters.

    Attributes:
        metric: name of the metric that is the score.
        goal: whether a larger or a smaller score is better.
        method: how hyperparameters are chosen. "bayes" is Protein; "random" draws each trial independently; "grid"
            takes every combination of values once, in the order of nested loops over the parameters as given: the last
            parameter changes fastest. A grid needs parameters with countable values.
        parameters: nested like the swept Tool, with a `ParameterConfig` or a fixed value at each leaf. Keys may be
            dotted; they are nested when validated. A mapping that has `distribution`, `choices`, or `min` and `max` is
            read as a `ParameterConfig`, so that a configuration can be rebuilt from its JSON.
        constraints: conditions that every suggestion meets, such as ``minibatch_size <= batch_size``; see
            `metta.sweep.constraints`.
        settings: how to search.
    """

    metric: str
    goal: Literal["maximize", "minimize"] = "maximize"
    method: Method = "bayes"
    parameters: dict[str, Any]
    constraints: list[str] = []
    settings: ProteinSettings = Field(default_factory=ProteinSettings)

    @field_validator("parameters", mode="before")
    @classmethod
    def _build_parameters(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        parameters = _build(value, "parameters")
        leaves = flatten(parameters)
        if not any(isinstance(leaf, ParameterConfig) for leaf in leaves.values()):
            raise ValueError("parameters: the space is empty: it contains no ParameterConfig")
        return parameters

    @property
    def doubtful_goal(self) -> bool:
        """Whether a metric that is usually minimised is maximised because no goal is given."""
        return "goal" not in self.model_fields_set and LESS_IS_BETTER.search(self.metric.lower()) is not None

    @model_validator(mode="after")
    def _check_constraints(self) -> Self:
        paths = flatten(self.parameters)
        for text in self.constraints:
            for path, value in Constraint.parse(text, paths).compared:
                leaf = paths[path]
                choices = leaf.choices if isinstance(leaf, ParameterConfig) else None
                if choices and value not in choices:
                    raise ValueError(
                        f"constraint {text!r}: {path} is never {value!r}; {nearest(value, map(str, choices))}"
                    )
        return self


def same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two JSON values are equal; unlike in Python, true is not equal to 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return one == other


def _finite_number(value: Any) -> int | float:
    """A finite number, given as a number or as text."""
    try:
        number = _read_number(value) if isinstance(value, str) else plain_number(value)
        finite = math.isfinite(plain_float(number))
    except (TypeError, ValueError) as error:
        raise ValueError(str(error) if isinstance(error, TypeError) else f"{value!r} is not a number") from None
    if not finite:
        raise ValueError(f"must be a finite number, not {number}")
    return number


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _build(node: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Nest dotted keys and turn each mapping that describes a range into a `ParameterConfig`."""
    built: dict[str, Any] = {}
    for key, value in node.items():
        if not isinstance(key, str) or not all(key.split(".")):
            raise ValueError(f"{where}: {key!r} is not a name")
        *groups, name = key.split(".")
        target, path = built, f"{where}.{key}"
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise ValueError(f"{path}: {group!r} is a parameter, so it cannot contain another one")
        leaf = _build_leaf(value, path)
        if name in target:
            if not (isinstance(leaf, dict) and isinstance(target[name], dict)):
                raise ValueError(f"{path}: given twice")
            leaf = _merge(target[name], leaf, path)
        target[name] = leaf
    return built


def _build_leaf(value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        return _fixed(value)
    if not _describes_range(value):
        return _build(value, path)
    try:
        return ParameterConfig.model_validate(value)
    except ValidationError as error:
        raise ValueError(f"{path}: {reasons(error.errors(include_url=False), model=ParameterConfig)}") from None


def _fixed(value: Any) -> Any:
    """A `ParameterConfig` unchanged; a fixed value as plain data, if possible."""
    if isinstance(value, ParameterConfig):
        return value
    try:
        return plain(value)
    except TypeError:
        return value


def _merge(one: dict[str, Any], other: dict[str, Any], path: str) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        if key in merged:
            if not (isinstance(value, dict) and isinstance(merged[key], dict)):
                raise ValueError(f"{path}.{key}: given twice")
            value = _merge(merged[key], value, f"{path}.{key}")
        merged[key] = value
    return merged


def _describes_range(node: Mapping[str, Any]) -> bool:
    choices = node.get("choices")
    return (
        isinstance(node.get("distribution"), str)
        or isinstance(choices, list | tuple)
        or hasattr(choices, "tolist")
        or all(_is_number(node.get(key)) for key in ("min", "max"))
    )


def _is_number(value: Any) -> bool:
    try:
        plain_number(value)
    except TypeError:
        return isinstance(value, bool)
    return True
