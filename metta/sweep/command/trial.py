"""Alias: stored definitions name `CommandTrial` here. It is in `metta.sweep.program`."""

from metta.sweep.program.trial import CommandTrial

__all__ = ["CommandTrial"]
