"""Titles of axes."""

from __future__ import annotations

from metta.sweep.report.format import cost_name
from metta.sweep.report.plots.axes import plain
from metta.sweep.state import SweepState


def score_title(sweep: SweepState) -> str:
    return plain(sweep.metric)


def cost_title(sweep: SweepState, name: str) -> str:
    """The name of a cost, with its unit."""
    return f"{name} ({plain(cost_name(sweep.definition))})"
