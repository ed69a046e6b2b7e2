"""Configuration: pydantic models that forbid unknown fields and are changed by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError, model_validator

from metta.common.errors import UserError, nearest


class ConfigError(UserError, ValueError):
    """A path that does not exist, or a value its field does not accept."""


class Config(BaseModel):
    """Base of every configuration.

    Example:
        >>> class Optimizer(Config):
        ...     learning_rate: float = 1e-3
        >>> class Train(Config):
        ...     optimizer: Optimizer = Optimizer()
        >>> Train().override("optimizer.learning_rate", 0.01).optimizer.learning_rate
        0.01
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    def override(self, path: str, value: Any) -> Self:
        """Set the field at dotted `path`, validated as that field's own type, and return self.

        The path leads through any pydantic model, through keys of dicts and through indices of lists.
        Every level is validated before anything changes, so a refused value leaves the tree as it was.

        Raises:
            ConfigError: the path does not exist (with the nearest valid names), or the value does not fit.
        """
        changed = _replace(self, path.split("."), value, path)
        self.__dict__.update(changed.__dict__)
        self.__pydantic_fields_set__.update(changed.__pydantic_fields_set__)
        return self

    def update(self, overrides: Mapping[str, Any]) -> Self:
        """Apply several dotted overrides, all or none of them, and return self."""
        changed = self.model_copy()
        for path, value in overrides.items():
            changed.override(path, value)
        self.__dict__.update(changed.__dict__)
        self.__pydantic_fields_set__.update(changed.__pydantic_fields_set__)
        return self


class Overrides(RootModel[dict[str, Any]]):
    """Values waiting to be put on another configuration: flat, keyed by dotted path.

    Nested mappings are flattened. Unlike other mappings it takes new keys from `Config.override`, for the
    configuration that they will be checked against does not exist yet.
    """

    root: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return flatten(value) if isinstance(value, Mapping) else value


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`: ``{"a.b": 1}`` becomes ``{"a": {"b": 1}}``."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return nested


def _replace(node: Any, keys: list[str], value: Any, path: str) -> Any:
    """Return a copy of `node` with the value at `keys` replaced and every pydantic level validated."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    where = path.removesuffix(".".join(keys)).rstrip(".")
    if isinstance(node, Overrides):
        return Overrides({**node.root, ".".join(keys): value})
    if isinstance(node, BaseModel):
        fields = type(node).model_fields
        if key not in fields:
            raise _unknown(key, where, list(fields), path)
        copy = node.model_copy()
        replacement = _replace(getattr(node, key), rest, value, path)
        try:
            copy.__pydantic_validator__.validate_assignment(copy, key, replacement)
        except ValidationError as error:
            raise ConfigError(_explain(error, path, value)) from None
        return copy
    if isinstance(node, dict):
        matching = next((name for name in node if str(name) == key), None)
        if matching is None:
            raise _unknown(key, where, [str(name) for name in node], path)
        return {**node, matching: _replace(node[matching], rest, value, path)}
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise _unknown(key, where, [str(index) for index in range(len(node))], path)
        index = int(key)
        return [*node[:index], _replace(node[index], rest, value, path), *node[index + 1 :]]
    raise ConfigError(f"{path}: {where} is a {type(node).__name__}, which has nothing named {key!r}")


def _unknown(key: str, where: str, valid: list[str], path: str) -> ConfigError:
    return ConfigError(f"{path}: {where or 'the top level'} has no {key!r}; {nearest(key, valid)}")


def _explain(error: ValidationError, path: str, value: Any) -> str:
    reasons = "; ".join(
        ".".join(str(part) for part in detail["loc"][1:]) + (": " if len(detail["loc"]) > 1 else "") + detail["msg"]
        for detail in error.errors()[:3]
    )
    return f"{path}: {value!r} ({type(value).__name__}) is not accepted: {reasons}"
