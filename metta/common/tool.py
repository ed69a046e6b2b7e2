"""A Tool is a configuration that can be run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pydantic import PrivateAttr

from metta.common.config import Config

if TYPE_CHECKING:
    from metta.common.entry_point import EntryPoint


class Tool(Config, ABC):
    """Something a person can run: fully described by its fields, so it can be printed, stored and repeated.

    A Tool that came from the command line holds in `_entry_point` what was asked for there, and None otherwise.
    It is no field: it is not dumped, compared or overridden.
    """

    _entry_point: EntryPoint | None = PrivateAttr(default=None)

    @abstractmethod
    def invoke(self) -> int:
        """Run for a person: print the result and return an exit status (0 is success)."""
