"""Process-wide settings that swept code may change; they are restored for the driver and the next trial.

The working directory, the locale, NumPy's handling of floating-point errors, filters of warnings, standard streams and
handlers of signals.
"""

from __future__ import annotations

import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NUMPY_DEFAULTS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


@dataclass(frozen=True)
class Surroundings:
    """The settings of this process and thread at one moment."""

    folder: str | None
    locale: str
    floating_point: Mapping[str, Any] | None
    filters: list[Any]
    streams: tuple[TextIO, TextIO]

    @classmethod
    def now(cls) -> Surroundings:
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # it was removed
            folder = None
        numpy = sys.modules.get("numpy")
        floating_point = None if numpy is None else numpy.geterr()
        filters = list(warnings.filters)
        return cls(folder, locale.setlocale(locale.LC_ALL), floating_point, filters, (sys.stdout, sys.stderr))

    def restore(self) -> None:
        """Restore the settings of that moment."""
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)
        if locale.setlocale(locale.LC_ALL) != self.locale:
            locale.setlocale(locale.LC_ALL, self.locale)
        _set_floating_point(self.floating_point)
        _set_filters(self.filters)
        sys.stdout, sys.stderr = self.streams


@contextmanager
def kept() -> Iterator[None]:
    """Restore the settings after the body, which may change them."""
    before, handlers = Surroundings.now(), _handlers()
    try:
        yield
    finally:
        before.restore()
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def default_surroundings() -> Iterator[None]:
    """Use NumPy's default error handling and treat no warning as an error, regardless of the user's script."""
    before = Surroundings.now()
    _set_floating_point(_NUMPY_DEFAULTS)
    _set_filters([("default", *rest) if action == "error" else (action, *rest) for action, *rest in before.filters])
    try:
        yield
    finally:
        _set_floating_point(before.floating_point)
        _set_filters(before.filters)


def _set_floating_point(handling: Mapping[str, Any] | None) -> None:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.seterr(**(handling or _NUMPY_DEFAULTS))


def _set_filters(filters: list[Any]) -> None:
    if list(warnings.filters) == filters:
        return
    warnings.resetwarnings()  # notifies Python of the change
    warnings.filters[:] = filters  # type: ignore[index]


def _handlers() -> dict[signal.Signals, Any]:
    """The handlers that may be set again: in the main thread, those that Python knows."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler is not None}
