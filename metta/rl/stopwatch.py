"""Measures how a run's time is divided among its parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

Part = Literal["stepping", "acting", "learning", "checkpoints"]
"""Where the compiled kernel plays, stepping includes the choice of actions, and acting is only what follows it."""


class Stopwatch:
    """Adds up the seconds of the parts of a run. A nested part interrupts the clock of the outer one.

    Example:
        >>> stopwatch = Stopwatch()
        >>> with stopwatch.measure("acting"):
        ...     with stopwatch.measure("stepping"):
        ...         pass
        >>> sorted(stopwatch.seconds)
        ['acting', 'stepping']

    Attributes:
        seconds: of each part that was measured.
    """

    def __init__(self) -> None:
        self.seconds: dict[Part, float] = {}
        self._part: Part | None = None
        self._since = 0.0

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Add the time of the body to a part."""
        outer = self._switch(part)
        try:
            yield
        finally:
            self._switch(outer)

    def metrics(self) -> dict[str, float]:
        """``<part>_seconds`` of each part."""
        return {f"{part}_seconds": seconds for part, seconds in self.seconds.items()}

    def _switch(self, part: Part | None) -> Part | None:
        now, before = time.perf_counter(), self._part
        if before is not None:
            self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._part, self._since = part, now
        return before


def profile_line(metrics: Mapping[str, float], total: float) -> str:
    """One line with each part's seconds, from `Stopwatch.metrics`: ``stepping 2.1 s (41%), ..., other 0.1 s (2%)``."""
    parts = {
        name.removesuffix("_seconds"): metrics[name]
        for name in (f"{part}_seconds" for part in get_args(Part))
        if name in metrics
    }
    parts["other"] = max(0.0, total - sum(parts.values()))
    return ", ".join(f"{part} {seconds:.1f} s ({seconds / total:.0%})" for part, seconds in parts.items())
