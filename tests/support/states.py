"""Sweeps as values, made from trials that no store holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from metta.sweep.definition import SweepDefinition
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import SweepRecord
from metta.sweep.trial import Trial


def state_of(definition: SweepDefinition, trials: Sequence[Trial], name: str = "made", **more: Any) -> SweepState:
    """The state of a sweep with these trials; `more` is given to `SweepState.of`."""
    record = SweepRecord(name, definition.model_dump(mode="json"), None, datetime(2026, 1, 1, tzinfo=UTC))
    return SweepState.of(record, definition, trials, **more)
