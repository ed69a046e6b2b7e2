"""The arguments of a target and the paths of a Tool, as text for the terminal."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from metta.common.config import Overrides, children, show_type
from metta.common.entry_point import Target, parameters
from metta.common.errors import UserError, nearest
from metta.common.tool import Tool

MOST_PATHS = 40
"""A part of a Tool with more paths than this is shown in one line."""

Row = tuple[str, str, str]
"""A name, its type, and its value."""


def describe_target(path: str, target: Target) -> str:
    """The docstring of `target` and its arguments."""
    rows = [
        (name, show_type(parameter.annotation), "(required)" if parameter.required else _show(parameter.default))
        for name, parameter in parameters(target).items()
    ]
    lines = [path, *(f"    {line}".rstrip() for line in (inspect.getdoc(target) or "").splitlines())]
    return "\n".join([*lines, "", "Arguments (--args NAME=VALUE ...)", *_table(rows)])


def describe_paths(tool: Tool, part: str = "") -> str:
    """List the paths that can be overridden in `tool`, or below the dotted path `part` ("" is the whole Tool).

    Raises:
        UserError: `part` does not exist.
    """
    node: Any = tool
    for name in part.split(".") if part else []:
        below = children(node) or {}
        if name not in below:
            raise UserError(f"--help {part}: no {name!r}; {nearest(name, below)}")
        node = below[name]
    return "\n".join(["Paths (--overrides PATH=VALUE ...)", *_table(_rows(node, f"{part}." if part else ""))])


def dump_yaml(tool: Tool) -> str:
    """All of `tool` as YAML, after its class."""
    values = tool.model_dump(mode="json", fallback=str)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
    return f"# {type(tool).__module__}.{type(tool).__qualname__}\n{text}"


def _rows(node: Any, prefix: str) -> Iterator[Row]:
    for name, value in (children(node) or {}).items():
        path = f"{prefix}{name}"
        if _is_leaf(value):
            if not callable(value):
                yield path, _type_of(node, name, value), _show(value)
        elif (count := _count(value)) > MOST_PATHS:
            yield f"{path}.*", type(value).__name__, f"{count} paths: --help {path}"
        else:
            yield from _rows(value, f"{path}.")


def _is_leaf(value: Any) -> bool:
    """Whether the value is shown on one line: a scalar, an empty container, a list of scalars, overrides."""
    below = children(value)
    if not below or isinstance(value, Overrides):
        return True
    return isinstance(value, list | tuple) and all(children(item) is None for item in below.values())


def _count(value: Any) -> int:
    return 1 if _is_leaf(value) else sum(_count(child) for child in (children(value) or {}).values())


def _type_of(node: Any, name: str, value: Any) -> str:
    field = type(node).model_fields.get(name) if isinstance(node, BaseModel) else None
    return _cut(show_type(field.annotation) if field else type(value).__name__, 40)


def _show(value: Any) -> str:
    """The value in command-line syntax, shortened to fit a line."""
    plain = to_jsonable_python(value, fallback=str, serialize_unknown=True)
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return _cut(text.removesuffix("...\n").strip(), 60)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _table(rows: Iterable[Row]) -> list[str]:
    lines = list(rows)
    widths = [max((len(row[column]) for row in lines), default=0) for column in (0, 1)]
    return [f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {value}".rstrip() for name, kind, value in lines]
