"""The tables of docs/settings.md: every setting with its type, default and meaning, from the code.

Run it after a setting changed: ``python docs/settings_tables.py``. The tests compare the page with the code.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from metta.common.config import show_type

PAGE = Path(__file__).parent / "settings.md"
TABLE = re.compile(r"(?m)^### `(?P<path>[\w.]+)`\n.*?^<!-- end of the table -->\n", re.DOTALL)
CHANGING = {
    "store": "the store in the data folder",
    "entity": "`$WANDB_ENTITY`",
    "project": "`$WANDB_PROJECT` or `'metta-sweep'`",
}
"""Defaults that depend on where the process runs."""

Row = tuple[str, str, str, str]
"""A setting, its type, its default, and what it means."""


def updated(text: str) -> str:
    """The page with each table as the code now has it."""
    return TABLE.sub(lambda match: table(match["path"]), text)


def table(path: str) -> str:
    """The heading and the table of a class or function, by the path that one imports."""
    module, _, name = path.rpartition(".")
    thing: Any = getattr(importlib.import_module(module), name)
    rows = _fields(cast(type[BaseModel], thing)) if inspect.isclass(thing) else _arguments(thing)
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {default} | {meaning} |" for name, kind, default, meaning in rows]
    return "\n".join([f"### `{path}`", "", *lines, "", "<!-- end of the table -->", ""])


def _fields(model: type[BaseModel]) -> Iterator[Row]:
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        meanings |= _meanings(base.__doc__ or "", "Attributes")
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        text = "required" if field.is_required() else CHANGING.get(name) or _default(default)
        yield name, _type(field.annotation, field.metadata), text, _meaning(field, meanings.get(name))


def _meaning(field: FieldInfo, said: str | None) -> str:
    """What a setting means: as its class says, as it says itself, or as the class of its value says."""
    if said or field.description:
        return said or str(field.description)
    return (inspect.getdoc(field.annotation) or "").split("\n")[0] if inspect.isclass(field.annotation) else ""


def _arguments(function: Callable[..., Any]) -> Iterator[Row]:
    meanings = _meanings(function.__doc__ or "", "Args")
    for name, argument in inspect.signature(function).parameters.items():
        several = argument.kind is argument.VAR_KEYWORD
        default = "" if several else "required" if argument.default is argument.empty else _default(argument.default)
        yield (
            f"**{name}" if several else name,
            _alternatives(str(argument.annotation)),
            default,
            meanings[name],
        )


def _meanings(docstring: str, section: str) -> dict[str, str]:
    """What a section of a docstring says of each name."""
    text = inspect.cleandoc(docstring)
    match = re.search(rf"(?ms)^{section}:\n(.*?)(?=^\S|\Z)", text)
    entries = re.split(r"(?m)^    (?=\w+: )", match[1])[1:] if match else []
    pairs = (entry.split(":", 1) for entry in entries)
    return {name: " ".join(meaning.split()).replace("``", "`").replace("|", "\\|") for name, meaning in pairs}


def _type(annotation: Any, metadata: Any = ()) -> str:
    """A type in words: ``int, at least 1, or None``."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _type(inner, more)
    text = _alternatives(show_type(annotation))
    limits = [
        f"{word} {getattr(each, key):g}"
        for each in metadata
        for key, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if getattr(each, key, None) is not None
    ]
    return ", ".join([text, *limits])


def _alternatives(text: str) -> str:
    """A type as it is written in code, as a list of what is allowed: ```int` or `'auto'```."""
    text = re.sub(r"Literal\[([^]]*)\]", lambda match: match[1].replace(", ", " | "), text)
    return " or ".join(f"`{part}`" for part in text.split(" | "))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return f"`{type(value).__name__}()`"
    return f"`{value!r}`"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
