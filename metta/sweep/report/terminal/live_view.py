"""A running sweep on a few lines, for the live display of a terminal or for a log file."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from metta.common.config import short_names
from metta.common.counts import count_text
from metta.sweep.analysis.failures import last_line
from metta.sweep.analysis.progress import SweepProgress, share_done, sweep_progress
from metta.sweep.definition import SweepDefinition
from metta.sweep.report.format import (
    cost_text,
    current_metric,
    duration_text,
    short_text,
    suggestion_text,
    total_text,
)
from metta.sweep.state import SweepState
from metta.sweep.trial import Progress, TrialState

LABEL = 11
"""The width of the label at the beginning of a line."""

BAR, SMALL_BAR = 16, 10
FRONT = 4
"""The most trials of the Pareto front that are named."""


@dataclass
class RunningSweep:
    """A sweep and its running trials at this moment.

    Attributes:
        state: of the sweep.
        running: the progress of each running trial, by number; None if it has not reported yet.
        suggested: the last trial that was started, and its suggestion.
        remark: a special state, such as a pause.
        ends_at: time of the monotonic clock after which its driver starts no trial; None for never.
    """

    state: SweepState
    running: dict[int, Progress | None] = field(default_factory=dict)
    suggested: tuple[int, Mapping[str, Any]] | None = None
    remark: str = ""
    ends_at: float | None = None

    @property
    def definition(self) -> SweepDefinition:
        return self.state.definition

    def progress(self) -> SweepProgress:
        """The progress, and the expected end."""
        allowed = None if self.ends_at is None else self.ends_at - time.monotonic()
        return sweep_progress(self.state, self.running, allowed)


def live_lines(sweep: RunningSweep, width: int, height: int, ascii_only: bool = False) -> Text:
    """Lines for a live display: at most `height` of at most `width` columns."""
    bar = "#-" if ascii_only else "━─"
    state, expected = sweep.state, sweep.progress()
    lines = [
        _line("trials", *_done(state, expected, bar)),
        _line("cost", _spent(state, expected)),
    ]
    if state.top is not None:
        lines += [_line("top", _top(sweep)), _line("Pareto", _front(sweep))]
    if state.counts[TrialState.FAILED]:
        lines.append(_line("failed", (_failed(state), "red")))
    if sweep.suggested is not None:
        number, suggestion = sweep.suggested
        lines.append(_line("suggested", f"{number}: {suggestion_text(suggestion, sweep.definition)}"))
    if sweep.remark:
        lines.append(_line("", (sweep.remark, "yellow")))
    lines += _running(sweep, bar, max(1, height - len(lines)))
    for line in lines:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return Text("\n").join(lines[:height])


def plain_lines(sweep: RunningSweep) -> list[str]:
    """The same, shorter, for a log file, where nothing is overwritten."""
    state, expected = sweep.state, sweep.progress()
    failed = f", {state.counts[TrialState.FAILED]} failed" if state.counts[TrialState.FAILED] else ""
    left = f", {_left(expected)}" if _left(expected) else ""
    spent = _spent(state, expected)
    lines = [f"{state.counted} of {count_text(state.definition.num_trials, 'trial')}{failed}{left}; {spent}"]
    if state.top is not None:
        lines.append(f"  top {_top(sweep, with_params=False)}; {len(state.front)} on the Pareto front")
    lines += [f"  trial {number} {_progress_text(sweep.definition, p)}" for number, p in sorted(sweep.running.items())]
    return [*lines, f"  {sweep.remark}"] if sweep.remark else lines


def _line(label: str, *parts: str | tuple[str, str]) -> Text:
    return Text.assemble((f"{label:<{LABEL}}", "dim"), *parts)


def _done(state: SweepState, expected: SweepProgress, bar: str) -> list[str | tuple[str, str]]:
    return [
        f"{state.counted} of {state.definition.num_trials} ",
        *_bar(expected.share, bar, BAR),
        f"  {_left(expected)}",
    ]


def _left(expected: SweepProgress) -> str:
    return f"about {duration_text(expected.seconds_left)} left" if expected.seconds_left else ""


def _bar(share: float, bar: str, length: int) -> list[str | tuple[str, str]]:
    full = int(length * min(1.0, share))
    return [(bar[0] * full, "green"), (bar[1] * (length - full), "bright_black")]


def _spent(state: SweepState, expected: SweepProgress) -> str:
    definition = state.definition
    spent = f"{total_text(state.spent, definition)} spent"
    total = expected.expected_cost
    whole = "" if total is None else f", about {total_text(total, definition)} in total"
    budget = "" if definition.max_cost is None else f", {total_text(definition.max_cost, definition)} allowed"
    runs = "" if definition.max_runs is None else f", {state.whole_runs:.1f} of {definition.max_runs:g} whole runs"
    return f"{spent}{whole}{budget}{runs}"


def _top(sweep: RunningSweep, with_params: bool = True) -> str:
    top = sweep.state.top
    assert top is not None
    names = short_names(list(top.params))
    params = " ".join(f"{name}={short_text(top.params[path])}" for path, name in names.items())
    said = f"trial {top.number}  {sweep.state.metric} {top.score:.4g}  {cost_text(top, sweep.definition)}"
    return f"{said}  {params}" if with_params else said


def _front(sweep: RunningSweep) -> str:
    front = sweep.state.front
    named = [f"{each.number}: {each.score:.4g} for {cost_text(each, sweep.definition)}" for each in front[:FRONT]]
    return "  ".join(named) + (f"  and {len(front) - FRONT} more" if len(front) > FRONT else "")


def _failed(state: SweepState) -> str:
    failed = state.with_state(TrialState.FAILED)
    count, last = len(failed), failed[-1]
    reason = re.sub(r"^(\w+\.)+(?=\w+:)", "", last_line(last.error))
    return f"{count_text(count, 'trial')}; trial {last.number}: {reason}"


def _running(sweep: RunningSweep, bar: str, height: int) -> list[Text]:
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
    return [*lines, _line("", f"and {len(shown) - len(lines)} more running")] if cut else lines


def _progress_text(definition: SweepDefinition, progress: Progress | None) -> str:
    """``42%  step 168,000  15,300 steps/s  reward 1.23  15 s left``."""
    if progress is None:
        return "starting"
    parts = [f"{share_done(progress):4.0%}"] if progress.total else []
    parts.append(f"step {progress.step:,}")
    traits, own = definition.traits, progress.step / progress.seconds if progress.seconds else 0.0
    speed = progress.metrics.get(traits.speed or "") or own
    if speed > 0:
        parts.append(f"{speed:,.0f} {traits.speed_unit}" if speed >= 10 else f"{speed:.2g} {traits.speed_unit}")
    if (metric := current_metric(progress, definition)) is not None:
        parts.append(f"{metric[0]} {metric[1]:.3g}")
    if speed > 0 and progress.total:
        parts.append(f"{duration_text(max(0, progress.total - progress.step) / speed)} left")
    return "  ".join(parts)
