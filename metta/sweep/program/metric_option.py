"""The option that names the score of a program."""

from __future__ import annotations

from difflib import get_close_matches

from metta.common.errors import UserError

_GOALS = {"min": "minimize", "max": "maximize", "minimize": "minimize", "maximize": "maximize"}


def parse_metric(text: str) -> dict[str, str]:
    """The name of a metric, and its goal if one is given. Any other colon is part of the name.

    Example:
        >>> parse_metric("loss:min"), parse_metric("val:loss")
        ({'name': 'loss', 'goal': 'minimize'}, {'name': 'val:loss'})

    Raises:
        UserError: the name is missing, or the end looks like a goal but is not one.
    """
    name, colon, goal = text.rpartition(":")
    if not colon and text:
        return {"name": text}
    if goal in _GOALS and name:
        return {"name": name, "goal": _GOALS[goal]}
    if not text.strip(":") or not name or get_close_matches(goal, _GOALS):
        raise UserError(f"--metric {text!r}: expected NAME:min or NAME:max")
    return {"name": text}
