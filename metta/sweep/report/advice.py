"""What to run next, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from metta.common.config import flatten
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.axes import is_log
from metta.sweep.report.summary import metta_sweep_command, runner_entry_point, with_num_trials, with_store
from metta.sweep.report.words import about_text
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial

CONFIRMED_SEEDS, MOST_CONFIRMED = 5, 8
WIDER = 0.2
"""By how much a range is widened whose end is best: as a share of its width, on its scale."""


def wider_ranges(sweep: SweepState) -> dict[str, tuple[str, float]]:
    """Parameters that are best at an end of their range, by dotted path: that end, "min" or "max", and a wider one.

    Those are left out whose range makes no sense beyond, such as below 0 for one that starts there.
    """
    ends = sweep.analysis.at_the_edge if sweep.analysis else {}
    wider = {path: (end, wider_end(sweep.searched[path], end)) for path, end in ends.items()}
    return {path: (end, value) for path, (end, value) in wider.items() if value != getattr(sweep.searched[path], end)}


def wider_end(parameter: ParameterConfig, end: str) -> float:
    """An end of a range moved outwards, to two digits; it does not pass 0, nor 1 where the range ends below."""
    low, high = parameter.min or 0.0, parameter.max or 0.0
    old, sign = (low, -1) if end == "min" else (high, 1)
    if parameter.distribution == "uniform_pow2":
        return old * 2.0 if sign > 0 else max(old / 2.0, min(old, 1.0))
    if is_log(parameter):
        new = old * math.exp(sign * WIDER * math.log(high / low))
    elif parameter.distribution == "logit_normal":
        new = 1 / (1 + math.exp(-(_logit(old) + sign * WIDER * (_logit(high) - _logit(low)))))
    else:
        new = old + sign * WIDER * (high - low)
        limit = 0.0 if end == "min" and low >= 0 else 1.0 if end == "max" and low >= 0 and high <= 1 else None
        if limit is not None and sign * (new - limit) >= 0:
            new = (old + limit) / 2
    if parameter.distribution.startswith("int_"):
        return math.ceil(new) if sign > 0 else max(math.floor(new), 1) if low >= 1 else math.floor(new)
    room = 1 - new if 0.5 < new < 1 else new  # 0.995 is 0.005 from its limit
    digits = 1 - math.floor(math.log10(abs(room))) if room else 0
    return round(new, digits)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def widen(sweep: SweepState) -> tuple[str, str] | None:
    """Why, and the command that goes on in wider ranges; None where there is none, or nothing starts it again."""
    wider, entry_point = wider_ranges(sweep), runner_entry_point(sweep.record)
    if not wider or entry_point is None:
        return None
    total = 2 * sweep.definition.num_trials
    ranges = {f"sweep.protein.parameters.{path}.{end}": f"{value:.12g}" for path, (end, value) in wider.items()}
    overrides = {**entry_point.overrides, **ranges, "on_change": "extend"}
    changed = with_store(entry_point.model_copy(update={"overrides": overrides}), sweep.store_url)
    more = total - sweep.definition.num_trials
    them = "the range" if len(wider) == 1 else "these ranges"
    reason = f"widen {them} and run {more:,} more trials ({total:,} in all){_price(sweep, more, sweep.trials)}"
    return reason, with_num_trials(changed, total).command()


def confirm(sweep: SweepState, best: Trial, rivals: Sequence[Trial]) -> tuple[str, str] | None:
    """Why, and the command that runs the best settings again: not many, and no more runs than the sweep had.

    None where that cannot be done, for nothing says how to rebuild the sweep or its seed is fixed.
    """
    fixed = {**sweep.definition.train_overrides, **flatten(sweep.definition.protein.parameters)}
    if sweep.record.entry_point is None or "trainer.seed" in fixed:
        return None
    affordable = min(MOST_CONFIRMED, max(2, len(sweep.ended) // CONFIRMED_SEEDS))
    chosen = [best, *rivals][:affordable]
    runs = CONFIRMED_SEEDS * len(chosen)
    if not rivals:
        which = f"trial {best.number}"
    elif len(chosen) <= len(rivals):
        which = f"the {len(chosen)} most promising of the {len(rivals) + 1:,} settings that may be best"
    else:
        which = f"the {len(chosen)} settings that may be best"
    compared = " each, and compare" if rivals else ""
    price = f"{runs} runs{_price(sweep, runs, chosen)}"
    words = ["--trials", *(str(trial.number) for trial in chosen), "--seeds", str(CONFIRMED_SEEDS)]
    return (
        f"run {which} on {CONFIRMED_SEEDS} fresh seeds{compared}: {price}",
        metta_sweep_command(sweep.store_url, "confirm", sweep.record.name, *words),
    )


def range_words(sweep: SweepState, path: str, end: str, value: float) -> str:
    """``learning_rate (0.01; try up to 0.04)``."""
    now = getattr(sweep.searched[path], end)
    return f"{sweep.parameter_names[path]} ({now:.12g}; try {'down' if end == 'min' else 'up'} to {value:.12g})"


def _price(sweep: SweepState, runs: int, like: Sequence[Trial]) -> str:
    """What so many runs cost if they are like those trials."""
    costs = [trial.cost for trial in like if trial.cost is not None and math.isfinite(trial.cost)]
    of = " of training" if sweep.definition.cost_metric == "seconds" else ""
    return f", about {about_text(runs * fmean(costs), sweep.definition)}{of}" if costs else ""
