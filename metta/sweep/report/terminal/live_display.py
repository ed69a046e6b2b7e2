"""Lines at the bottom of a terminal that are overwritten."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

REDRAW_SECONDS = 0.5


class LiveDisplay:
    """The bottom lines of a terminal. Without a terminal, such as in a log file, plain lines are printed at intervals.

    Args:
        console: where to write.
        plain_seconds: without a terminal, the interval between prints, and the time before the first.
    """

    def __init__(self, console: Console, plain_seconds: float) -> None:
        self.console = console
        self._plain_seconds = plain_seconds
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn_at = -math.inf if console.is_terminal else time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(
        self, live: Callable[[], RenderableType], plain: Callable[[], Sequence[str]], at_once: bool = False
    ) -> None:
        """Update the display, unless it was updated just now.

        Args:
            live: makes the lines for a terminal.
            plain: makes the lines where there is no terminal.
            at_once: redraw a terminal in any case, because it shows something wrong.
        """
        now = time.monotonic()
        if not self.console.is_terminal:
            if now - self._drawn_at >= self._plain_seconds:
                self._drawn_at = now
                for line in plain():
                    self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif at_once or now - self._drawn_at >= REDRAW_SECONDS:
            self._drawn_at = now
            self._live.update(live(), refresh=True)
