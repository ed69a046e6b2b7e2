"""A sweep as one sees it in the terminal: a live line for what trains, and one line for each trial that ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from metta.sweep.definition import SweepDefinition
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Progress, Trial, TrialState

PLAIN_PROGRESS_SECONDS = 60.0
"""Without a terminal, how often a trial that trains says so."""


class ConsoleView:
    """Shows a sweep while it runs.

    Args:
        console: where to write.
        definition: of the sweep.
        describe: what a trial's metrics mean in the terms of what was trained, in a few words.
    """

    def __init__(
        self, console: Console, definition: SweepDefinition, describe: Callable[[Mapping[str, float]], str]
    ) -> None:
        self._console = console
        self._definition = definition
        self._describe = describe
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(Text(""))
        self._live.stop()

    def notice(self, message: str) -> None:
        self._console.print(escape(message), style="yellow", highlight=False)

    def started(self, attempt: Attempt) -> None:
        again = f" (attempt {attempt.attempt})" if attempt.attempt > 1 else ""
        self._said_at = time.monotonic()
        self._show(f"trial {attempt.number}{again}: starting")

    def progressed(self, number: int, progress: Progress) -> None:
        if self._console.is_terminal:
            self._show(progress_line(number, progress))
        elif time.monotonic() - self._said_at >= PLAIN_PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            self._console.print(progress_line(number, progress), highlight=False)

    def ended(self, trial: Trial, trials: list[Trial]) -> None:
        done = sum(each.state.ended for each in trials)
        total = self._definition.num_trials
        line = ended_line(trial, trials, self._definition, self._describe)
        self._show("")
        self._console.print(f"[dim]{done:>{len(str(total))}}/{total}[/dim]  {line}", highlight=False)

    def _show(self, line: str) -> None:
        if self._console.is_terminal:
            self._live.update(Text(line, style="cyan", overflow="ellipsis", no_wrap=True), refresh=True)


def progress_line(number: int, progress: Progress) -> str:
    """``trial 3:  42%  215,040 of 500,000 steps  15,300 steps/s  reward 1.23  18 s left``."""
    parts = [f"trial {number}:"]
    if progress.total:
        parts.append(f"{progress.step / progress.total:4.0%}  {progress.step:,} of {progress.total:,} steps")
    else:
        parts.append(f"{progress.step:,} steps")
    speed = progress.metrics.get("steps_per_second")
    if speed:
        parts.append(f"{speed:,.0f} steps/s")
    if "reward" in progress.metrics:
        parts.append(f"reward {progress.metrics['reward']:.3g}")
    if speed and progress.total:
        parts.append(f"{max(0, progress.total - progress.step) / speed:.0f} s left")
    return "  ".join(parts)


def ended_line(
    trial: Trial, trials: list[Trial], definition: SweepDefinition, describe: Callable[[Mapping[str, float]], str]
) -> str:
    """One trial's outcome on one line, as rich markup."""
    name = f"trial {trial.number:<3}"
    if trial.state is TrialState.QUEUED:
        return f"{name} [yellow]lost, to be tried again[/yellow]"
    if trial.state is not TrialState.COMPLETED:
        reason = (trial.error or "").strip().splitlines() or [""]
        return f"{name} [red]{trial.state}[/red]: {escape(reason[-1])}"
    goal = definition.protein.goal
    best = ranked(trials, goal)
    standing = ""
    if best and best[0].number == trial.number:
        standing = "[bold green]best so far[/bold green]"
    elif trial.number in pareto_front(trials, goal):
        standing = "[green]on the Pareto front[/green]"
    facts = [name, f"{escape(definition.protein.metric)} [bold]{trial.score:.4g}[/bold]", cost_text(trial, definition)]
    return "  ".join(part for part in [*facts, standing, f"[dim]{escape(describe(trial.metrics))}[/dim]"] if part)


def cost_text(trial: Trial, definition: SweepDefinition) -> str:
    """A trial's cost with its unit."""
    if trial.cost is None:
        return "no cost"
    if definition.cost_metric == "seconds":
        return f"{trial.cost:.1f} s"
    return f"{trial.cost:,.4g} {definition.cost_metric}"
