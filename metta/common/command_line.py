"""Reads values from the command line as YAML 1.2."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

import yaml

from metta.common.data_dir import STORE_VARIABLE
from metta.common.errors import UserError
from metta.common.urls import public_text


class _CoreSchemaLoader(yaml.SafeLoader):
    """YAML with the types of the 1.2 core schema (section 10.3.2), where ``no`` is text and ``1e5`` a number."""

    yaml_implicit_resolvers = {}
    yaml_constructors = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not supported, because a value could contain itself")
        return super().compose_node(parent, index)


_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
for _name, _pattern in _SCALARS.items():
    _CoreSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), None)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_CoreSchemaLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_value(text: str) -> Any:
    """Read a scalar, list or map; text that is not YAML is returned unchanged.

    Example:
        >>> read_value("1e-4"), read_value("[1, true, null]"), read_value("{a: no}")
        (0.0001, [1, True, None], {'a': 'no'})
    """
    try:
        value = yaml.load(text, _CoreSchemaLoader)
    except (yaml.YAMLError, ValueError, KeyError):
        return text
    plain_text = isinstance(value, str) and text[:1] not in ("'", '"')
    only_comment = value is None and not re.fullmatch(_SCALARS["null"], text)
    return text if plain_text or only_comment else value


def readings(text: str) -> list[Any]:
    """All readings of `text`, best first: as `read_value`, with all scalars as text, and unchanged.

    The later readings are for text fields, in which ``2024`` and ``[1, 2]`` are text.
    """
    value = read_value(text)
    if isinstance(value, list | dict):
        return [value, yaml.load(text, yaml.BaseLoader), text]
    return [text] if value == text else [value, text]


def split_pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Split ``NAME=VALUE`` texts given to `option`.

    Raises:
        UserError: a text has no "=", or a name is given twice.
    """
    split: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UserError(f"{option}: expected NAME=VALUE, got {pair!r}")
        if name in split:
            raise UserError(f"{option}: {name} is given twice ({split[name]!r} and {value!r})")
        split[name] = value
    return split


def shell_line(words: Iterable[str]) -> str:
    """Words as a shell command line, without the secrets of URLs. A word may end with ``$METTA_STORE``.

    Example:
        >>> shell_line(["show", "my sweep", "--store", "$METTA_STORE"])
        'show \'my sweep\' --store "$METTA_STORE"'
    """
    return " ".join(_shell_word(public_text(word)) for word in words)


def _shell_word(word: str) -> str:
    start = word.removesuffix(f"${STORE_VARIABLE}")
    if start == word or start not in ("", "store="):
        return shlex.quote(word)
    return f'{start}"${STORE_VARIABLE}"'
