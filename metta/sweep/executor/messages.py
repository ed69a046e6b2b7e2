"""Messages between processes, as JSON. Nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TypeVar

from metta.common.plain import plain
from metta.sweep.trial import Progress, TrialResult, TrialSpec

Message = TypeVar("Message", TrialSpec, Progress, TrialResult)


def to_json(message: TrialSpec | Progress | TrialResult) -> str:
    """Write a message. NumPy numbers become plain numbers; NaN and infinities are kept.

    Raises:
        TypeError, ValueError: it contains a value that is neither JSON nor a number.
    """
    return json.dumps(asdict(message), default=plain)


def from_json(kind: type[Message], text: str | bytes) -> Message:
    """Read a message that `to_json` wrote."""
    return kind(**json.loads(text))
