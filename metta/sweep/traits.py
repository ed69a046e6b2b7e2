"""What a swept Tool says of itself, stored with the sweep: to read a sweep, nobody needs to import what it trains."""

from __future__ import annotations

import importlib
from typing import Any

from metta.common.config import Config


class ToolTraits(Config):
    """What the sweep must know of the Tool that it sweeps. The defaults are those of a function or a program.

    A training Tool declares its own. The package of a Tool may have a module ``traits`` with a table ``TRAITS`` by
    tool class: it is read for sweeps that were stored before traits were.

    Attributes:
        seed_path: the hyperparameter that is the seed; None if the sweep gives each trial its seed by another way.
        retrain: path of the function that trains once more with a trial's hyperparameters, for `tools/run.py`. It
            takes `sweep_name`, `trial`, `seed` and `store`. None if there is none.
        progress: the metric of a trial's progress that stands for its score; None for the sweep's own metric.
        speed: the metric of a trial's progress that says how fast it is.
        speed_unit: the unit of `speed`.
        counters: metrics that change as a trial goes on, and do not say how well it does.
        details: metrics of a simulation that are shown with its score: a title for each ending of their names.
        step_notes: what an axis of steps says where a hyperparameter is searched, by its path.
    """

    seed_path: str | None = None
    retrain: str | None = None
    progress: str | None = None
    speed: str | None = None
    speed_unit: str = "steps/s"
    counters: tuple[str, ...] = ()
    details: dict[str, str] = {}
    step_notes: dict[str, str] = {}


def traits_of_older(tool_class: str) -> ToolTraits:
    """The traits of a Tool in a definition that was stored without them."""
    package = tool_class.partition(":")[0].rpartition(".")[0]
    try:
        table: dict[str, Any] = getattr(importlib.import_module(f"{package}.traits"), "TRAITS", {})
        return ToolTraits.model_validate(table.get(tool_class, {}))
    except Exception:  # a package that is missing or fails to import: the sweep can still be read
        return ToolTraits()
