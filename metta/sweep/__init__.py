"""Sweeps: find good hyperparameters for a training run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metta.sweep.function import RunningTrial, optimize
    from metta.sweep.protein import Protein
    from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings
    from metta.sweep.result import SweepResult
    from metta.sweep.store.loaded import load_sweep
    from metta.sweep.sweep_config import SweepConfig

_HOMES = {
    "ParameterConfig": "protein_config",
    "Protein": "protein",
    "ProteinConfig": "protein_config",
    "ProteinSettings": "protein_config",
    "RunningTrial": "function",
    "SweepConfig": "sweep_config",
    "SweepResult": "result",
    "load_sweep": "store.loaded",
    "optimize": "function",
}

__all__ = [
    "ParameterConfig",
    "Protein",
    "ProteinConfig",
    "ProteinSettings",
    "RunningTrial",
    "SweepConfig",
    "SweepResult",
    "load_sweep",
    "optimize",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `import metta.sweep` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
