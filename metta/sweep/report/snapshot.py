"""An old way to read a sweep for its plots; the new one is `load_sweep(url, name).state().analysed()`."""

from __future__ import annotations

from metta.sweep.report.curves import with_curves
from metta.sweep.state import SweepState
from metta.sweep.store.loaded import LoadedSweep


def take_snapshot(sweep: LoadedSweep) -> SweepState:
    """Read a sweep with its learning curves, and analyse it."""
    return with_curves(sweep.store, sweep.state().analysed())
