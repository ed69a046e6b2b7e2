"""Run one attempt of a trial from its spec alone."""

from __future__ import annotations

import importlib
import traceback
from typing import cast

from metta.sweep.trial import Report, RunTrial, TrialResult, TrialSpec


def run_attempt(spec: TrialSpec, report: Report) -> TrialResult:
    """Import the Tool's class, run the trial, and turn an exception into a result that carries its traceback."""
    try:
        return load_run_trial(spec.tool_class)(spec, report)
    except Exception:
        return TrialResult(metrics={}, cost=0.0, error=traceback.format_exc())


def load_run_trial(tool_class: str) -> RunTrial:
    """The `run_trial` of the class at ``package.module:Class``."""
    module, _, name = tool_class.partition(":")
    return cast(RunTrial, getattr(importlib.import_module(module), name).run_trial)
