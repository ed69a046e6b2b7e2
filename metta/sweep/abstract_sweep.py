"""What every kind of sweep shares: its settings, where trials are kept and run, and what a person sees of it."""

from __future__ import annotations

import re
import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from rich.console import Console
from rich.markup import escape
from sqlalchemy.engine import make_url

from metta.common.config import Config, flatten, reasons
from metta.common.data_dir import data_dir, default_store_url
from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError, nearest
from metta.common.tool import Tool
from metta.sweep.definition import OnChange, SweepDefinition, open_sweep
from metta.sweep.executor import ExecutorName, open_executor
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.protocol import Executor
from metta.sweep.observations import search_centre
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.report.commands import next_commands
from metta.sweep.report.format import range_text, value_text
from metta.sweep.report.terminal.console import ConsoleView
from metta.sweep.report.terminal.outcome import print_outcome
from metta.sweep.result import SweepResult
from metta.sweep.retention import Retention, trial_folder
from metta.sweep.state import SweepState, read_state
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt, Store
from metta.sweep.store.wandb_mirror.config import WandbConfig, destination
from metta.sweep.store.wandb_mirror.mirror import mirrored, restore
from metta.sweep.sweep import SweepLoop, TooManyFailuresError
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.trial import TrialSpec


class AbstractSweep(Tool):
    """Searches hyperparameters, and keeps every trial in a store.

    A kind of sweep says what a trial is: `definition` checks it before anything runs, `prepare` makes it.

    Attributes:
        sweep: what to search, and for how many trials.
        sweep_name: the sweep's name in the store; the same name resumes or extends it.
        cost_metric: the metric that is a trial's cost: "seconds" of training, or any other that the trial measures.
        seed: of the optimiser and of the trials; drawn once and stored if left out.
        store: URL of the store.
        executor: where trials run: "inline" in this process, "local" in worker processes on this machine, or "ray";
            left out, it is "ray" with a `ray_address`, "local" for more than one worker, and else "inline".
        num_workers: trials at once; left out, one inline, and elsewhere as many as the resources allow.
        cpus_per_trial: CPU threads of each trial; left out, the cores divided by the workers.
        gpus_per_trial: GPUs of each trial, a fraction or a whole number; left out, one where there are GPUs.
        ray_address: address of a Ray cluster; left out, `ray` starts on this machine.
        ranks_per_trial: with `ray`, processes that train each trial together, on one node or several; CPUs and GPUs of
            the trial are divided among them.
        wandb: whether and where the sweep is mirrored in Weights & Biases.
        on_change: what to do when the stored sweep asked another question: "refuse", or "extend" with what fits.
    """

    sweep: SweepConfig
    sweep_name: str
    cost_metric: str = "seconds"
    seed: int | None = Field(default=None, ge=0)
    store: str = Field(default_factory=default_store_url)
    executor: ExecutorName | None = None
    num_workers: int | None = Field(default=None, ge=1)
    cpus_per_trial: int | None = Field(default=None, ge=1)
    gpus_per_trial: float | None = Field(default=None, ge=0)
    ray_address: str | None = None
    ranks_per_trial: int = Field(default=1, ge=1)
    wandb: WandbConfig = Field(default_factory=WandbConfig)
    on_change: OnChange = "refuse"

    @abstractmethod
    def definition(self) -> SweepDefinition:
        """Check the whole sweep before anything runs, and describe it for the store.

        Raises:
            UserError: it cannot run as asked.
        """

    @abstractmethod
    def prepare(self, definition: SweepDefinition, attempt: Attempt, seed: int, run_dir: Path) -> TrialSpec:
        """Put an attempt's hyperparameters and its seed on what is to be run in the folder `run_dir`."""

    def shared_folder(self, definition: SweepDefinition, number: int) -> str | None:
        """URL of the folder where a trial puts what other machines are to reach, or None if there is none."""
        return None

    def describe(self, metrics: Mapping[str, float]) -> str:
        """What a trial's metrics mean in the terms of what was trained, in a few words."""
        return ""

    def invoke(self) -> int:
        return self._invoke(exclusive=True)

    def work(self) -> int:
        """Drive the sweep beside its other drivers, and return an exit status."""
        return self._invoke(exclusive=False)

    def _invoke(self, exclusive: bool) -> int:
        console = Console()
        try:
            self.run(console, exclusive)
        except TooManyFailuresError as error:
            console.print(escape(str(error)), style="red", highlight=False)
            return 1
        except KeyboardInterrupt:
            command = f"run the same command again:\n  {self._command()}" if self._entry_point else "invoke it again"
            console.print(
                f"\nstopped; every trial that ended is kept. To go on, {command}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            return 130
        return 0

    def run(self, console: Console | None = None, exclusive: bool = True, outcome: bool = True) -> SweepResult:
        """Run the sweep to its end and return what was found.

        Args:
            console: where to show it; left out, standard output.
            exclusive: whether to refuse to work beside other drivers.
            outcome: whether to say in the end what was found.

        Raises:
            UserError: the sweep cannot run as asked; nothing has run then.
            TooManyFailuresError: five trials failed in a row.
            KeyboardInterrupt: it was stopped; every trial that ended is kept.
        """
        console = console or Console(force_jupyter=False)  # in a notebook a stream, not a block for each line
        definition = self.definition()
        where = destination(self.wandb)

        def notice(message: str) -> None:
            console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)

        with _terminated_is_interrupted(), closing(self._open_executor()) as executor:
            restore(self.store, self.sweep_name, self.wandb, notice)
            with closing(open_store(self.store)) as store:
                open_sweep(store, self.sweep_name, definition, self._stored_entry_point(), self.on_change)
                state = read_state(store, self.sweep_name)
                self._introduce(console, state, executor)
                if where.sentence:
                    console.print(f"  {where.sentence}", markup=False, highlight=False, soft_wrap=True)
                for remark in state.remarks:
                    notice(remark)
                with mirrored(self.store, self.sweep_name, self.wandb, notice):
                    self._drive(console, store, state, executor, exclusive)
                state = read_state(store, self.sweep_name)
                if outcome:
                    print_outcome(console, state, self._next_commands(state))
                    self._write_report(console, store, state)
        return SweepResult(self.store, state)

    def _write_report(self, console: Console, store: Store, state: SweepState) -> None:
        """Write the report, where plotly is installed. A sweep that has ended does not fail because it is missing."""
        if find_spec("plotly") is None:
            return
        from metta.sweep.report.curves import with_curves
        from metta.sweep.report.html.html_export import write_report

        path = self._run_root(state) / "report.html"
        try:
            write_report(with_curves(store, state.analysed()), path)
            said = f"report:\n  {path}"
        except Exception as error:
            said = f"the report could not be written: {error}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)

    def _open_executor(self) -> Executor:
        return open_executor(
            self.executor,
            self.num_workers,
            self.cpus_per_trial,
            self.gpus_per_trial,
            self.ray_address,
            self.ranks_per_trial,
        )

    def _next_commands(self, state: SweepState) -> dict[str, str]:
        return next_commands(state)

    def _command(self) -> str:
        """The command that started this, without a password."""
        assert self._entry_point is not None
        overrides = dict(self._entry_point.overrides)
        if "store" in overrides:
            overrides["store"] = make_url(self.store).render_as_string(hide_password=True)
        return self._entry_point.model_copy(update={"overrides": overrides}).command()

    def rebuilt_by(self) -> EntryPoint | None:
        """What builds this sweep again on another machine, or None if nothing can."""
        return self._entry_point

    def _from_fields(self) -> EntryPoint:
        """What builds this sweep again out of its fields, for one that is nothing else but its fields."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"store", "on_change"})
        texts = {name: value_text(value) for name, value in fields.items()}
        return EntryPoint(path=f"{type(self).__module__}.{type(self).__name__}", args=texts)

    def _stored_entry_point(self) -> dict[str, Any] | None:
        """What rebuilds this sweep elsewhere. Without the store's URL, which may hold a password."""
        entry_point = self.rebuilt_by()
        if entry_point is None:
            return None
        overrides = {path: text for path, text in entry_point.overrides.items() if path != "store"}
        return entry_point.model_copy(update={"overrides": overrides}).model_dump()

    def _drive(self, console: Console, store: Store, state: SweepState, executor: Executor, exclusive: bool) -> None:
        root, definition = self._run_root(state), state.definition

        def prepare(attempt: Attempt) -> TrialSpec:
            return self._with_seeds(definition, attempt, trial_folder(root, attempt.number))

        with ConsoleView(console, self.describe, state) as view:
            retention = Retention(root, lambda number: self.shared_folder(definition, number), view.notice)

            def apply(delete: Callable[[SweepState], None], state: SweepState) -> None:
                try:
                    delete(state)
                except UserError as error:
                    view.notice(f"a policy that is not to be kept could not be deleted yet: {error}")

            loop = SweepLoop(
                self.sweep_name,
                definition,
                store,
                executor,
                prepare,
                view,
                exclusive,
                lambda state: apply(retention.trial_ended, state),
            )
            if isinstance(executor, InlineExecutor):
                ended = loop.run()
            else:
                with _first_interrupt(loop.finish):
                    ended = loop.run()
            apply(retention.sweep_ended, ended)

    def _with_seeds(self, definition: SweepDefinition, attempt: Attempt, run_dir: Path) -> TrialSpec:
        seeds = [
            trial_seed(definition.seed or 0, attempt.number, repeat) for repeat in range(definition.seeds_per_trial)
        ]
        first, *others = [self.prepare(definition, attempt, seed, run_dir) for seed in seeds]
        return replace(first, repeats=[spec.tool for spec in others])

    def _check_name(self) -> None:
        if not re.fullmatch(r"[\w.-]{1,100}", self.sweep_name) or self.sweep_name.startswith("."):
            raise UserError(f"sweep_name {self.sweep_name!r}: only letters, digits, '.', '_' and '-' are possible")

    def _define(self, tool_class: str, tool: dict[str, Any], **more: Any) -> SweepDefinition:
        """The definition of this sweep of a Tool.

        Args:
            tool_class, tool, more: fields of `SweepDefinition` that this kind of sweep decides.
        """
        self._check_name()
        search_centre(self.sweep.protein)
        return SweepDefinition(
            protein=self.sweep.protein,
            num_trials=self.sweep.num_trials,
            max_cost=self.sweep.max_cost,
            max_hours=self.sweep.max_hours,
            trial_timeout=self.sweep.trial_timeout,
            seeds_per_trial=self.sweep.seeds_per_trial,
            keep_policies=self.sweep.keep_policies,
            seed=self.seed,
            cost_metric=self.cost_metric,
            wandb=self.wandb,
            tool_class=tool_class,
            tool=tool,
            **more,
        )

    def _run_root(self, state: SweepState) -> Path:
        """The sweep's folder; its time of creation keeps it apart from an earlier sweep of the same name."""
        return data_dir().absolute() / "sweeps" / self.sweep_name / f"{state.record.created_at:%Y%m%d-%H%M%S}"

    def _introduce(self, console: Console, state: SweepState, executor: Executor) -> None:
        """The first lines: what is searched, over what, and where it is kept."""
        definition, protein = state.definition, state.definition.protein
        budget = "" if definition.max_cost is None else f", {definition.max_cost:,g} of it at most"
        console.print(
            f"[bold]{escape(self.sweep_name)}[/bold]: {definition.num_trials} trials, {protein.goal} "
            f"{escape(protein.metric)}, cost in {escape(definition.cost_metric)}{budget}",
            highlight=False,
        )
        for path, parameter in flatten(protein.parameters).items():
            console.print(f"  {path}: {range_text(parameter)}", highlight=False, markup=False)
        for path, value in definition.train_overrides.items():
            console.print(f"  {path}: {value_text(value)} (fixed)", highlight=False, markup=False)
        places = f"  trials: {executor.resources}\n  store: {state.store_url}\n  runs: {self._run_root(state)}"
        console.print(places, highlight=False, markup=False, soft_wrap=True)
        if state.trials:
            top = f", top score {state.top.score:.4g}" if state.top else ""
            console.print(
                f"resuming: {state.counted} of {definition.num_trials} trials have ended{top}", highlight=False
            )


AnySweep = TypeVar("AnySweep", bound=AbstractSweep)


def assemble(kind: type[AnySweep], fields: Mapping[str, Any], where: str) -> AnySweep:
    """Make a sweep from fields of its own, of its `SweepConfig` and of its `ProteinConfig`, all in one.

    Args:
        where: what the fields were given to, for error messages.

    Raises:
        UserError: a field that does not exist, with the nearest ones, or a value that does not fit.
    """
    homes: list[tuple[type[Config], dict[str, Any]]] = [(ProteinConfig, {}), (SweepConfig, {}), (kind, {})]
    names = [name for model, _ in homes for name in model.model_fields if name not in ("protein", "sweep")]
    for name, value in fields.items():
        if name not in names:
            raise UserError(f"{where}: there is no {name!r}; {nearest(name, names)}")
        next(values for model, values in homes if name in model.model_fields)[name] = value
    (_, protein), (_, sweep), (_, tool) = homes
    try:
        return kind(sweep=SweepConfig(**sweep, protein=ProteinConfig(**protein)), **tool)
    except ValidationError as error:
        raise UserError(f"{where}: {reasons(error.errors(include_url=False))}") from None


def trial_seed(sweep_seed: int, number: int, repeat: int = 0) -> int:
    """The seed that a trial trains with: another for each trial and repeat, the same for each of its attempts."""
    return (sweep_seed * 1_000_003 + number + repeat * 7_368_787) % 2**31


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Treat SIGTERM, by which clusters end a job, as Ctrl-C: the running attempt is recorded as lost."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handler(signal.SIGTERM, interrupt):
        yield


@contextmanager
def _first_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Do `action` at the first Ctrl-C; the second is a KeyboardInterrupt."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        action()

    with _handler(signal.SIGINT, interrupt):
        yield


@contextmanager
def _handler(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle a signal so; only the main thread can, and elsewhere the signal is its business."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)
