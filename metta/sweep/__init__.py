"""Sweeps: find good hyperparameters for a training run."""

from metta.sweep.store.loaded import load_sweep

__all__ = ["load_sweep"]
