"""A sweep that runs, on a few lines: of a terminal, where they are written over, or of a log file."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from metta.sweep.definition import SweepDefinition
from metta.sweep.report.summary import short_names, short_text
from metta.sweep.report.tally import Forecast, Tally, forecast, share_done
from metta.sweep.report.words import (
    cost_text,
    current_metric,
    duration_text,
    last_line,
    suggestion_text,
    total_text,
)
from metta.sweep.trial import Progress

LABEL = 11
"""Columns of the label that a line begins with."""

BAR, SMALL_BAR = 16, 10
FRONT = 4
"""How many trials of the Pareto front are named."""


@dataclass
class LiveSweep:
    """What is known of a sweep at this moment.

    Attributes:
        definition: of the sweep.
        tallied: what its trials add up to.
        running: how far each running trial is, by number; None where it has not said yet.
        suggested: the last trial that was started, and what the optimiser said of it.
        remark: what is special now, such as a pause.
        ends_at: by the monotonic clock, when its driver starts no trial any more; None for never.
    """

    definition: SweepDefinition
    tallied: Tally
    running: dict[int, Progress | None] = field(default_factory=dict)
    suggested: tuple[int, Mapping[str, Any]] | None = None
    remark: str = ""
    ends_at: float | None = None

    def forecast(self) -> Forecast:
        """What is expected from now on."""
        allowed = None if self.ends_at is None else self.ends_at - time.monotonic()
        return forecast(self.tallied, self.running, allowed)


def live_lines(sweep: LiveSweep, width: int, height: int, ascii_only: bool = False) -> Text:
    """Lines for the foot of a terminal: at most `height` of at most `width` columns."""
    bar = "#-" if ascii_only else "━─"
    tallied, expected = sweep.tallied, sweep.forecast()
    lines = [
        _line("trials", *_done(tallied, expected, bar)),
        _line("cost", _spent(sweep.definition, tallied, expected)),
    ]
    if tallied.best is not None:
        lines += [_line("best", _best(sweep)), _line("Pareto", _front(sweep))]
    if tallied.last_failure is not None:
        lines.append(_line("failed", (_failed(tallied), "red")))
    if sweep.suggested is not None:
        number, suggestion = sweep.suggested
        lines.append(_line("suggested", f"{number}: {suggestion_text(suggestion, sweep.definition)}"))
    if sweep.remark:
        lines.append(_line("", (sweep.remark, "yellow")))
    lines += _running(sweep, bar, max(1, height - len(lines)))
    for line in lines:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return Text("\n").join(lines[:height])


def plain_lines(sweep: LiveSweep) -> list[str]:
    """The same for a log file, where nothing is written over: said now and then, so shorter."""
    tallied, expected = sweep.tallied, sweep.forecast()
    failed = f", {tallied.failed} failed" if tallied.failed else ""
    left = f", {_left(expected)}" if _left(expected) else ""
    spent = _spent(sweep.definition, tallied, expected)
    lines = [f"{tallied.ended} of {tallied.num_trials} trials{failed}{left}; {spent}"]
    if tallied.best is not None:
        lines.append(f"  best {_best(sweep, with_params=False)}; {len(tallied.front)} on the Pareto front")
    lines += [f"  trial {number} {_progress_text(sweep.definition, p)}" for number, p in sorted(sweep.running.items())]
    return [*lines, f"  {sweep.remark}"] if sweep.remark else lines


def _line(label: str, *parts: str | tuple[str, str]) -> Text:
    return Text.assemble((f"{label:<{LABEL}}", "dim"), *parts)


def _done(tallied: Tally, expected: Forecast, bar: str) -> list[str | tuple[str, str]]:
    share = tallied.ended / tallied.num_trials
    return [f"{tallied.ended} of {tallied.num_trials} ", *_bar(share, bar, BAR), f"  {_left(expected)}"]


def _left(expected: Forecast) -> str:
    return f"about {duration_text(expected.seconds_left)} left" if expected.seconds_left else ""


def _bar(share: float, bar: str, length: int) -> list[str | tuple[str, str]]:
    full = int(length * min(1.0, share))
    return [(bar[0] * full, "green"), (bar[1] * (length - full), "bright_black")]


def _spent(definition: SweepDefinition, tallied: Tally, expected: Forecast) -> str:
    spent = f"{total_text(tallied.spent, definition)} spent"
    whole = "" if expected.cost is None else f", about {total_text(expected.cost, definition)} in all"
    budget = "" if tallied.max_cost is None else f", {total_text(tallied.max_cost, definition)} allowed"
    return f"{spent}{whole}{budget}"


def _best(sweep: LiveSweep, with_params: bool = True) -> str:
    best = sweep.tallied.best
    assert best is not None
    names = short_names(list(best.params))
    params = " ".join(f"{name}={short_text(best.params[path])}" for path, name in names.items())
    metric = sweep.definition.protein.metric
    told = f"trial {best.number}  {metric} {best.score:.4g}  {cost_text(best, sweep.definition)}"
    return f"{told}  {params}" if with_params else told


def _front(sweep: LiveSweep) -> str:
    front = sweep.tallied.front
    named = [f"{each.number}: {each.score:.4g} for {cost_text(each, sweep.definition)}" for each in front[:FRONT]]
    return "  ".join(named) + (f"  and {len(front) - FRONT} more" if len(front) > FRONT else "")


def _failed(tallied: Tally) -> str:
    last = tallied.last_failure
    assert last is not None
    count = tallied.failed
    reason = re.sub(r"^(\w+\.)+(?=\w+:)", "", last_line(last.error))
    return f"{count} {'trial' if count == 1 else 'trials'}; trial {last.number}: {reason}"


def _running(sweep: LiveSweep, bar: str, height: int) -> list[Text]:
    shown: Sequence[tuple[int, Progress | None]] = sorted(sweep.running.items())
    cut = len(shown) > height
    lines = [
        _line(
            f"trial {number}",
            *_bar(share_done(progress), bar, SMALL_BAR),
            f" {_progress_text(sweep.definition, progress)}",
        )
        for number, progress in shown[: height - 1 if cut else height]
    ]
    return [*lines, _line("", f"and {len(shown) - len(lines)} more that run")] if cut else lines


def _progress_text(definition: SweepDefinition, progress: Progress | None) -> str:
    """``42%  step 168,000  15,300 steps/s  reward 1.23  15 s left``."""
    if progress is None:
        return "starting"
    parts = [f"{share_done(progress):4.0%}"] if progress.total else []
    parts.append(f"step {progress.step:,}")
    speed = progress.metrics.get("steps_per_second") or (progress.step / progress.seconds if progress.seconds else 0.0)
    if speed > 0:
        parts.append(f"{speed:,.0f} steps/s" if speed >= 10 else f"{speed:.2g} steps/s")
    if (metric := current_metric(progress, definition)) is not None:
        parts.append(f"{metric[0]} {metric[1]:.3g}")
    if speed > 0 and progress.total:
        parts.append(f"{duration_text(max(0, progress.total - progress.step) / speed)} left")
    return "  ".join(parts)
