"""A Tool is a configuration that can be run."""

from __future__ import annotations

from abc import ABC, abstractmethod

from metta.common.config import Config


class Tool(Config, ABC):
    """Something a person can run: fully described by its fields, so it can be printed, stored and repeated."""

    @abstractmethod
    def invoke(self) -> int:
        """Run for a person: print the result and return an exit status (0 is success)."""
