"""Sweep files in YAML as W&B reads it, but ``1e-4`` is a number, a key is text, and duplicate keys are errors."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from metta.common.errors import UserError, nearest
from metta.common.text import decoded


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that reads ``1e-4`` as a number (YAML 1.1 requires a dot) and refuses duplicate keys.

    A key is the text that the file has, although YAML 1.1 reads ``on`` as true and ``1`` as a number.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values in a YAML file.

    Raises:
        UserError: it cannot be read, or is not a mapping.
    """
    try:
        data = yaml.load(decoded(path.read_bytes()), _Loader)
    except FileNotFoundError:
        there = sorted(each.name for each in path.parent.glob("*.y*ml"))
        known = f"; {nearest(path.name, there)}" if there else "; metta-sweep init program writes an example"
        raise UserError(f"there is no file {path}{known}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{path}{line}: not YAML: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path}: expected keys such as command, metric, parameters and num_trials")
    return data


def with_line(message: str, path: Path) -> str:
    """An error message, ``FILE: a.b: ...`` or ``a.b: ...``, with the file and the line of the key that it names.

    The message is returned unchanged if it does not begin with the name of a key of the file.
    """
    said = message.removeprefix(f"{path}: ")
    named = re.match(rf"{_BEFORE_KEY}([^\s':,;]+(?:: [^\s:]+(?=:))*)", said)
    line = None if named is None else _line_of(re.split(r"\.|: ", named[1]), yaml.compose(decoded(path.read_bytes())))
    return message if line is None else f"{path}, line {line}: {said}"


_BEFORE_KEY = r"(?:unknown setting '|there is no |how [^?]*\? give \w+, not )?"


def _line_of(keys: Sequence[str], node: yaml.Node | None) -> int | None:
    """The line of the innermost of these nested keys that is there; None if the outermost is nowhere in the node."""
    if not keys or not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        for count in range(len(keys), 0, -1):  # a key may contain dots
            if key.value == ".".join(keys[:count]):
                return _line_of(keys[count:], value) or int(key.start_mark.line) + 1
    return next(filter(None, (_line_of(keys, value) for _, value in node.value)), None)
