"""Alias: users' code imports `Program` and `Call` from here. They are in `metta.sweep.program`."""

from metta.sweep.program.call import Call, Program

__all__ = ["Call", "Program"]
