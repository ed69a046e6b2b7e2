"""Errors whose message is sufficient for the user, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from metta.common.text import shortened

_LONGEST = 200  # characters of a name
_LONGEST_MESSAGE = 10_000


class UserError(Exception):
    """A request that cannot be carried out as given: shown in one or two lines, without a traceback; exit status 2.

    Of a message that contains a very long text, the beginning and the end are kept.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message, _LONGEST_MESSAGE))


def nearest(name: str, valid: Iterable[str], limit: int = 12) -> str:
    """A hint for an invalid name, with the nearest valid names first: ``did you mean 'a'? valid: a, b, c``."""
    names = [each if len(each) <= _LONGEST else f"{each[:_LONGEST]}..." for each in valid]
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    shown = ", ".join(names[:limit]) + (f", ... ({len(names)} in total)" if len(names) > limit else "")
    return f"{guess}valid: {shown}" if names else f"{guess}there are none"
