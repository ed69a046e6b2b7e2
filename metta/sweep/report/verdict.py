"""What fresh seeds say of a sweep's best settings, in plain words."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metta.sweep.confirmation import Difference, Verdict
from metta.sweep.definition import SweepDefinition


def print_verdict(console: Console, definition: SweepDefinition, verdict: Verdict) -> None:
    """A row for each setting, and a sentence for each pair of them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    metric = escape(definition.protein.metric)
    for heading in ("trial", f"mean {metric}", "95% sure of", "seeds", "failed", "in the sweep"):
        table.add_column(heading, justify="right")
    for setting in verdict.settings:
        table.add_row(
            str(setting.trial),
            _number(setting.mean),
            "" if setting.low is None else f"{_number(setting.low)} .. {_number(setting.high)}",
            str(len(setting.scores)),
            str(setting.failures or ""),
            _number(setting.swept_score),
        )
    console.print(table, highlight=False)
    for sentence in sentences(verdict):
        console.print(sentence, highlight=False, markup=False)


def sentences(verdict: Verdict) -> list[str]:
    """Whether the settings really differ, and what would tell."""
    if not verdict.differences:
        return ["One setting alone, or too few scores: nothing can be compared."] if verdict.settings else []
    best = verdict.settings[0]
    rivals = [each.worse for each in verdict.differences if each.better == best.trial and not each.real]
    if rivals:
        summary = f"Trial {best.trial} did best, but {_trials(rivals)} may be as good."
    else:
        summary = f"Trial {best.trial} is best, and that is no luck."
    told = [summary, *map(_sentence, verdict.differences)]
    return told if len(verdict.differences) == 1 else [*told, "All these statements together are 95% sure."]


def _sentence(difference: Difference) -> str:
    better, worse = difference.better, difference.worse
    between = f"{_number(difference.low)} to {_number(difference.high)}"
    if difference.real:
        return (
            f"Trial {better} really is better than trial {worse}: by {_number(difference.mean)} on average "
            f"(95% sure of {between})."
        )
    seeds = "" if difference.seeds_needed is None else f" About {difference.seeds_needed} seeds of each would tell."
    return (
        f"Trials {better} and {worse} cannot be told apart: {better} is {_number(difference.mean)} better on average, "
        f"but anything from {between} is possible.{seeds}"
    )


def _trials(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    return f"trials {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
