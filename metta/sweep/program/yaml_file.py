"""Sweep files in YAML as W&B reads it, but ``1e-4`` is a number, and duplicate keys are errors."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from metta.common.errors import UserError, nearest


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that reads ``1e-4`` as a number (YAML 1.1 requires a dot) and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=f"the key {key.value!r} is given twice")
                seen.add(key.value)
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
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        there = sorted(each.name for each in path.parent.glob("*.y*ml"))
        known = f"; {nearest(path.name, there)}" if there else "; metta-sweep init program writes an example"
        raise UserError(f"there is no file {path}{known}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path}: expected keys such as command, metric, parameters and num_trials")
    return data
