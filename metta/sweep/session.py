"""One run of a sweep, from its definition to its result: executor, store, mirror and loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from metta.common.errors import UserError
from metta.sweep.definition import DefinitionError, SweepDefinition, open_sweep, read_definition, what_runs
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.protocol import Executor
from metta.sweep.executor.surroundings import default_surroundings
from metta.sweep.report.commands import retry_commands
from metta.sweep.result import SweepResult
from metta.sweep.retention import Retention, sweep_folder, sweeps_folder, trial_folder
from metta.sweep.signals import first_interrupt, stops_are_interrupts
from metta.sweep.state import SweepState, read_state
from metta.sweep.store import open_store
from metta.sweep.store.journal import bring_in_journals
from metta.sweep.store.protocol import Attempt, Store, SweepNotFoundError
from metta.sweep.sweep import SweepLoop, SweepView
from metta.sweep.trial import TrialSpec
from metta.sweep.wandb.config import destination
from metta.sweep.wandb.mirror import mirrored, restore

if TYPE_CHECKING:
    from metta.sweep.abstract_sweep import AbstractSweep


@dataclass(frozen=True)
class Opening:
    """A session before its first trial.

    Attributes:
        state: the stored sweep, new or resumed.
        resources: a short description of what trials run on.
        folder: the folder of the runs.
        mirror: a sentence about where the sweep is mirrored; "" for none.
    """

    state: SweepState
    resources: str
    folder: Path
    mirror: str


class SessionView(Protocol):
    """Shows the events of a session. The session itself prints nothing."""

    def notice(self, message: str) -> None:
        """Show a message."""
        ...

    def begins(self, opening: Opening) -> None:
        """Show the search, and where trials run and are stored."""
        ...

    def running(self, state: SweepState) -> AbstractContextManager[SweepView]:
        """Show the trials, from here to the end of the context."""
        ...

    def ends(self, state: SweepState, commands: dict[str, str]) -> None:
        """Show the outcome, and the commands to run next."""
        ...

    def reported(self, message: str) -> None:
        """Show where the report is, or why there is none."""
        ...


class Session:
    """One driver's work on a sweep.

    Args:
        sweep: what to run.
        view: where to show it.
        exclusive: whether to refuse to work together with other drivers.
        outcome: whether to show the outcome and write the report at the end.
    """

    def __init__(self, sweep: AbstractSweep, view: SessionView, exclusive: bool = True, outcome: bool = True) -> None:
        self._sweep = sweep
        self._view = view
        self._exclusive = exclusive
        self._outcome = outcome

    def run(self) -> SweepResult:
        """Run the sweep to its end and return its result; see `AbstractSweep.run` for what it raises."""
        sweep, view, name = self._sweep, self._view, self._sweep.sweep_name
        definition = sweep.definition()
        mirror = destination(sweep.wandb).sentence
        root = sweeps_folder(name)
        with stops_are_interrupts(), closing(sweep.open_executor()) as executor, default_surroundings():
            with closing(open_store(sweep.store)) as store:
                bring_in_journals(store, name, root, view.notice)
            restore(sweep.store, name, sweep.wandb, view.notice)
            with closing(open_store(sweep.store)) as store:
                before = self._ran_before(store)
                open_sweep(store, name, definition, sweep.stored_entry_point(), sweep.on_change)
                state = read_state(store, name)
                if before not in (None, what_runs(definition)) and state.trials:
                    view.notice(f"earlier trials ran {before}; their scores are compared with those of the new trials")
                folder = sweep_folder(state.record)
                folder.mkdir(parents=True, exist_ok=True)
                for remark in sweep.remarks():
                    view.notice(remark)
                view.begins(Opening(state, executor.resources, folder, mirror))
                with mirrored(sweep.store, name, sweep.wandb, view.notice):
                    self._drive(store, state, executor, folder)
                state = read_state(store, name)
                if self._outcome:
                    view.ends(state, sweep.next_commands(state) | retry_commands(state))
                    self._write_report(store, state, folder)
        return SweepResult(sweep.store, state)

    def _ran_before(self, store: Store) -> Any:
        """What the trials of the stored sweep ran; None if there is none."""
        try:
            return what_runs(read_definition(store.sweep(self._sweep.sweep_name)))
        except (SweepNotFoundError, DefinitionError):
            return None

    def _drive(self, store: Store, state: SweepState, executor: Executor, folder: Path) -> None:
        """Run the loop, and apply `keep_policies`."""
        sweep, definition = self._sweep, state.definition

        def prepare(attempt: Attempt) -> TrialSpec:
            return _with_seeds(sweep, definition, attempt, trial_folder(folder, attempt.number))

        with self._view.running(state) as view:
            retention = Retention(folder, lambda number: sweep.shared_folder(definition, number), view.notice)

            def apply(delete: Callable[[SweepState], None], state: SweepState) -> None:
                try:
                    delete(state)
                except UserError as error:
                    view.notice(f"a policy that need not be kept could not be deleted yet: {error}")

            loop = SweepLoop(
                sweep.sweep_name,
                definition,
                store,
                executor,
                prepare,
                view,
                self._exclusive,
                lambda state: apply(retention.trial_ended, state),
                folder,
            )
            if isinstance(executor, InlineExecutor):
                ended = loop.run()
            else:
                with first_interrupt(loop.finish):
                    ended = loop.run()
            apply(retention.sweep_ended, ended)

    def _write_report(self, store: Store, state: SweepState, folder: Path) -> None:
        """Write the report. An error in it, such as a missing package, does not fail the sweep."""
        if not self._sweep.write_report:
            return
        from metta.sweep.report.curves import with_curves
        from metta.sweep.report.html.html_export import write_report

        path = folder / "report.html"
        try:
            write_report(with_curves(store, state.analysed()), path)
            self._view.reported(f"report:\n  {path}")
        except Exception as error:
            self._view.reported(f"the report could not be written: {error}")


def trial_seed(sweep_seed: int, number: int, repeat: int = 0) -> int:
    """The seed of a trial. It differs between trials and repeats, and is the same for all attempts of a trial."""
    return (sweep_seed * 1_000_003 + number + repeat * 7_368_787) % 2**31


def _with_seeds(sweep: AbstractSweep, definition: SweepDefinition, attempt: Attempt, run_dir: Path) -> TrialSpec:
    """The spec of an attempt, with one Tool for each of the sweep's seeds per trial."""
    seeds = [trial_seed(definition.seed or 0, attempt.number, repeat) for repeat in range(definition.seeds)]
    first, *others = [sweep.prepare(definition, attempt, seed, run_dir) for seed in seeds]
    return replace(first, repeats=[spec.tool for spec in others])
