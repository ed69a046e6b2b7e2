"""A metric in plain text, such as ``epoch 3: val_acc 0.91``, read without a pattern."""

from __future__ import annotations

import re

from metta.sweep.program.metrics.json_text import COLOURS
from metta.sweep.program.metrics.take import Take

_PAIR = re.compile(
    r"(?P<name>[A-Za-z_][\w./-]*)(?:\s*[:=]\s*|\s+)"
    r"(?:(?P<number>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?))|\d+/\d+)(?=[\s,;|:]|$)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\s*[,;|:]\s*|\s+-\s+|\s+|$")


class PlainText:
    """Reads the metric from lines that contain nothing but names with numbers.

    If any other line contains the metric's name, as in ``best val_acc: 0.95 at epoch 7``, the output says more than one
    thing of the metric, and nothing is read: the user must choose by a pattern.

    Example:
        >>> text = PlainText("val_acc", Take())
        >>> text.add(b"epoch 3/10: val_acc 0.91, acc=0.97")
        >>> text.values
        {'val_acc': 0.91, 'acc': 0.97}
    """

    def __init__(self, metric: str, take: Take) -> None:
        self._metric = metric
        self._bytes = metric.encode()
        self._named = re.compile(rf"(?<![\w./-]){re.escape(metric)}(?![\w/-]|\.\w)")
        self._take = take
        self._values: dict[str, float] = {}
        self._unclear = False

    @property
    def values(self) -> dict[str, float]:
        """The numbers on the last line with the metric, with the score; empty if there is none."""
        return {} if self._unclear or not self._values else {**self._values, self._metric: self._take.value}

    def add(self, line: bytes) -> None:
        if self._unclear or self._bytes not in line:
            return
        text = COLOURS.sub(b"", line).decode("utf-8", "replace").strip()
        if not self._named.search(text):
            return
        values = _pairs(text)
        if values is None or self._metric not in values:
            self._unclear = True
        else:
            self._values = values
            self._take.add(values[self._metric])


def _pairs(text: str) -> dict[str, float] | None:
    """The numbers on a line by name, without counts such as ``3/10``; None if it has anything else, or a name twice."""
    values: dict[str, float | None] = {}
    place = 0
    while place < len(text):
        pair = _PAIR.match(text, place)
        if pair is None or pair["name"] in values:
            return None
        values[pair["name"]] = None if pair["number"] is None else float(pair["number"])
        between = _BETWEEN.match(text, pair.end())
        place = len(text) if between is None else between.end()
    return {name: value for name, value in values.items() if value is not None}
