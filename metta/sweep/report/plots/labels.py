"""What the axes of a sweep's plots are called."""

from __future__ import annotations

from metta.sweep.report.axes import plain
from metta.sweep.report.snapshot import Snapshot
from metta.sweep.report.words import cost_name


def score_title(sweep: Snapshot) -> str:
    return plain(sweep.metric)


def cost_title(sweep: Snapshot, name: str) -> str:
    """``name``, which is some cost, with its unit."""
    return f"{name} ({plain(cost_name(sweep.definition))})"
