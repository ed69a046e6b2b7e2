"""Counts in sentences."""

from __future__ import annotations

from collections.abc import Sized


def count_text(things: int | Sized, one: str, many: str | None = None) -> str:
    """A count with its noun.

    Args:
        things: the count, or what is counted.
        one, many: the words for one and for any other count; by default the second has an s more.

    Example:
        >>> count_text(1, "trial"), count_text([1, 2], "trial"), count_text(1000, "trial is", "trials are")
        ('1 trial', '2 trials', '1,000 trials are')
    """
    count = things if isinstance(things, int) else len(things)
    return f"{count:,} {plural(one, count, many)}"


def plural(one: str, count: int, many: str | None = None) -> str:
    """The words for a count, without it."""
    return one if count == 1 else many or f"{one}s"
