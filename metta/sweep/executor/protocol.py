"""Where trials run. An executor takes the specs of trials and returns how each ended. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from metta.sweep.trial import Report, TrialResult, TrialSpec


@dataclass(frozen=True)
class Finished:
    """An attempt that is over.

    Attributes:
        spec: what was run.
        result: how it ended, or None if the attempt was lost before it could end.
        lost: why it was lost (for example the signal that killed its process).
    """

    spec: TrialSpec
    result: TrialResult | None
    lost: str | None = None


class Executor(Protocol):
    """Runs up to `slots` attempts at once. Making one starts nothing yet; `close` ends all that it started."""

    @property
    def slots(self) -> int:
        """How many attempts may run at once. Where machines come and go it changes."""
        ...

    @property
    def resources(self) -> str:
        """What trials run on, in a few words for a person."""
        ...

    def submit(self, spec: TrialSpec, report: Report) -> None:
        """Take an attempt to run. `report` is called from within `wait` only, in the caller's thread."""
        ...

    def wait(self, timeout: float | None = None) -> Finished | None:
        """Work until an attempt is over and return it, or None after `timeout` seconds."""
        ...

    def cancel(self, number: int) -> None:
        """End the attempt at trial `number` now. It is not reported."""
        ...

    def close(self) -> None:
        """Stop what still runs and free the resources."""
        ...
