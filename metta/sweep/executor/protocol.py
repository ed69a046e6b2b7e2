"""The interface of executors, which run trials. An executor takes specs and returns results. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from metta.sweep.trial import Report, TrialResult, TrialSpec


@dataclass(frozen=True)
class Finished:
    """An attempt that has ended.

    Attributes:
        spec: the spec of the attempt.
        result: its result, or None if the attempt was lost.
        lost: why it was lost (for example the signal that killed its process).
    """

    spec: TrialSpec
    result: TrialResult | None
    lost: str | None = None


class Executor(Protocol):
    """Runs up to `slots` attempts at once. Creating one starts nothing; `close` ends everything that it started."""

    @property
    def slots(self) -> int:
        """How many attempts may run at once. It changes if machines come and go."""
        ...

    @property
    def resources(self) -> str:
        """A short description of the resources that trials run on."""
        ...

    def submit(self, spec: TrialSpec, report: Report) -> None:
        """Take an attempt to run. `report` is called from within `wait` only, in the caller's thread."""
        ...

    def wait(self, timeout: float | None = None) -> Finished | None:
        """Work until an attempt has ended and return it, or None after `timeout` seconds."""
        ...

    def cancel(self, number: int) -> None:
        """End the attempt at trial `number` now. It is not reported."""
        ...

    def close(self) -> None:
        """Stop running attempts and free the resources."""
        ...
