"""Text that is safe to print: it cannot control the terminal, and contains no secrets of URLs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any, ClassVar, cast

from metta.common.urls import public_text

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, of which ESC begins an escape sequence
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they change the direction of text (Unicode, UAX 9)
    "\u200b\u2028\u2029\u2060-\u2064\ufeff\U000e0000-\U000e007f"  # invisible, or end a line
    "\ud800-\udfff]"  # surrogates, which cannot be printed
)
"""Characters that control a terminal or mislead its reader."""


def safe(text: str) -> str:
    """Text without characters that control a terminal: each is written as in a Python string, such as ``\\x1b``.

    Line ends and tabs are kept.

    Example:
        >>> safe("\\x1b[2Jgone")
        '\\\\x1b[2Jgone'
    """
    return UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


class Output:
    """A stream of text that does not fail where its disk is full or its terminal is gone, so that no sweep ends by it.

    What its encoding lacks is escaped. A pipe without a reader still fails, because then the program should end.

    Attributes:
        lost: the latest error of any of these streams.
    """

    lost: ClassVar[OSError | None] = None

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _noting_losses():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with _noting_losses():
            self._stream.flush()


@contextmanager
def _noting_losses() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        Output.lost = error


def say(text: str, file: IO[str] | None = None) -> None:
    """Print text for the user: safe, and without the secrets of the URLs in it."""
    stream = file or sys.stdout
    if stream is not None:
        print(safe(public_text(text)), file=Output(stream))


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let a command print to an `Output`, and name the error at its end if something was lost."""
    Output.lost = None
    if sys.stdout is None:  # it was closed before Python started
        yield
        return
    with redirect_stdout(cast(IO[str], Output(sys.stdout))):
        yield
        sys.stdout.flush()
    if Output.lost is not None:
        say(f"error: not all output could be written: {Output.lost.strerror}", sys.stderr)
        discard_output()


def discard_output() -> None:
    """Throw away what is not written yet, so that Python's own flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
