"""Amounts, hyperparameters, ranges, trials and suggestions as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metta.common.terminal import safe
from metta.sweep.definition import SweepDefinition
from metta.sweep.distributions import KINDS
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.state import SweepState
from metta.sweep.trial import Progress, Trial

_SOURCES = {
    "own values": "the Tool's own values",
    "own values, longer run": "the Tool's own values, with longer training",
    "search centre": "the middle of the search space",
    "random": "drawn from the whole space",
    "resample": "a repeat of the setting on the Pareto front that was run least",
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


def plan_lines(definition: SweepDefinition) -> list[str]:
    """Lines about early stopping and repeats; none if the sweep has neither."""
    lines = []
    if definition.early_stopping != "off":
        first = f"step {definition.rungs[0]:,}" if definition.rungs else f"{definition.min_share:.0%} of a run"
        other = "" if definition.watched_sign > 0 else f" ({definition.watched_goal}d)"
        lines.append(
            f"early stopping: {definition.early_stopping}, by {definition.watched_metric}{other}, from "
            f"{first} on; a stopped trial counts among the {definition.num_trials}"
        )
    if definition.seeds_per_trial == "auto":
        lines.append("repeats: promising configurations are run again with another seed, each time as a trial")
    return lines


def cost_name(definition: SweepDefinition) -> str:
    """What the cost measures, in words."""
    return "seconds of training" if definition.cost_metric == "seconds" else definition.cost_metric


def total_text(cost: float, definition: SweepDefinition) -> str:
    """The cost of many trials with its unit."""
    if definition.cost_metric == "seconds":
        return duration_text(cost)
    return f"{cost:,.4g} {definition.cost_metric}"


def about_text(cost: float, definition: SweepDefinition) -> str:
    """The expected cost of many trials, to two digits, with its unit: ``3 min``."""
    return total_text(float(f"{cost:.2g}"), definition).removesuffix(" 00 s")


def cost_text(trial: Trial, definition: SweepDefinition) -> str:
    """A trial's cost with its unit."""
    return "no cost" if trial.cost is None else one_cost_text(trial.cost, definition)


def one_cost_text(cost: float, definition: SweepDefinition) -> str:
    """The cost of one trial with its unit."""
    if definition.cost_metric == "seconds":
        return f"{cost:.1f} s" if cost >= 0.1 or cost == 0 else f"{cost:.2g} s"
    return f"{cost:,.4g} {definition.cost_metric}"


def suggestion_text(suggestion: Mapping[str, Any], definition: SweepDefinition) -> str:
    """The source of a trial's hyperparameters, and what the optimiser expects of them."""
    source = suggestion.get("source")
    if source is None:
        return "given by hand"
    if source == "confirmation":
        return f"trial {suggestion.get('trial')} of the sweep again, on a fresh seed"
    if source == "repeat":
        return f"trial {suggestion.get('repeat_of')} again, with another seed: {suggestion.get('reason', '')}"
    if source != "model":
        fallback = f" ({suggestion['fallback']})" if suggestion.get("fallback") else ""
        return f"{source_text(suggestion)}{fallback}"
    parent = suggestion.get("pareto_point")
    origin = "model" if parent is None else f"model, near trial {parent}"
    if not {"score", "score_std"} <= suggestion.keys():
        return origin
    expected = f"{definition.protein.metric} {suggestion['score']:.4g} +/- {suggestion['score_std']:.2g}"
    if suggestion.get("cost") is not None:
        expected += f" for {one_cost_text(suggestion['cost'], definition)}"
    doubt = f", {suggestion['success']:.0%} sure not to fail" if suggestion.get("success", 1.0) < 0.9 else ""
    return f"{origin}: expects {expected}{doubt}"


def source_text(suggestion: Mapping[str, Any]) -> str:
    """Where hyperparameters that no model chose come from."""
    source = str(suggestion.get("source", "given by hand"))
    return _SOURCES.get(source, source)


def current_metric(progress: Progress, definition: SweepDefinition) -> tuple[str, float] | None:
    """The metric that shows how well a running trial does: the sweep's own, or the one that stands for it."""
    for name in (definition.protein.metric, definition.watched_metric, definition.traits.progress):
        value = progress.metrics.get(name, math.nan) if name else math.nan
        if name and not math.isnan(value):
            return name, value
    return None


def score_text(trial: Trial) -> str:
    """A trial's score to four digits."""
    return "none" if trial.score is None else f"{trial.score:.4g}"


def state_text(trial: Trial) -> str:
    """The trial's state, or that it was dropped, or failed by a mishap."""
    if trial.dropped is not None:
        return "dropped"
    return "mishap" if trial.mishap else str(trial.state)


def ranking_text(state: SweepState, trial: Trial) -> str:
    """How a trial ranks: ``best``, ``top``, ``best, top`` or ``Pareto``; "" for none of these."""
    titles = {"best": state.conclusions.best, "top": state.conclusions.top}
    held = [title for title, holder in titles.items() if holder is not None and holder.number == trial.number]
    return ", ".join(held) or ("Pareto" if trial.number in state.on_front else "")


def range_text(parameter: Any) -> str:
    """The range and scale of a hyperparameter, its choices, or its fixed value."""
    if not isinstance(parameter, ParameterConfig):
        return f"{value_text(parameter)} (fixed)"
    if parameter.choices is not None:
        return f"one of {value_text(parameter.choices)}"
    words = KINDS[parameter.distribution].words if parameter.step is None else (f"multiples of {parameter.step:g}",)
    return ", ".join([f"{parameter.min:g} to {parameter.max:g}", *words])


def short_text(value: Any) -> str:
    """A hyperparameter for a table, to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else value_text(value)


def value_text(value: Any) -> str:
    """A hyperparameter in full, as the command line takes it: with fewer digits a run could not be reproduced."""
    if type(value) is float and math.isfinite(value):
        return repr(value)  # the same as json.dumps, and much faster
    if isinstance(value, str):
        return value if safe(value) == value else safe(json.dumps(value, ensure_ascii=False))  # which YAML reads
    return json.dumps(value)


def choice_text(value: Any) -> str:
    """A choice, for plots and sentences."""
    return value if isinstance(value, str) else repr(value)


def list_text(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
