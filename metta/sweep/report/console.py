"""A sweep as one sees it in the terminal: a live line for what trains, and one line for each trial that ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape

from metta.sweep.definition import SweepDefinition
from metta.sweep.report.live_lines import LiveLines
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Progress, Trial, TrialState

PLAIN_PROGRESS_SECONDS = 60.0
"""Without a terminal, how often trials that train say so."""


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
        self._lines = LiveLines(console, PLAIN_PROGRESS_SECONDS)

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.__exit__(kind, error, trace)

    def notice(self, message: str) -> None:
        self._console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def started(self, attempt: Attempt) -> None:
        again = f", attempt {attempt.attempt}" if attempt.attempt > 1 else ""
        self._lines.show(attempt.number, f"trial {attempt.number}{again}: starting")

    def progressed(self, number: int, progress: Progress) -> None:
        self._lines.show(number, f"trial {number}: {progress_line(progress, self._describe)}")

    def ended(self, trial: Trial, trials: list[Trial]) -> None:
        done = sum(each.state.ended for each in trials)
        total = self._definition.num_trials
        line = ended_line(trial, trials, self._definition, self._describe)
        self._lines.remove(trial.number)
        self._console.print(f"[dim]{done:>{len(str(total))}}/{total}[/dim]  {line}", highlight=False)


def progress_line(progress: Progress, describe: Callable[[Mapping[str, float]], str]) -> str:
    """``42%  215,040 of 500,000 steps  15,300 steps/s  18 s left  reward 1.23  per agent 0.5 heart``."""
    speed = progress.metrics.get("steps_per_second")
    if progress.total:
        parts = [f"{progress.step / progress.total:4.0%}  {progress.step:,} of {progress.total:,} steps"]
    else:
        parts = [f"{progress.step:,} steps"]
    if speed:
        parts.append(f"{speed:,.0f} steps/s")
    if speed and progress.total:
        parts.append(f"{max(0, progress.total - progress.step) / speed:.0f} s left")
    if "reward" in progress.metrics:
        parts.append(f"reward {progress.metrics['reward']:.3g}")
    return "  ".join([*parts, describe(progress.metrics)]).rstrip()


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
