"""Process-wide settings that swept code may change; they are restored for the driver and the next trial.

The working directory, the locale, the umask, variables of the environment, NumPy's handling of floating-point errors,
filters of warnings, standard streams, handlers of signals, alarms, tracing, and limits of recursion and resources.
"""

from __future__ import annotations

import locale
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, TextIO

_UNCHANGEABLE = {signal.SIGKILL, signal.SIGSTOP}
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_CPU)
_NUMPY_DEFAULTS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


@dataclass(frozen=True)
class Surroundings:
    """The settings of this process and thread at one moment."""

    folder: str | None
    locale: str
    umask: int
    variables: Mapping[str, str]
    floating_point: Mapping[str, Any] | None
    filters: list[Any]
    streams: tuple[TextIO | None, TextIO | None]
    recursion_limit: int

    @classmethod
    def now(cls) -> Surroundings:
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # it was removed
            folder = None
        numpy = sys.modules.get("numpy")
        os.umask(umask := os.umask(0o077))  # it can only be read by setting it
        return cls(
            folder,
            locale.setlocale(locale.LC_ALL),
            umask,
            dict(os.environ),
            None if numpy is None else numpy.geterr(),
            list(warnings.filters),
            (sys.stdout, sys.stderr),
            sys.getrecursionlimit(),
        )

    def restore(self) -> None:
        """Restore the settings of that moment. New environment variables stay."""
        if self.folder is not None:
            with suppress(OSError):
                os.chdir(self.folder)
        if locale.setlocale(locale.LC_ALL) != self.locale:
            locale.setlocale(locale.LC_ALL, self.locale)
        os.umask(self.umask)
        os.environ.update(self.variables)
        _set_floating_point(self.floating_point)
        _set_filters(self.filters)
        sys.stdout, sys.stderr = (_opened(stream, place) for place, stream in enumerate(self.streams, start=1))
        if sys.getrecursionlimit() != self.recursion_limit:
            sys.setrecursionlimit(self.recursion_limit)


class _Copy(NamedTuple):
    """A copy of a descriptor, and its file."""

    number: int
    status: os.stat_result


@contextmanager
def kept() -> Iterator[None]:
    """Restore the settings after the body, which may change them. An alarm that the body sets is an error in it."""
    before, handlers, tracing, profiling = Surroundings.now(), _handlers(), sys.gettrace(), sys.getprofile()
    mask, descriptors, limits = signal.pthread_sigmask(signal.SIG_BLOCK, ()), _copies((1, 2)), _limits()
    alarms = signal.SIGALRM in handlers and signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    if alarms and handlers[signal.SIGALRM] is signal.SIG_DFL:  # which would end the process
        signal.signal(signal.SIGALRM, _raise_alarm)
    try:
        yield
    finally:
        if alarms:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        sys.settrace(tracing)
        sys.setprofile(profiling)
        for limit, values in limits.items():
            with suppress(ValueError, OSError):  # it was lowered for good
                resource.setrlimit(limit, values)
        _put_back(descriptors)
        before.restore()
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _raise_alarm(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError("the alarm went off that the trial had set (signal.alarm), and it does not handle SIGALRM")


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


def _handlers() -> dict[int, Any]:
    """The handlers that may be set again: in the main thread, those that Python knows."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {int(number): signal.getsignal(number) for number in signal.valid_signals() - _UNCHANGEABLE}
    return {number: handler for number, handler in handlers.items() if handler is not None}


def _limits() -> dict[int, tuple[int, int]]:
    return {limit: resource.getrlimit(limit) for limit in _LIMITS}


def _copies(descriptors: Sequence[int]) -> dict[int, _Copy]:
    """Copies of those descriptors that are open."""
    copies = {}
    for descriptor in descriptors:
        with suppress(OSError):
            copy = os.dup(descriptor)
            copies[descriptor] = _Copy(copy, os.fstat(copy))
    return copies


def _put_back(copies: Mapping[int, _Copy]) -> None:
    for descriptor, copy in copies.items():
        with suppress(OSError):  # the copy was closed too
            if os.path.samestat(os.fstat(copy.number), copy.status):  # else its number is that of another file now
                os.dup2(copy.number, descriptor)
                os.close(copy.number)


def _opened(stream: TextIO | None, descriptor: int) -> TextIO | None:
    """The stream, or another one in its place if it was closed."""
    if stream is None or not stream.closed:
        return stream
    return open(descriptor, "w", encoding=stream.encoding, errors="backslashreplace", buffering=1, closefd=False)
