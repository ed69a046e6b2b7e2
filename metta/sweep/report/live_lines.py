"""Lines at the foot of a terminal that are written over as things go on."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

REDRAW_SECONDS = 0.2


class LiveLines:
    """One line for each thing that goes on; without a terminal, such as in a log file, a plain line now and then.

    Args:
        console: where to write.
        plain_seconds: without a terminal, the least time between two lines.
    """

    def __init__(self, console: Console, plain_seconds: float) -> None:
        self._console = console
        self._plain_seconds = plain_seconds
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._lines: dict[object, str] = {}
        self._drawn_at = -math.inf if console.is_terminal else time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, key: object, line: str) -> None:
        """Say how `key` goes on, in place of what was said of it before."""
        self._lines[key] = line
        now = time.monotonic()
        if self._console.is_terminal:
            if now - self._drawn_at >= REDRAW_SECONDS:
                self._draw(now)
        elif now - self._drawn_at >= self._plain_seconds:
            self._drawn_at = now
            self._console.print(line, highlight=False, markup=False)

    def remove(self, key: object) -> None:
        """`key` is over."""
        if self._lines.pop(key, None) is not None and self._console.is_terminal:
            self._draw(time.monotonic())

    def _draw(self, now: float) -> None:
        self._drawn_at = now
        text = Text("\n".join(self._lines.values()), style="cyan", overflow="ellipsis", no_wrap=True)
        self._live.update(text, refresh=True)
