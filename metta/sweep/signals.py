"""Signals that ask a driver to stop. Processes that it forks do not inherit its handlers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]

_before: dict[signal.Signals, Any] = {}
"""The handlers, from before the driver started, of the signals that it handles now."""


@contextmanager
def stops_are_interrupts() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP unless it is ignored, as Ctrl-C, because clusters and terminals end jobs by them."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handler(signal.SIGTERM, interrupt):
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup ignores it
            yield
        else:
            with _handler(signal.SIGHUP, interrupt):
                yield


@contextmanager
def first_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Do `action` at the first Ctrl-C; the second is a KeyboardInterrupt. Where Ctrl-C is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's `command &`
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        action()

    with _handler(signal.SIGINT, interrupt):
        yield


@contextmanager
def _handler(number: signal.Signals, handler: Handler) -> Iterator[None]:
    """Handle a signal in the main thread. Python does not allow it in other threads, so there it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    is_outermost = number not in _before  # a trial in this process may run a sweep
    if is_outermost:
        _before[number] = previous
    try:
        yield
    finally:
        if is_outermost:
            del _before[number]
        signal.signal(number, previous)


def _as_before() -> None:
    """In a forked child: restore the handlers from before the driver started."""
    for number, previous in _before.items():
        with suppress(ValueError, TypeError):  # a handler that was not set by Python cannot be set again
            signal.signal(number, previous)


os.register_at_fork(after_in_child=_as_before)
