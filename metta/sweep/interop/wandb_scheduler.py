"""Protein as the engine of W&B Sweeps, through W&B's scheduler for Optuna: ``scheduler: {engine: optuna, ...}``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import optuna
from optuna.study import Study

from metta.common.errors import UserError
from metta.sweep.interop.optuna import ProteinPruner, ProteinSampler


class SweepInfo(Protocol):
    """The required attributes of W&B's own class `SweepInfo`, which its scheduler passes."""

    @property
    def id(self) -> str: ...

    @property
    def config(self) -> Mapping[str, Any]: ...


def protein_study(sweep: SweepInfo) -> Study:
    """The study from which W&B's scheduler takes its runs, with Protein as the sampler and the pruner.

    Give its name as `optimizer` in the sweep's file, and as `source` a Python file that imports it. The study is
    created each time the scheduler starts, and W&B gives it the runs that have ended; Protein has no other state. The
    seed depends only on the sweep's id, so a restarted scheduler continues as before. With a `run_cap` fewer runs are
    stopped early, because the savings are not spent on more runs.

    Args:
        sweep: as W&B's scheduler gives it.

    Raises:
        UserError: the sweep has several metrics, or a goal that is not "minimize" or "maximize".

    Example:
        >>> from types import SimpleNamespace
        >>> sweep = SimpleNamespace(id="abc", config={"metric": {"name": "accuracy", "goal": "maximize"}})
        >>> protein_study(sweep).direction.name
        'MAXIMIZE'
    """
    if "metrics" in sweep.config:
        raise UserError("Protein searches one score; give metric: {name: ..., goal: ...} instead of metrics")
    goal = str((sweep.config.get("metric") or {}).get("goal", "minimize")).lower()
    if goal not in ("minimize", "maximize"):
        raise UserError(f"metric.goal is {goal!r}; give minimize or maximize")
    seed = int.from_bytes(hashlib.sha256(sweep.id.encode()).digest()[:4])
    direction: Literal["minimize", "maximize"] = "maximize" if goal == "maximize" else "minimize"
    sampler = ProteinSampler(seed=seed, num_trials=sweep.config.get("run_cap"))
    return optuna.create_study(direction=direction, sampler=sampler, pruner=ProteinPruner())
