"""Alias: stored entry points name `CommandSweep` and `from_file` here. They are in `metta.sweep.program`."""

from metta.sweep.program.command_sweep import CommandSweep, from_file

__all__ = ["CommandSweep", "from_file"]
