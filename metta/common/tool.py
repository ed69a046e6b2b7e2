"""A Tool is a configuration that can be run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import PrivateAttr, model_validator

from metta.common.config import Config, unflatten

if TYPE_CHECKING:
    from metta.common.entry_point import EntryPoint


class Tool(Config, ABC):
    """A runnable configuration: its fields describe it completely, so it can be printed, stored and repeated.

    `_entry_point` is the command line that built the Tool, or None if code built it. It is not a field, so it is not
    dumped, compared or overridden.
    """

    moved: ClassVar[Mapping[str, str]] = {}
    """Old names of fields, with their current dotted paths. The old names are still read."""

    _entry_point: EntryPoint | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _read_moved(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not cls.moved.keys() & data.keys():
            return data
        old = {cls.moved[name]: value for name, value in data.items() if name in cls.moved}
        kept = {name: value for name, value in data.items() if name not in cls.moved}
        for name, values in unflatten(old).items():
            given = kept.get(name, {})
            if not isinstance(given, Mapping) or given.keys() & values.keys():
                raise ValueError(f"{name} is given under its old name as well")
            kept[name] = {**given, **values}
        return kept

    def update(self, overrides: Mapping[str, Any]) -> Self:
        return super().update({self.moved.get(path, path): value for path, value in overrides.items()})

    @abstractmethod
    def invoke(self) -> int:
        """Run from the command line: print the result and return an exit status (0 is success)."""
