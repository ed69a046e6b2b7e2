"""What the axes of a sweep's plots are called."""

from __future__ import annotations

from metta.sweep.report.axes import plain
from metta.sweep.report.words import cost_name
from metta.sweep.state import SweepState


def score_title(sweep: SweepState) -> str:
    return plain(sweep.metric)


def cost_title(sweep: SweepState, name: str) -> str:
    """``name``, which is some cost, with its unit."""
    return f"{name} ({plain(cost_name(sweep.definition))})"
