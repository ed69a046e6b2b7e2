"""Recognises ranges in the syntax of other tools, and gives the equivalent line here."""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from metta.common.errors import UserError
from metta.common.plain import plain, plain_number, shown
from metta.sweep.distributions import KINDS

_KEYS = {
    "min": ("min", "low", "lower", "minimum", "lb"),
    "max": ("max", "high", "upper", "maximum", "ub"),
    "choices": ("choices", "values", "categories", "grid_search"),
    "distribution": ("distribution", "type", "prior", "kind"),
    "log": ("log", "log_scale", "log_base"),
}
"""The names that other tools use for the fields of a range."""

_OF_OTHERS = ("step", "q", "mu", "sigma", "value", "bounds", "name", "sampler", "value_type", "probabilities")

_DISTRIBUTIONS = {
    "log_normal": ("loguniform", "loguniformvalues", "lognormal", "log", "reciprocal"),
    "int_log_normal": ("lograndint", "qloguniform", "qloguniformvalues", "intloguniform", "loguniformint"),
    "uniform": ("uniform", "float", "real", "continuous", "double", "range", "linear"),
    "int_uniform": (
        "randint",
        "int",
        "integer",
        "quniform",
        "intuniform",
        "uniformint",
        "randrange",
        "discreteuniform",
    ),
    "uniform_pow2": ("pow2", "uniformpow2", "poweroftwo", "powersoftwo"),
    "logit_normal": ("logit", "logituniform", "logitnormal"),
    "categorical": ("choice", "choices", "values", "grid", "gridsearch", "categorical", "discrete"),
}
"""Our distributions, with the names of other tools for them, in lower case and without punctuation."""

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"

_CLOSE = 0.75  # of a typing error to the name that was meant: mx to max, but not mix

_OPTUNA = "hyperparameters are declared in `parameters`, not in the function"


def refuse_foreign(parameters: Any, where: str) -> None:
    """Refuse a range in the syntax of another tool, because it would be read as a fixed value.

    Args:
        parameters: the parameters as given, nested.
        where: the source of the parameters, for the message.

    Raises:
        UserError: a range is foreign; the message names the first one, and the line to write instead.
    """
    if not isinstance(parameters, Mapping):
        return
    for name, value in parameters.items():
        if (problem := foreign(value)) is not None:
            raise UserError(f"{where}.{name}: {problem}")
        if isinstance(value, Mapping) and not {"distribution", "choices"} & value.keys():
            refuse_foreign(value, f"{where}.{name}")


def foreign(value: Any) -> str | None:
    """Why a value is a range of another tool, and what to write instead; None for any other value.

    Example:
        >>> foreign({"min": 1e-4, "max": 1, "distribution": "loguniform"})
        'the distribution is called log_normal here; write {"min": 0.0001, "max": 1, "distribution": "log_normal"}'
        >>> foreign([64, 64]) is foreign({"min": 0, "max": 1, "distribution": "uniform"}) is None
        True
    """
    if isinstance(value, Mapping):
        return _foreign_mapping(value)
    if isinstance(value, str):
        return _foreign_text(value)
    if isinstance(value, range):
        return f"a Python range is not a search range; write {_line(value.start, value[-1], 'int_uniform')}"
    if isinstance(value, list | tuple):
        return _foreign_list(value)
    return _foreign_object(value)


def _foreign_list(values: Sequence[Any]) -> str | None:
    """A list of different values, which may be a range, choices, or one fixed value.

    Two numbers close together, such as Adam's betas [0.9, 0.99], are read as one fixed value.
    """
    scalars = all(isinstance(value, str | int | float) for value in values)
    if not scalars or len(values) < 2 or len(set(values)) < len(values):
        return None
    try:
        ways = [f"for choices {_choices(values)}", f"for a fixed list {_choices([list(values)])}"]
    except (TypeError, ValueError):
        return None
    low, high = values[0], values[-1]
    if len(values) == 2 and _are_numbers(values) and low < high:
        if low > 0 and high < 2 * low:
            return None
        ways.insert(0, f"for a range {_line(low, high, _likely(low, high))}")
    return f"{shown(list(values), 60)} may mean several things; write {', or '.join(ways)}"


def _foreign_mapping(value: Mapping[str, Any]) -> str | None:
    said = {ours: value[key] for ours, keys in _KEYS.items() for key in keys if key in value}
    known = {*_OF_OTHERS, "mean", "scale", "default", *(key for keys in _KEYS.values() for key in keys)}
    if typo := _misspelt_bound(value, known):
        return typo
    if value.keys() in ({"value"}, {"value", "distribution"}):
        return f"'value' is W&B's; a fixed value is written as it is: {shown(value['value'], 60)}"
    if not said or not {str(key) for key in value} <= known:
        return None
    if isinstance(choices := said.get("choices"), list | tuple):
        return (
            None
            if "choices" in value
            else f"{_first(value, 'choices')!r} is called choices here; write " + _choices(choices)
        )
    if "choices" in value and "distribution" not in value and not hasattr(value["choices"], "tolist"):
        return f"choices: expected a list, not {shown(value['choices'], 60)}"
    if not _are_numbers([said.get("min"), said.get("max")]):
        return None
    name = said.get("distribution")
    if name in KINDS and "min" in value and "max" in value and "distribution" in value:
        return None
    if not isinstance(name, str):
        name = said["distribution"] = ""
    return _foreign_range(said["min"], said["max"], name, bool(said.get("log")), value)


def _misspelt_bound(value: Mapping[str, Any], known: Collection[str]) -> str | None:
    """A range with one wrong name, which would be read as two fixed values, such as ``{min: 1, mx: 2}``."""
    missing = {"min", "max"} - value.keys()
    unknown = [key for key in value if key not in known]
    if len(missing) != 1 or len(unknown) != 1:
        return None
    (right,), (wrong,) = missing, unknown
    bounds = [value[key] for key in value if key in ("min", "max", wrong)]
    is_close = get_close_matches(str(wrong), [right], cutoff=_CLOSE)
    return f"{wrong!r} is unknown; did you mean {right!r}?" if is_close and _are_numbers(bounds) else None


def _foreign_range(low: float, high: float, name: str, log: bool, value: Mapping[str, Any]) -> str | None:
    ours = _ours(name)
    if name and ours is None:
        return None  # a typing error; another message gives the nearest of our names
    if name == "log_uniform" and low < high < 700:  # W&B's log_uniform has exponents, and log_uniform_values has values
        text = (
            f"the bounds of W&B's log_uniform are exponents; write {_line(math.exp(low), math.exp(high), 'log_normal')}"
        )
        return text + (f", or, if they are values, {_line(low, high, 'log_normal')}" if low > 0 else "")
    if ours in (None, "categorical"):
        ours = _likely(low, high)
    if log and "log" not in ours:
        ours = "int_log_normal" if ours.startswith("int") else "log_normal"
    if "min" not in value or "max" not in value:
        why = f"{_first(value, 'min')} and {_first(value, 'max')} are called min and max here"
    elif name:
        why = f"the distribution is called {ours} here"
    else:
        why = "the distribution is missing"
    others = "" if name else f" (distributions: {', '.join([*KINDS, 'categorical'])})"
    return f"{why}; write {_line(low, high, ours)}{others}"


def _foreign_text(text: str) -> str | None:
    """A call in the syntax of another tool, such as ``tune.loguniform(1e-4, 1)``, of ``--search``, or two bounds."""
    if match := re.fullmatch(r"(\S+?)\.\.(\S+?)(?::(\w+))?", text):
        try:
            low, high = (plain_number(ast.literal_eval(bound)) for bound in match.group(1, 2))
        except (TypeError, ValueError, SyntaxError):
            return None
        ours = _ours(match.group(3) or "") or _likely(low, high)
        return f"this is the form of --search; write {_line(low, high, ours)}"
    if (match := re.fullmatch(rf"{_NUMBER} *(?:-|to) *{_NUMBER}", text)) and not all(map(str.isdigit, match.groups())):
        return _foreign_list([float(bound) for bound in match.groups()])
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Tuple | ast.List) and text.strip()[0] in "([":
            return _foreign_list(ast.literal_eval(call))
        if not isinstance(call, ast.Call):
            return None
        name = ast.unparse(call.func).rpartition(".")[2]
        values = [ast.literal_eval(argument) for argument in call.args]
        options = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        return None
    return _foreign_call(name, values, options)


def _foreign_call(name: str, values: list[Any], options: Mapping[str | None, Any]) -> str | None:
    ours = _ours(name.removeprefix("suggest_"))
    if ours is None:
        return None
    values = [each for each in values if not isinstance(each, str)] or values
    numbers = [*values, *(options[key] for key in ("low", "high") if key in options)]
    if ours == "categorical":
        lists = [each for each in [*values, *options.values()] if isinstance(each, list | tuple)]
        return f"{name} is not a range here; write {_choices(lists[0])}" if lists else None
    if len(numbers) < 2 or not _are_numbers(numbers[:2]):
        return None
    if options.get("log"):
        ours = "int_log_normal" if ours.startswith("int") else "log_normal"
    return f"{name} is not a range here; write {_line(numbers[0], numbers[1], ours)}"


def _foreign_object(value: Any) -> str | None:
    """A distribution of Optuna, Ray Tune, SciPy, scikit-optimize or ConfigSpace, or a function that draws one."""
    kind = type(value)
    module = f"{kind.__module__}.{kind.__qualname__}"
    if inspect.ismethod(value) and value.__name__.startswith("suggest_"):
        return f"{value.__name__}: {_OPTUNA}; write {_line(1e-4, 0.1, 'log_normal')}, with your bounds"
    if module.startswith("metta.") or inspect.isclass(value):
        return None
    for name in ("choices", "categories"):
        if isinstance(choices := getattr(value, name, None), list | tuple):
            return f"{kind.__qualname__} is not a range here; write {_choices(choices)}"
    low, high = (
        next((getattr(value, key) for key in _KEYS[end] if hasattr(value, key)), None) for end in ("min", "max")
    )
    names = [kind.__name__, str(getattr(value, "prior", "")), type(getattr(value, "sampler", None)).__name__]
    if module.startswith("scipy.stats") and hasattr(value, "support"):
        low, high = value.support()
        names = [str(getattr(getattr(value, "dist", None), "name", ""))]
    if callable(low) or callable(high) or not _are_numbers([low, high]):
        return None
    low, high = plain_number(low), plain_number(high)
    if module.startswith("ray.tune") and kind.__name__ == "Integer":
        high -= 1  # Ray excludes the upper bound
    log = getattr(value, "log", False) is True or any("log" in name.lower() for name in names)
    whole = "int" in kind.__name__.lower() or "randint" in names
    ours = {(True, True): "int_log_normal", (True, False): "log_normal", (False, True): "int_uniform"}
    line = _line(low, high, ours.get((log, whole), "uniform"))
    return f"{kind.__qualname__} of {module.partition('.')[0]} is not a range here; write {line}"


def _ours(name: str) -> str | None:
    """Our name for a distribution of another tool."""
    plain_name = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((ours for ours, names in _DISTRIBUTIONS.items() if plain_name in names), None)


def _first(value: Mapping[str, Any], ours: str) -> str:
    return next(key for key in _KEYS[ours] if key in value)


def _are_numbers(values: Iterable[Any]) -> bool:
    try:
        return all(not isinstance(value, bool) and math.isfinite(plain_number(value)) for value in values)
    except (TypeError, OverflowError):
        return False


def _likely(low: float, high: float) -> str:
    """The distribution that two bounds suggest: on a log scale if they span two orders of magnitude."""
    whole = "int_" if isinstance(low, int) and isinstance(high, int) else ""
    return f"{whole}log_normal" if low > 0 and high / low >= 100 else f"{whole}uniform"


def _line(low: float, high: float, distribution: str) -> str:
    """A range in the syntax that Python and YAML share."""
    low, high = (plain_number(float(f"{end:.6g}") if isinstance(end, float) else end) for end in (low, high))
    return json.dumps({"min": low, "max": high, "distribution": distribution})


def _choices(values: Sequence[Any]) -> str:
    return json.dumps({"choices": plain(list(values))})
