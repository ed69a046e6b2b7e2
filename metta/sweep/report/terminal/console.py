"""The terminal of a driver: a line for each trial that ended, and a live display of the sweep below them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from metta.sweep.analysis.failures import last_line
from metta.sweep.report.format import cost_text
from metta.sweep.report.terminal.live_display import LiveDisplay
from metta.sweep.report.terminal.live_view import RunningSweep, live_lines, plain_lines
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Progress, Trial, TrialState

PLAIN_SECONDS = 60.0
"""Without a terminal, the seconds between two reports of progress."""


class ConsoleView:
    """Shows a sweep while it runs.

    Args:
        console: where to write.
        describe: a short description of a trial's metrics in the terms of the trained system.
        state: of the sweep at the start.
    """

    def __init__(
        self,
        console: Console,
        describe: Callable[[Mapping[str, float]], str],
        state: SweepState,
    ) -> None:
        self._console = console
        self._describe = describe
        self._display = LiveDisplay(console, PLAIN_SECONDS)
        hours = state.definition.max_hours
        ends_at = None if hours is None else time.monotonic() + 3600.0 * hours
        self._sweep = RunningSweep(state, ends_at=ends_at)

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.__exit__(kind, error, trace)

    def notice(self, message: str) -> None:
        self._console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def started(self, attempt: Attempt) -> None:
        self._sweep.running[attempt.number] = None
        self._sweep.suggested = attempt.number, attempt.suggestion
        show_sweep(self._display, self._sweep, at_once=True)

    def progressed(self, number: int, progress: Progress) -> None:
        self._sweep.running[number] = progress
        show_sweep(self._display, self._sweep)

    def ended(self, trial: Trial, state: SweepState) -> None:
        self._sweep.running.pop(trial.number, None)
        self._sweep.state = state
        print_ended(self._console, state.by_number.get(trial.number, trial), state, self._describe)
        show_sweep(self._display, self._sweep, at_once=True)


def show_sweep(display: LiveDisplay, sweep: RunningSweep, at_once: bool = False) -> None:
    """Show a running sweep, unless it was shown just now; with `at_once` in any case."""

    def live() -> Text:
        size, ascii_only = display.console.size, display.console.options.ascii_only
        return live_lines(sweep, size.width, max(4, size.height - 4), ascii_only)

    display.show(live, lambda: plain_lines(sweep), at_once)


def print_ended(
    console: Console,
    trial: Trial,
    state: SweepState,
    describe: Callable[[Mapping[str, float]], str] = lambda metrics: "",
) -> None:
    """Print the outcome of a trial on one line."""
    total = state.definition.num_trials
    done = f"[dim]{state.counted:>{len(str(total))}}/{total}[/dim]"
    line = ended_line(trial, state, describe)
    if console.is_terminal:
        cut = trial.state is TrialState.COMPLETED  # an error is never cut
        console.print(f"{done}  {line}", highlight=False, no_wrap=cut, overflow="ellipsis" if cut else "fold")
    else:
        console.print(f"{done}  {line}", highlight=False, soft_wrap=True)


def ended_line(
    trial: Trial,
    state: SweepState,
    describe: Callable[[Mapping[str, float]], str],
) -> str:
    """The outcome of a trial on one line, as rich markup."""
    name = f"trial {trial.number:<3}"
    if trial.state is TrialState.QUEUED:
        return f"{name} [yellow]lost, will be tried again[/yellow]"
    if trial.state is TrialState.PRUNED and trial.stopped:
        reason = f"[dim]{escape(trial.stopped)}[/dim]"
        return f"{name} [yellow]stopped[/yellow]  {escape(cost_text(trial, state.definition))}  {reason}"
    if trial.state is not TrialState.COMPLETED:
        reason = escape(last_line(trial.error)) if trial.error else ""
        return f"{name} [red]{trial.state}[/red]: {reason}" if reason else f"{name} [red]{trial.state}[/red]"
    ranking = ""
    if state.top is not None and state.top.number == trial.number:
        ranking = "[bold green]top so far[/bold green]"
    elif trial.number in state.on_front:
        ranking = "[green]on the Pareto front[/green]"
    score = "no score" if trial.score is None else f"{escape(state.metric)} [bold]{trial.score:.4g}[/bold]"
    facts = [name, score, escape(cost_text(trial, state.definition))]
    return "  ".join(part for part in [*facts, ranking, f"[dim]{escape(describe(trial.metrics))}[/dim]"] if part)
