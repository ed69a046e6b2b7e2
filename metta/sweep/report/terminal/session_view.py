"""A session on a terminal, in a notebook or in a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from rich.console import Console
from rich.markup import escape

from metta.common.config import flatten
from metta.common.counts import count_text
from metta.sweep.report.format import plan_lines, range_text, value_text
from metta.sweep.report.terminal.console import ConsoleView
from metta.sweep.report.terminal.outcome import print_outcome
from metta.sweep.session import Opening
from metta.sweep.state import SweepState
from metta.sweep.sweep import SweepView


class ConsoleSession:
    """Shows a session on a console: its settings, its trials while they run, and the outcome.

    Args:
        console: where to write.
        describe: a short description of a trial's metrics in the terms of the trained system.
    """

    def __init__(self, console: Console, describe: Callable[[Mapping[str, float]], str]) -> None:
        self._console = console
        self._describe = describe

    def notice(self, message: str) -> None:
        self._console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def begins(self, opening: Opening) -> None:
        state, definition = opening.state, opening.state.definition
        budget = "" if definition.max_cost is None else f", {definition.max_cost:,g} of it at most"
        budget += "" if definition.max_runs is None else f", {definition.max_runs:,g} whole runs at most"
        number = definition.num_trials
        self._console.print(
            f"[bold]{escape(state.name)}[/bold]: {count_text(number, 'trial')}, {definition.protein.goal} "
            f"{escape(definition.protein.metric)}, cost in {escape(definition.cost_metric)}{budget}",
            highlight=False,
        )
        for line in plan_lines(definition):
            self._say(f"  {line}")
        for path, parameter in flatten(definition.protein.parameters).items():
            self._console.print(f"  {path}: {range_text(parameter)}", highlight=False, markup=False)
        for path, value in definition.train_overrides.items():
            self._console.print(f"  {path}: {value_text(value)} (fixed)", highlight=False, markup=False)
        self._say(f"  trials: {opening.resources}\n  store: {state.store_url}\n  runs: {opening.folder}")
        if state.trials:
            top = f", top score {state.top.score:.4g}" if state.top else ""
            self._console.print(
                f"resuming: {state.counted:,} of {count_text(number, 'trial has', 'trials have')} ended{top}",
                highlight=False,
            )
        if opening.mirror:
            self._say(f"  {opening.mirror}")
        for remark in state.remarks:
            self.notice(remark)

    def running(self, state: SweepState) -> AbstractContextManager[SweepView]:
        return ConsoleView(self._console, self._describe, state)

    def ends(self, state: SweepState, commands: dict[str, str]) -> None:
        print_outcome(self._console, state, commands)

    def reported(self, message: str) -> None:
        self._say(message)

    def _say(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)
