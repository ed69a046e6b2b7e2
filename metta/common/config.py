"""Configuration: pydantic models that forbid unknown fields and are changed by dotted path."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    RootModel,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from metta.common.errors import UserError, nearest
from metta.common.plain import shown


class ConfigError(UserError, ValueError):
    """A path does not exist, or a field does not accept its value.

    Attributes:
        paths: the overrides whose values were refused; empty if the error does not concern single values.
    """

    def __init__(self, message: str, paths: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _ConfigType(ModelMetaclass):
    """Gives errors in our words, not pydantic's, when code creates a configuration with invalid values."""

    if not TYPE_CHECKING:  # a type checker would lose the arguments of every configuration

        def __call__(cls, *args: Any, **values: Any) -> Any:
            if args:
                some = ", ".join(f"{name}=..." for name in list(cls.model_fields)[:3])
                raise ConfigError(f"{cls.__name__} takes its settings by name: {cls.__name__}({some})")
            try:
                return super().__call__(**values)
            except ValidationError as error:
                raise ConfigError(f"{cls.__name__}: {explain(error, cls, {})}") from None


class Config(BaseModel, metaclass=_ConfigType):
    """Base of every configuration.

    A value that does not fit is a `ConfigError`, and with pydantic's own `model_validate` a `ValidationError`.

    Example:
        >>> class Optimizer(Config):
        ...     learning_rate: float = 1e-3
        >>> class Train(Config):
        ...     optimizer: Optimizer = Optimizer()
        >>> Train().override("optimizer.learning_rate", 0.01).optimizer.learning_rate
        0.01
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes True for 1, so that ``num_trials: yes`` in YAML would be one trial."""
        if isinstance(value, bool) and info.field_name in cls.model_fields:
            accepted = _alternatives(cls.model_fields[info.field_name].annotation)
            if accepted & {int, float} and not accepted & {bool, Any, object}:
                raise ValueError(f"a number is expected, not {str(value).lower()}")
        return value

    if not TYPE_CHECKING:  # a type checker would accept unknown fields

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                raise ConfigError(explain(error, type(self), {name: value})) from None

    def override(self, path: str, value: Any) -> Self:
        """Set the field at dotted `path`, validated as that field's own type, and return self.

        This is `update` with one path.
        """
        return self.update({path: value})

    def update(self, overrides: Mapping[str, Any]) -> Self:
        """Set the fields at dotted paths, all of them or none, and return self.

        A path leads through pydantic models, keys of dicts (which may contain dots) and indices of lists. Each model on
        the way is validated once, as a whole, with all its new values. Therefore values that constrain each other can
        change together, in any order.

        Raises:
            ConfigError: a path does not exist (with the nearest valid names), or a value does not fit. In that case
                nothing has changed.
        """
        if overrides:
            changed = _replace(self, overrides, "")
            object.__setattr__(self, "__dict__", changed.__dict__)
            object.__setattr__(self, "__pydantic_fields_set__", changed.__pydantic_fields_set__)
        return self


class Overrides(RootModel[dict[str, Any]]):
    """Values that will be set on another configuration later: flat, keyed by dotted path.

    Nested mappings are flattened. Unlike other mappings it accepts new keys from `Config.override`, because the
    configuration that checks them does not exist yet.
    """

    root: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        flat = flatten(value)
        unflatten(flat)
        return flat


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``.

    Raises:
        ConfigError: two keys give the same path.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        below = flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
        if twice := sorted(flat.keys() & below.keys()):
            raise ConfigError(f"{twice[0]} is given twice")
        flat.update(below)
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`: ``{"a.b": 1}`` becomes ``{"a": {"b": 1}}``.

    Raises:
        ConfigError: one path is a prefix of another, like ``a`` of ``a.b``.
    """
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        keys = path.split(".")
        for end in range(1, len(keys)):
            if (parent := ".".join(keys[:end])) in flat:
                raise _both(parent, path)
        node = nested
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value
    return nested


def children(node: Any) -> dict[str, Any] | None:
    """The values one level below `node`, by name; None for a value without any."""
    if isinstance(node, BaseModel):
        fields = {name: node.__dict__[name] for name in type(node).model_fields if name in node.__dict__}
        return {**fields, **(node.__pydantic_extra__ or {})}
    if isinstance(node, Mapping):
        return {str(key): value for key, value in node.items()}
    if isinstance(node, list | tuple):
        return {str(index): value for index, value in enumerate(node)}
    return None


def _replace(node: Any, changes: Mapping[str, Any], where: str) -> Any:
    """Return a copy of `node` with `changes` applied; `where` is the path of `node`, "" or ending in a dot."""
    if isinstance(node, Overrides):
        return _validate(node, {**node.root, **changes}, changes, where)
    old = children(node)
    if old is None:
        raise _no_fields(node, next(iter(changes)), where)
    new: dict[str, Any] = {}
    for name, below in _by_child(changes, old, node, where).items():
        if "" not in below:
            new[name] = _replace(old[name], below, f"{where}{name}.")
        elif len(below) == 1:
            new[name] = below[""]
        else:
            raise _both(f"{where}{name}", f"{where}{name}.{max(below)}")
    if isinstance(node, BaseModel):
        values = new["root"] if isinstance(node, RootModel) else {**old, **new}
        changed = _validate(node, values, changes, where)
        object.__setattr__(changed, "__pydantic_fields_set__", {*node.__pydantic_fields_set__, *new})
        if node.__pydantic_private__ is not None:
            object.__setattr__(changed, "__pydantic_private__", dict(node.__pydantic_private__))
        return changed
    if isinstance(node, Mapping):
        return {key: new.get(str(key), value) for key, value in node.items()}
    items = [new.get(str(index), value) for index, value in enumerate(node)]
    return tuple(items) if isinstance(node, tuple) else items


def _by_child(changes: Mapping[str, Any], names: Iterable[str], node: Any, where: str) -> dict[str, dict[str, Any]]:
    """Group `changes` by the child they lead to, keyed by the rest of their path ("" if the path ends there)."""
    groups: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        fitting = [name for name in names if path == name or (path.startswith(f"{name}.") and path != f"{name}.")]
        if not fitting:
            owner = where.removesuffix(".") or type(node).__name__
            key = path if path.endswith(".") else path.split(".")[0]
            raise ConfigError(f"{where}{path}: {owner} has no {key!r}; {nearest(key, names)}")
        name = max(fitting, key=len)
        groups.setdefault(name, {})[path[len(name) + 1 :]] = value
    return groups


def _validate(node: BaseModel, values: Any, changes: Mapping[str, Any], where: str) -> Any:
    try:
        return type(node).model_validate(values, by_alias=True, by_name=True)
    except ValidationError as error:
        fields = {detail["loc"][:1]: str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        paths = [f"{where}{path}" for path in changes if path.split(".")[0] in fields.values()]
        raise ConfigError(explain(error, type(node), changes, where), paths) from None


def explain(error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], where: str = "") -> str:
    """One or two lines that name the `given` values that `model` refused, and the expected ones.

    Args:
        where: the path of the model, "" or ending in a dot.
    """
    by_field: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_field.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    lines = [_explain_field(name, details, model, given, where) for name, details in by_field.items()]
    return "\n".join(lines[:2]) + (f" (and {len(lines) - 2} more)" if len(lines) > 2 else "")


def _explain_field(
    name: str, details: list[ErrorDetails], model: type[BaseModel], given: Mapping[str, Any], where: str
) -> str:
    if not name:
        values = ", ".join(f"{where}{path}={show_value(value)}" for path, value in given.items())
        return f"{values}: {reasons(details)}" if values else reasons(details)
    only, *others = details
    if only["type"] in ("missing", "extra_forbidden") and not others:
        return f"{where}{reasons(details, model=model)}"
    if len(only["loc"]) > 1 and not others:
        place = ".".join(str(part) for part in only["loc"])
        return f"{where}{place}: {_described(only['input'])} does not fit: {reasons(details, len(only['loc']))}"
    said = reasons(details, 1)
    if said.startswith((f"{name}.", f"{name}:")):  # the model itself says where below
        return f"{where}{said}"
    field = model.model_fields.get(name)
    expected = f" {show_type(field.annotation)}" if field else ""
    value = given[name] if name in given else only["input"]
    return f"{where}{name}: {_described(value)} does not fit{expected}: {said}"


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each dotted path that no other path shares; the whole path if there is none.

    Example:
        >>> short_names(["lr", "optimizer.lr", "optimizer.type"])
        {'lr': 'lr', 'optimizer.lr': 'optimizer.lr', 'optimizer.type': 'type'}
    """
    unique = dict.fromkeys(paths)
    shared = Counter(ending for path in unique for ending in _endings(path))
    return {path: next((ending for ending in _endings(path) if shared[ending] == 1), path) for path in unique}


def _endings(path: str) -> list[str]:
    """The endings of a dotted path, the shortest first."""
    keys = path.split(".")
    return [".".join(keys[-length:]) for length in range(1, len(keys) + 1)]


def reasons(details: Iterable[ErrorDetails], depth: int = 0, model: type[BaseModel] | None = None) -> str:
    """Why pydantic refused a value that is `depth` levels below the validated one.

    Args:
        model: the class of the validated value; its fields are listed if one does not exist.
    """
    lines = []
    for detail in details:
        place, reason = ".".join(str(part) for part in detail["loc"][depth:]), _reason(detail, model)
        lines.append(f"{place}{' ' if reason.startswith('is ') else ': '}{reason}" if place else reason)
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


_OUR_WORDS = (
    (r"^(Value error|Assertion failed), ", ""),
    (r"^\w+ should ", "must "),
    (r"greater than or equal to", "at least"),
    (r"less than or equal to", "at most"),
    (r", unable to parse.*", ""),
)
"""Patterns in pydantic's messages, with our replacements."""


def _reason(detail: ErrorDetails, model: type[BaseModel] | None) -> str:
    """One refusal of pydantic, in our words."""
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "extra_forbidden":
        *parents, name = detail["loc"]
        fields = _fields_at(model, parents)
        return "there is no such setting" + (f"; {nearest(str(name), fields)}" if fields else "")
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        return f"{detail['input']!r} is not valid; {nearest(detail['input'], _quoted(detail['ctx']['expected']))}"
    reason = detail["msg"]
    for pattern, words in _OUR_WORDS:
        reason = re.sub(pattern, words, reason)
    return reason


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _fields_at(model: Any, place: Sequence[int | str]) -> list[str]:
    """The field names of the model at a location within another model; empty if unknown."""
    for name in place:
        field = model.model_fields.get(name) if _is_model(model) else None
        members = [] if field is None else [field.annotation, *get_args(field.annotation)]
        model = next(filter(_is_model, members), None)
    return list(model.model_fields) if _is_model(model) else []


def _is_model(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseModel)


def _alternatives(annotation: Any) -> set[Any]:
    """The types of which a value may be, without their constraints."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _alternatives(inner[0])
    if kind in (Union, UnionType):
        return set().union(*map(_alternatives, inner))
    return {annotation}


def _described(value: Any) -> str:
    return f"{show_value(value)} ({type(value).__name__})"


def show_value(value: Any, limit: int = 80) -> str:
    """The value as Python shows it, cut to `limit` characters."""
    return shown(value, limit)


def show_type(annotation: Any) -> str:
    """A type as written in code, without its constraints: ``float | Literal['auto']``."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return show_type(inner[0])
    if kind in (Union, UnionType):
        return " | ".join(show_type(member) for member in inner)
    if isinstance(kind, type) and inner and not isinstance(inner[0], list):
        return f"{kind.__name__}[{', '.join(show_type(member) for member in inner)}]"
    if annotation in (NoneType, Ellipsis):
        return "None" if annotation is NoneType else "..."
    return re.sub(r"(?<!['\".\w])(?:[^\W\d]\w*\.)+", "", inspect.formatannotation(annotation))


def _no_fields(node: Any, path: str, where: str) -> ConfigError:
    place = where.removesuffix(".")
    if node is None:
        return ConfigError(f"{where}{path}: {place} is null and has no fields; set {place} as a whole")
    return ConfigError(f"{where}{path}: {place} is of type {type(node).__name__}, which has no fields")


def _both(parent: str, path: str) -> ConfigError:
    return ConfigError(f"{parent} and {path}, which is part of it, are both given")
