"""Text that is safe to print: it cannot control the terminal, and contains no secrets of URLs."""

from __future__ import annotations

import re
import sys
from typing import TextIO

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


def say(text: str, file: TextIO | None = None) -> None:
    """Print text for the user: safe, and without the secrets of the URLs in it."""
    print(safe(public_text(text)), file=sys.stdout if file is None else file)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
