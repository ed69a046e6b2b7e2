"""JSON as training programs print it: an object on a line, maybe after a progress bar or as the repr of a dict."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any

from metta.common.plain import shown
from metta.sweep.program.metrics.row import Row, number, numbers

_decode = json.JSONDecoder(parse_int=float).raw_decode  # int() refuses more than 4300 digits
COLOURS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_BAR = re.compile(rb"\d%|\dit |it/s|s/it")
_WRAPPED = re.compile(r"\b(?:(?:np|numpy|torch|jnp)\.)?(?:float\d+|int\d+|tensor|array|Array)\(([^(),]+)[^()]*\)")
_PYTHON = (
    (re.compile(r"'"), '"'),
    (re.compile(r"\bnan\b"), "NaN"),
    (re.compile(r"\binf\b"), "Infinity"),
    (re.compile(r"\bTrue\b"), "true"),
    (re.compile(r"\bFalse\b"), "false"),
    (re.compile(r"\bNone\b"), "null"),
)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a line of output, or None if it has none.

    Example:
        >>> parse_line(b'\\x1b[32m{"loss": 0.5}'), parse_line(b" 50%|###   | 1/2{'loss': np.float64(0.5)}")
        ({'loss': 0.5}, {'loss': 0.5})
        >>> parse_line(b'not {"loss": 1}') is None
        True
    """
    start = line.find(b"{")
    if start < 0:
        return None
    if b"\x1b" in line:
        line = COLOURS.sub(b"", line)
        start = line.find(b"{")
    if line[:start].removeprefix(codecs.BOM_UTF8).strip() and not _BAR.search(line, 0, start):
        return None
    text = line[start:].decode("utf-8", "replace")
    value = _loaded(text)
    if value is None and text.startswith("{'"):
        value = _loaded(_as_json(text))
    return value if isinstance(value, dict) else None


def _loaded(text: str) -> Any:
    try:
        value, end = _decode(text)
        return None if text[end:].strip() else value
    except (ValueError, RecursionError):
        return None


def _as_json(text: str) -> str:
    """Convert the repr of a dict of numbers and plain text to JSON."""
    text = _WRAPPED.sub(lambda match: re.sub(r"\.$", ".0", match[1]), text)  # tensor(1.)
    for pattern, replacement in _PYTHON:
        text = pattern.sub(replacement, text)
    return text


def row_of(data: Mapping[str, Any]) -> Row:
    """The numbers of a JSON object."""
    return Row.of(numbers(data))


def written_out(data: Mapping[str, Any], metric: str) -> float | None:
    """A metric that is text because JSON has no number for it, such as ``"NaN"``; None if it is anything else.

    Example:
        >>> written_out({"loss": "NaN"}, "loss"), written_out({"loss": "high"}, "loss")
        (nan, None)
    """
    found = _under(data, metric)
    text = found[0].strip().lower().lstrip("+-") if len(found) == 1 and isinstance(found[0], str) else ""
    return float(found[0]) if text in ("nan", "inf", "infinity") else None


def refusal(line: bytes, data: Mapping[str, Any] | None, metric: str) -> str | None:
    """Why a line that names a metric does not give it as one number, or None.

    Example:
        >>> refusal(b'{"loss": "high"}', {"loss": "high"}, "loss")
        "loss is 'high', which is not a number"
    """
    if data is None:
        leaf = metric.rpartition(".")[2].encode()
        broken = line.lstrip().startswith(b"{") and leaf in line
        return (
            f"a line with {metric} is not JSON: {shown(line.decode('utf-8', 'replace').strip(), 120)}"
            if broken
            else None
        )
    found = list(_under(data, metric))
    if len(found) > 1 or _has_twice(line, metric):
        return f"{metric} is given twice on one line: {shown(line.decode('utf-8', 'replace').strip(), 120)}"
    if found and number(found[0]) is None:
        return f"{metric} is {shown(found[0], 60)}, which is not a number"
    return None


def _under(data: Mapping[str, Any], path: str) -> list[Any]:
    """Every value under a dotted path, whose dots may be levels or parts of names."""
    found = [data[path]] if path in data else []
    for name, value in data.items():
        if isinstance(value, Mapping) and path.startswith(f"{name}."):
            found += _under(value, path[len(name) + 1 :])
    return found


def _has_twice(line: bytes, metric: str) -> bool:
    """Whether JSON has the metric's name twice in one object. A parser would keep only the last."""
    leaf = metric.rpartition(".")[2]
    if line.count(json.dumps(leaf).encode()) < 2:
        return False
    twice: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(name for name in set(names) if names.count(name) > 1)
        return dict(pairs)

    try:
        json.JSONDecoder(parse_int=float, object_pairs_hook=collect).decode(line[line.find(b"{") :].decode())
    except (ValueError, RecursionError):
        return False
    return leaf in twice or metric in twice
