"""A sweep as its driver shows it: a line for each trial that ended, and at the foot how the sweep goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from metta.sweep.definition import SweepDefinition
from metta.sweep.report.live_view import LiveSweep, live_lines, plain_lines
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.report.tally import tally
from metta.sweep.report.words import cost_text, last_line
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Progress, Trial, TrialState

REDRAW_SECONDS = 0.5
PLAIN_SECONDS = 60.0
"""Without a terminal, how often it is said how the sweep goes on."""


class Foot:
    """Lines at the foot of a terminal that are written over; without one, plain lines now and then.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn_at = -math.inf if console.is_terminal else time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, sweep: LiveSweep, at_once: bool = False) -> None:
        """Show how the sweep goes on, unless that was done just now.

        Args:
            sweep: what is known of it.
            at_once: redraw in any case, for what is there is wrong by now.
        """
        console, now = self._console, time.monotonic()
        if not console.is_terminal:
            if now - self._drawn_at >= PLAIN_SECONDS:
                self._drawn_at = now
                for line in plain_lines(sweep):
                    console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif at_once or now - self._drawn_at >= REDRAW_SECONDS:
            self._drawn_at = now
            size, ascii_only = console.size, console.options.ascii_only
            self._live.update(live_lines(sweep, size.width, max(4, size.height - 4), ascii_only), refresh=True)


class ConsoleView:
    """Shows a sweep while it runs.

    Args:
        console: where to write.
        definition: of the sweep.
        describe: what a trial's metrics mean in the terms of what was trained, in a few words.
        trials: what the sweep has already.
    """

    def __init__(
        self,
        console: Console,
        definition: SweepDefinition,
        describe: Callable[[Mapping[str, float]], str],
        trials: Sequence[Trial] = (),
    ) -> None:
        self._console = console
        self._definition = definition
        self._describe = describe
        self._foot = Foot(console)
        hours = definition.max_hours
        ends_at = None if hours is None else time.monotonic() + 3600.0 * hours
        self._sweep = LiveSweep(definition, tally(definition, trials), ends_at=ends_at)

    def __enter__(self) -> Self:
        self._foot.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._foot.__exit__(kind, error, trace)

    def notice(self, message: str) -> None:
        self._console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def started(self, attempt: Attempt) -> None:
        self._sweep.running[attempt.number] = None
        self._sweep.suggested = attempt.number, attempt.suggestion
        self._foot.show(self._sweep, at_once=True)

    def progressed(self, number: int, progress: Progress) -> None:
        self._sweep.running[number] = progress
        self._foot.show(self._sweep)

    def ended(self, trial: Trial, trials: list[Trial]) -> None:
        self._sweep.running.pop(trial.number, None)
        self._sweep.tallied = tally(self._definition, trials)
        print_ended(self._console, trial, trials, self._definition, self._describe)
        self._foot.show(self._sweep, at_once=True)


def print_ended(
    console: Console,
    trial: Trial,
    trials: Sequence[Trial],
    definition: SweepDefinition,
    describe: Callable[[Mapping[str, float]], str] = lambda metrics: "",
) -> None:
    """One trial's outcome on one line."""
    total = definition.num_trials
    done = f"[dim]{sum(each.state.ended for each in trials):>{len(str(total))}}/{total}[/dim]"
    line = ended_line(trial, trials, definition, describe)
    if console.is_terminal:
        cut = trial.state is TrialState.COMPLETED  # but never an error
        console.print(f"{done}  {line}", highlight=False, no_wrap=cut, overflow="ellipsis" if cut else "fold")
    else:
        console.print(f"{done}  {line}", highlight=False, soft_wrap=True)


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
    trial: Trial,
    trials: Sequence[Trial],
    definition: SweepDefinition,
    describe: Callable[[Mapping[str, float]], str],
) -> str:
    """One trial's outcome on one line, as rich markup."""
    name = f"trial {trial.number:<3}"
    if trial.state is TrialState.QUEUED:
        return f"{name} [yellow]lost, to be tried again[/yellow]"
    if trial.state is not TrialState.COMPLETED:
        reason = escape(last_line(trial.error)) if trial.error else ""
        return f"{name} [red]{trial.state}[/red]: {reason}" if reason else f"{name} [red]{trial.state}[/red]"
    goal = definition.protein.goal
    best = ranked(trials, goal)
    standing = ""
    if best and best[0].number == trial.number:
        standing = "[bold green]best so far[/bold green]"
    elif trial.number in pareto_front(trials, goal):
        standing = "[green]on the Pareto front[/green]"
    facts = [name, f"{escape(definition.protein.metric)} [bold]{trial.score:.4g}[/bold]", cost_text(trial, definition)]
    return "  ".join(part for part in [*facts, standing, f"[dim]{escape(describe(trial.metrics))}[/dim]"] if part)
