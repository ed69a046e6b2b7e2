"""Errors of a program that say nothing about its hyperparameters: the same would happen with any."""

from __future__ import annotations

from metta.common.errors import UserError


class ProgramNotFoundError(UserError):
    """There is no such program, or the file that it is to run does not exist."""


class MetricMissingError(UserError):
    """The program ended well, and nothing that it printed or wrote has the metric as one number."""
