"""How amounts, and what the optimiser says, are put in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from metta.sweep.definition import SweepDefinition
from metta.sweep.trial import Progress, Trial

_SOURCES = {
    "search centre": "the middle of the search space",
    "random": "drawn from the whole space",
    "resample": "a repetition of the setting tried least on the Pareto front",
}


def number_text(value: float) -> str:
    """A number to four digits, or to the last whole one: ``0.01234``, ``12.3``, ``400,000``."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def duration_text(seconds: float) -> str:
    """``38 s``, ``4 min 05 s``, ``2 h 10 min`` or ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s" if whole < 600 else f"{round(whole / 60)} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def cost_name(definition: SweepDefinition) -> str:
    """What the cost is."""
    return "seconds of training" if definition.cost_metric == "seconds" else definition.cost_metric


def total_text(cost: float, definition: SweepDefinition) -> str:
    """The cost of many trials with its unit."""
    if definition.cost_metric == "seconds":
        return duration_text(cost)
    return f"{cost:,.4g} {definition.cost_metric}"


def about_text(cost: float, definition: SweepDefinition) -> str:
    """The cost of many trials, foreseen and so to two digits, with its unit: ``3 min``."""
    return total_text(float(f"{cost:.2g}"), definition).removesuffix(" 00 s")


def cost_text(trial: Trial, definition: SweepDefinition) -> str:
    """A trial's cost with its unit."""
    return "no cost" if trial.cost is None else one_cost_text(trial.cost, definition)


def one_cost_text(cost: float, definition: SweepDefinition) -> str:
    """The cost of one trial with its unit."""
    if definition.cost_metric == "seconds":
        return f"{cost:.1f} s" if cost >= 0.1 or cost == 0 else f"{cost:.2g} s"
    return f"{cost:,.4g} {definition.cost_metric}"


def last_line(error: str | None) -> str:
    """The line of a traceback that says what went wrong."""
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else "no reason was recorded"


def suggestion_text(suggestion: Mapping[str, Any], definition: SweepDefinition) -> str:
    """Where a trial's hyperparameters come from, and what the optimiser expects of them."""
    source = suggestion.get("source")
    if source is None:
        return "given by hand"
    if source == "confirmation":
        return f"trial {suggestion.get('trial')} of the sweep again, on a fresh seed"
    if source != "model":
        fallback = f" ({suggestion['fallback']})" if suggestion.get("fallback") else ""
        return f"{_SOURCES.get(source, source)}{fallback}"
    parent = suggestion.get("pareto_point")
    origin = "model" if parent is None else f"model, near trial {parent}"
    if not {"score", "score_std"} <= suggestion.keys():
        return origin
    expected = f"{definition.protein.metric} {suggestion['score']:.4g} +/- {suggestion['score_std']:.2g}"
    if suggestion.get("cost") is not None:
        expected += f" for {one_cost_text(suggestion['cost'], definition)}"
    doubt = f", {suggestion['success']:.0%} sure not to fail" if suggestion.get("success", 1.0) < 0.9 else ""
    return f"{origin}: expects {expected}{doubt}"


def current_metric(progress: Progress, definition: SweepDefinition) -> tuple[str, float] | None:
    """What says how well a running trial does: the sweep's own metric, or the reward."""
    for name in (definition.protein.metric, "reward"):
        value = progress.metrics.get(name, math.nan)
        if not math.isnan(value):
            return name, value
    return None
