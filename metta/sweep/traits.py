"""The traits that a swept Tool declares. They are stored with the sweep, so reading it imports no training code."""

from __future__ import annotations

import importlib
from typing import Any

from metta.common.config import Config
from metta.common.trust import OWN_PACKAGES
from metta.sweep.ranking import Goal


class ToolTraits(Config):
    """The facts about a Tool that a sweep needs. The defaults are those of a function or a program.

    A training Tool declares its own. Sweeps that were stored before traits existed take them from a table ``TRAITS``,
    by tool class, in a module ``traits`` of the Tool's package, if that is one of this distribution.

    Attributes:
        seed_path: the hyperparameter that is the seed; None if the Tool gets its seed in another way.
        retrain: path of the function that trains again with a trial's hyperparameters, for `tools/run.py`. It takes
            `sweep_name`, `trial`, `seed` and `store`. None if there is none.
        progress: the metric in a trial's progress that stands for its score; None for the sweep's own metric.
        progress_goal: whether a better trial has more or less of it; None for the sweep's own goal.
        speed: the metric in a trial's progress that is its speed.
        speed_unit: the unit of `speed`.
        counters: metrics that change during a trial but do not measure how well it does.
        score_note: what the score of a simulation measures, with fields of the simulation in braces:
            ``in {score} per agent``.
        details: metrics of a simulation that are shown with its score: a title for each ending of their names.
        step_notes: a note for an axis of steps if a hyperparameter is searched, by its path.
    """

    seed_path: str | None = None
    retrain: str | None = None
    progress: str | None = None
    progress_goal: Goal | None = None
    speed: str | None = None
    speed_unit: str = "steps/s"
    counters: tuple[str, ...] = ()
    score_note: str = ""
    details: dict[str, str] = {}
    step_notes: dict[str, str] = {}


def traits_of_older(tool_class: str) -> ToolTraits:
    """The traits of a Tool for a definition that was stored without them."""
    package = tool_class.partition(":")[0].rpartition(".")[0]
    if package.partition(".")[0] not in OWN_PACKAGES:  # stored text must not cause the import of other code
        return ToolTraits()
    try:
        table: dict[str, Any] = getattr(importlib.import_module(f"{package}.traits"), "TRAITS", {})
        return ToolTraits.model_validate(table.get(tool_class, {}))
    except Exception:  # the package is missing or fails to import; the sweep can still be read
        return ToolTraits()
