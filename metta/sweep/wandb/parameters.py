"""Converts W&B's description of a hyperparameter to ours. Distributions keep their meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from metta.common.errors import UserError, nearest
from metta.sweep.protein_config import same

SIGMAS = 4.0
"""W&B's normal distributions have no bounds; here they end this many deviations from their mean."""
_RANGE_WORDS = ("distribution", "choices", "min", "max")
"""Names under which a nested constant would make its group look like the range of one parameter."""


@dataclass
class ParameterReader:
    """Reads the parameters of a sweep file of W&B.

    Attributes:
        grid: whether they are the axes of a grid.
        remarks: remarks for the user about how they were read; appended while reading.
    """

    grid: bool = False
    remarks: list[str] = field(default_factory=list)

    def read(self, parameters: Any, where: str, nested: bool = False) -> dict[str, Any]:
        """Each parameter as a `ParameterConfig` in the form of a dict, a fixed value, or nested parameters.

        Raises:
            UserError: a parameter is not valid in W&B either; the message says what to write instead.
        """
        if not isinstance(parameters, Mapping) or not parameters:
            raise UserError(f"{where}: expected parameters by name, as in lr: {{min: 0.001, max: 0.1}}")
        read = {}
        for name, value in parameters.items():
            leaf = self._parameter(value, f"{where}.{name}")
            if nested and str(name) in _RANGE_WORDS and not isinstance(leaf, Mapping):
                leaf = _constant(leaf)
            read[str(name)] = leaf
        return read

    def _parameter(self, value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise UserError(
                f"{where}: expected value, values, or min and max, not {value!r}; write {{value: {value!r}}}"
            )
        if "parameters" in value:
            _only(value, ("parameters",), where)
            return self.read(value["parameters"], where, nested=True)
        name = value["distribution"] if "distribution" in value else _default_distribution(value, where)
        if not isinstance(name, str) or name not in _DISTRIBUTIONS:
            raise UserError(
                f"{where}: the distribution {name!r} of W&B is not supported; {nearest(str(name), _DISTRIBUTIONS)}"
            )
        kind = _DISTRIBUTIONS[name]
        if self.grid and not kind.countable:
            raise UserError(
                f"{where}: a grid needs countable values, but {name} is continuous; "
                "write values: [...], or distribution: q_uniform with min, max and q"
            )
        _only(value, ("distribution", *kind.needs, *kind.may_have), where)
        given = {key: _number(value[key], f"{where}.{key}") for key in value if key not in _NOT_NUMBERS}
        for key in kind.needs:
            if key not in value:
                raise UserError(f"{where}: {name} needs {key!r}; {_advice(name, value)}")
        if name == "log_uniform":
            self._warn_of_values(given, where)
        try:
            return kind.convert({**value, **given}, self.grid, where)
        except OverflowError:
            raise UserError(
                f"{where}: {name} takes exponents of e, and {given} are too large; "
                "if they are values, write distribution: log_uniform_values"
            ) from None

    def _warn_of_values(self, given: Mapping[str, float], where: str) -> None:
        """Add a remark if exponents look like values: exponents of learning rates and similar values are negative."""
        low, high = given["min"], given["max"]
        if low > 0 and (low < 0.1 or high > 20) and high < 700:
            self.remarks.append(
                f"{where}: log_uniform takes exponents of e, so {low:g} to {high:g} is a search from {math.exp(low):g} "
                f"to {math.exp(high):g}; if these are values, write distribution: log_uniform_values"
            )


Converter = Callable[[Mapping[str, Any], bool, str], Any]
"""Takes W&B's description, whether it is an axis of a grid, and its location."""


@dataclass(frozen=True)
class _Kind:
    """One of W&B's distributions.

    Attributes:
        needs, may_have: its keys.
        convert: returns a `ParameterConfig` as a dict, or a fixed value.
        countable: whether a grid can contain it.
    """

    needs: tuple[str, ...]
    convert: Converter
    may_have: tuple[str, ...] = ()
    countable: bool = False


_NOT_NUMBERS = ("distribution", "value", "values", "probabilities")


def _only(value: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in value:
        if key not in keys:
            deep = "; a separate parameter must be indented less" if isinstance(value[key], Mapping) else ""
            raise UserError(f"{where}: {key!r} of W&B is not supported here; {nearest(str(key), keys)}{deep}")


def _number(value: Any, where: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: {value!r} is not a number")
    return value


def _advice(name: str, value: Mapping[str, Any]) -> str:
    if "values" in value:
        return "for values omit distribution"
    return f"write {{distribution: {name}, min: ..., max: ...}}" if "min" in _DISTRIBUTIONS[name].needs else "add it"


def _default_distribution(value: Mapping[str, Any], where: str) -> str:
    """The default distribution in W&B."""
    if "value" in value:
        return "constant"
    if "values" in value:
        return "categorical_w_probabilities" if "probabilities" in value else "categorical"
    if "min" in value and "max" in value:
        whole = all(isinstance(value[key], int) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise UserError(f"{where}: expected value, values, or min and max")


def _data(value: Any) -> Any:
    """A value as W&B's server stores it, in JSON: dates and keys are text."""
    if isinstance(value, Mapping):
        return {str(key): _data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_data(item) for item in value]
    return str(value) if isinstance(value, date | bytes) else value


def _constant(value: Any) -> dict[str, Any]:
    """A constant as a choice of one value, so that it is not read as nested parameters or a range."""
    return {"choices": [value], "distribution": "categorical"}


def _read_constant(value: Mapping[str, Any], grid: bool, where: str) -> Any:
    constant = _data(value["value"])
    return _constant(constant) if isinstance(constant, Mapping) else constant


def _read_values(value: Mapping[str, Any], grid: bool, where: str) -> dict[str, Any]:
    """Choices. A value that appears twice is drawn twice as often, as in W&B."""
    values, weights = _data(value["values"]), value.get("probabilities")
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}.values: {values!r} is not a list of values; write values: [...]")
    if weights is not None and grid:
        raise UserError(f"{where}: probabilities have no effect in a grid; remove them")
    if weights is None:
        weights = [1] * len(values)
    if not isinstance(weights, list) or len(weights) != len(values):
        raise UserError(f"{where}.probabilities: expected {len(values)} numbers, one for each value")
    weights = [_number(weight, f"{where}.probabilities") for weight in weights]
    choices: list[Any] = []
    totals: list[float] = []
    for each, weight in zip(values, weights, strict=True):
        known = next((i for i, choice in enumerate(choices) if same(each, choice)), None)
        if known is None:
            choices.append(each)
            totals.append(weight)
        else:
            totals[known] += weight
    alike = grid or len(set(totals)) == 1
    return {"choices": choices, "distribution": "categorical"} | ({} if alike else {"weights": totals})


def _range(
    distribution: str, scale: Callable[[float], float] = lambda x: x, swap: bool = False, quantised: bool = False
) -> Converter:
    """Converts a range; `scale` converts its bounds to values."""

    def convert(value: Mapping[str, Any], grid: bool, where: str) -> Any:
        low, high = scale(value["min"]), scale(value["max"])
        low, high = (high, low) if swap else (low, high)
        if not quantised:
            return low if low == high else {"min": low, "max": high, "distribution": distribution}
        return _quantised(low, high, value.get("q", 1), distribution, where)

    return convert


def _quantised(low: float, high: float, q: int | float, distribution: str, where: str) -> Any:
    """The multiples of q to which W&B rounds the values of a range."""
    if q <= 0:
        raise UserError(f"{where}.q: {q} must be above 0")
    counts = round(low / q), round(high / q)
    if distribution == "log_normal":
        counts = max(counts[0], 1), counts[1]  # a log scale has no 0
    ends = [count * q if isinstance(q, int) else float(f"{count * q:.12g}") for count in counts]
    if ends[0] >= ends[1]:
        return ends[0]
    return {"min": ends[0], "max": ends[1], "step": q, "distribution": distribution}


def _q_uniform(value: Mapping[str, Any], grid: bool, where: str) -> Any:
    """W&B's grid counts from min in steps of q without max; its other methods round to multiples of q."""
    q = value.get("q", 1)
    if not grid or q <= 0:
        return _range("uniform", quantised=True)(value, grid, where)
    low, high = value["min"], value["max"]
    count = max(1, math.ceil((high - low) / q - 1e-9))
    values = [low + i * q for i in range(count)]
    whole = all(isinstance(each, int) for each in (low, q))
    return {"choices": values if whole else [float(f"{each:.12g}") for each in values], "distribution": "categorical"}


def _normal(distribution: str, quantised: bool = False) -> Converter:
    """Converts mu and sigma, of the values or of their logarithms."""
    scale: Callable[[float], float] = math.exp if distribution == "log_normal" else float

    def convert(value: Mapping[str, Any], grid: bool, where: str) -> Any:
        mean, std = float(value.get("mu", 0.0)), float(value.get("sigma", 1.0))
        if std <= 0:
            return scale(mean)
        low, high = scale(mean - SIGMAS * std), scale(mean + SIGMAS * std)
        range_: Any = {"min": low, "max": high, "distribution": distribution}
        if quantised:
            range_ = _quantised(low, high, value.get("q", 1), distribution, where)
            if not isinstance(range_, dict):
                return range_
        centre = min(max(scale(mean), range_["min"]), range_["max"])
        return {**range_, "mean": centre, "std": std}

    return convert


def _beta(quantised: bool = False) -> Converter:
    def convert(value: Mapping[str, Any], grid: bool, where: str) -> Any:
        a, b = float(value.get("a", 1)), float(value.get("b", 1))
        range_: Any = {"min": 0.0, "max": 1.0, "distribution": "uniform"}
        if quantised:
            range_ = _quantised(0.0, 1.0, value.get("q", 1), "uniform", where)
        return range_ if not isinstance(range_, dict) else {**range_, "mean": a / (a + b), "beta": [a, b]}

    return convert


def _exp_minus(x: float) -> float:
    return math.exp(-x)


_ENDS, _MOMENTS, _SHAPES = ("min", "max"), ("mu", "sigma"), ("a", "b")
_DISTRIBUTIONS: dict[str, _Kind] = {
    "constant": _Kind(("value",), _read_constant, countable=True),
    "categorical": _Kind(("values",), _read_values, countable=True),
    "categorical_w_probabilities": _Kind(("values", "probabilities"), _read_values, countable=True),
    "uniform": _Kind(_ENDS, _range("uniform")),
    "int_uniform": _Kind(_ENDS, _range("int_uniform"), countable=True),
    "q_uniform": _Kind(_ENDS, _q_uniform, ("q",), countable=True),
    "log_uniform": _Kind(_ENDS, _range("log_normal", math.exp)),
    "log_uniform_values": _Kind(_ENDS, _range("log_normal")),
    "inv_log_uniform": _Kind(_ENDS, _range("log_normal", _exp_minus, swap=True)),
    "inv_log_uniform_values": _Kind(_ENDS, _range("log_normal")),
    "q_log_uniform": _Kind(_ENDS, _range("log_normal", math.exp, quantised=True), ("q",)),
    "q_log_uniform_values": _Kind(_ENDS, _range("log_normal", quantised=True), ("q",)),
    "normal": _Kind((), _normal("uniform"), _MOMENTS),
    "q_normal": _Kind((), _normal("uniform", quantised=True), (*_MOMENTS, "q")),
    "log_normal": _Kind((), _normal("log_normal"), _MOMENTS),
    "q_log_normal": _Kind((), _normal("log_normal", quantised=True), (*_MOMENTS, "q")),
    "beta": _Kind((), _beta(), _SHAPES),
    "q_beta": _Kind((), _beta(quantised=True), (*_SHAPES, "q")),
}
"""W&B's distributions. Without `q`, W&B takes 1."""


def apart(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Give a parameter another path if its name is a prefix of others, such as a Hydra group and ``group.value``.

    Args:
        parameters: in our form, by their names in the file.

    Returns:
        The parameters, and the path of each one whose path differs from its name.
    """
    renamed: dict[str, str] = {}
    for name, leaf in parameters.items():
        is_group = isinstance(leaf, Mapping) and "distribution" not in leaf and "choices" not in leaf
        if not is_group and any(other.startswith(f"{name}.") for other in parameters):
            path = f"{name}.group"
            while any(other == path or other.startswith(f"{path}.") for other in parameters):
                path += "_"
            renamed[name] = path
    return {renamed.get(name, name): leaf for name, leaf in parameters.items()}, renamed
