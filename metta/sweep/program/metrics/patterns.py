"""Metrics found by patterns in a program's output: ``{"val_acc": "val_acc ([0-9.]+)"}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from metta.common.errors import UserError
from metta.sweep.program.metrics.row import Row

NUMBER = r"([-+.\w]+)"
_BETWEEN = r"[^-+.\w]+"
"""What stands between a name and its number: anything but the sign and the digits."""
_SHOWN = re.compile(r"([A-Za-z][\w./-]*)['\"]?\s*[:=\s]\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")


class Patterns:
    """Reads lines by patterns.

    Args:
        patterns: a regular expression for each metric, whose first group is the number. The names ``step`` and
            ``total`` set the step and the total of the rows that follow.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._patterns = {name: re.compile(text) for name, text in patterns.items()}
        self._step: float | None = None
        self._total: float | None = None

    def row(self, line: bytes) -> Row | None:
        """The numbers on a line, the last if a pattern matches more than once; None without a match."""
        text = line.decode("utf-8", "replace")
        found = {name: read for name, pattern in self._patterns.items() if (read := _last(pattern, text)) is not None}
        self._step = found.get("step", self._step)
        self._total = found.get("total", self._total)
        return Row(found, self._step, self._total) if found.keys() - {"step", "total"} else None


def check_patterns(patterns: Mapping[str, str]) -> None:
    """Raise UserError unless every pattern is a regular expression with a group."""
    for name, text in patterns.items():
        try:
            groups = re.compile(text).groups
        except re.error as error:
            raise UserError(f"metrics: the pattern of {name}, {text!r}, is not a regular expression: {error}") from None
        if groups == 0:
            raise UserError(f"metrics: the pattern of {name}, {text!r}, needs a group for the number: {name} {NUMBER}")


def suggest_pattern(metric: str, text: str) -> str | None:
    """A pattern that finds the metric in a program's output, or None if its name is not followed by a number.

    Example:
        >>> suggest_pattern("val_acc", "epoch 3: Val acc = 0.91")
        '\\\\bVal acc[^-+.\\\\w]+([-+.\\\\w]+)'
    """
    words = r"[\s_./-]?".join(re.escape(word) for word in re.split(r"[\s_./-]+", metric))
    found = re.search(rf"(?<!\w)({words})['\"]?[ \t]*[|:=\s][ \t]*[-+]?\.?\d", text, re.IGNORECASE)
    if found is None:
        return None
    begins = r"\b" if re.match(r"\w", metric) else ""
    return rf"{begins}{re.escape(found[1])}{_BETWEEN}{NUMBER}".replace(r"\ ", " ")


def names_before_numbers(text: str) -> list[str]:
    """The names that precede a number in a program's output, in their order."""
    return list(dict.fromkeys(_SHOWN.findall(text)))


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    value = None
    for match in pattern.finditer(text):
        try:
            value = float((match[1] or "").rstrip(".,"))
        except ValueError:
            continue
    return value
