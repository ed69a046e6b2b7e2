"""Errors of a program that do not depend on its hyperparameters: any others would give the same error."""

from __future__ import annotations

from metta.common.errors import UserError


class ProgramNotFoundError(UserError):
    """The program, or the file that it should run, does not exist."""


class ArgumentsRefusedError(UserError):
    """The program does not take the arguments that it was given, whatever their values."""


class MetricMissingError(UserError):
    """The program succeeded, but neither its output nor its files contain the metric as one number."""
