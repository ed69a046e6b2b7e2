"""SweepTool: search the hyperparameters of a TrainTool."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import Field, SkipValidation
from rich.console import Console
from rich.markup import escape
from sqlalchemy.engine import make_url

from metta.common.config import Overrides, flatten
from metta.common.data_dir import data_dir, default_store_url
from metta.common.errors import UserError
from metta.common.tool import Tool
from metta.sweep.definition import OnChange, SweepDefinition, open_sweep
from metta.sweep.executor import ExecutorName, open_executor
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.protocol import Executor
from metta.sweep.observations import recommended_trial, search_centre
from metta.sweep.report.console import ConsoleView
from metta.sweep.report.standing import ranked
from metta.sweep.report.summary import next_commands, print_outcome, range_text, value_text
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt, Store
from metta.sweep.store.wandb_mirror.config import WandbConfig, destination
from metta.sweep.store.wandb_mirror.mirror import mirrored, restore
from metta.sweep.sweep import SweepLoop, TooManyFailuresError
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.trial import Trial, TrialSpec
from metta.tools.train import TrainTool


class SweepTool(Tool):
    """Searches the hyperparameters of a TrainTool, and keeps every trial in a store.

    Attributes:
        sweep: what to search, and for how many trials.
        sweep_name: the sweep's name in the store; the same name resumes or extends it.
        train_tool_factory: makes a fresh TrainTool for a run's name; it runs in the driver only.
        train_overrides: fixed values put on every TrainTool before the hyperparameters.
        cost_metric: the metric that is a trial's cost: "seconds" of training, "agent_steps", or any other of the run.
        seed: of the optimiser and of the trials; drawn once and stored if left out.
        store: URL of the store.
        executor: where trials run: "inline" in this process, "local" in worker processes on this machine, or "ray";
            left out, it is "ray" with a `ray_address`, "local" for more than one worker, and else "inline".
        num_workers: trials at once; left out, one inline, and elsewhere as many as the resources allow.
        cpus_per_trial: CPU threads of each trial; left out, the cores divided by the workers.
        gpus_per_trial: GPUs of each trial, a fraction or a whole number; left out, one where there are GPUs.
        ray_address: address of a Ray cluster; left out, `ray` starts on this machine.
        wandb: whether and where the sweep is mirrored in Weights & Biases.
        on_change: what to do when the stored sweep asked another question: "refuse", or "extend" with what fits.
    """

    sweep: SweepConfig
    sweep_name: str
    train_tool_factory: SkipValidation[Callable[[str], TrainTool]] = Field(exclude=True, repr=False)
    train_overrides: Overrides = Field(default_factory=Overrides)
    cost_metric: str = "seconds"
    seed: int | None = Field(default=None, ge=0)
    store: str = Field(default_factory=default_store_url)
    executor: ExecutorName | None = None
    num_workers: int | None = Field(default=None, ge=1)
    cpus_per_trial: int | None = Field(default=None, ge=1)
    gpus_per_trial: float | None = Field(default=None, ge=0)
    ray_address: str | None = None
    wandb: WandbConfig = Field(default_factory=WandbConfig)
    on_change: OnChange = "refuse"

    def invoke(self) -> int:
        return self._invoke(exclusive=True)

    def work(self) -> int:
        """Drive the sweep beside its other drivers, and return an exit status."""
        return self._invoke(exclusive=False)

    def _invoke(self, exclusive: bool) -> int:
        console = Console()
        try:
            with _terminated_is_interrupted():
                self._run(console, exclusive)
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

    def _run(self, console: Console, exclusive: bool) -> None:
        definition = self.definition()
        where = destination(self.wandb)

        def notice(message: str) -> None:
            console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)

        restore(self.store, self.sweep_name, self.wandb, notice)
        with closing(self._open_executor()) as executor, closing(open_store(self.store)) as store:
            definition = open_sweep(store, self.sweep_name, definition, self._stored_entry_point(), self.on_change)
            self._introduce(console, store, definition, executor)
            if where.sentence:
                console.print(f"  {where.sentence}", markup=False, highlight=False, soft_wrap=True)
            with mirrored(self.store, self.sweep_name, self.wandb, notice):
                trials = self._drive(console, store, definition, executor, exclusive)
            recommended = recommended_trial(definition, trials)
            record = store.sweep(self.sweep_name)
            commands = next_commands(record, store.url, definition, trials, recommended)
            print_outcome(console, self.sweep_name, definition, trials, recommended, commands)

    def _open_executor(self) -> Executor:
        return open_executor(
            self.executor, self.num_workers, self.cpus_per_trial, self.gpus_per_trial, self.ray_address
        )

    def _command(self) -> str:
        """The command that started this, without a password."""
        assert self._entry_point is not None
        overrides = dict(self._entry_point.overrides)
        if "store" in overrides:
            overrides["store"] = make_url(self.store).render_as_string(hide_password=True)
        return self._entry_point.model_copy(update={"overrides": overrides}).command()

    def _stored_entry_point(self) -> dict[str, Any] | None:
        """What rebuilds this sweep elsewhere. Without the store's URL, which may hold a password."""
        if self._entry_point is None:
            return None
        overrides = {path: text for path, text in self._entry_point.overrides.items() if path != "store"}
        return self._entry_point.model_copy(update={"overrides": overrides}).model_dump()

    def _drive(
        self, console: Console, store: Store, definition: SweepDefinition, executor: Executor, exclusive: bool
    ) -> list[Trial]:
        prepare = self._preparer(definition, self._run_root(store))
        with ConsoleView(console, definition, TrainTool.describe) as view:
            loop = SweepLoop(self.sweep_name, definition, store, executor, prepare, view, exclusive)
            if isinstance(executor, InlineExecutor):
                return loop.run()
            with _first_interrupt(loop.finish):
                return loop.run()

    def definition(self) -> SweepDefinition:
        """Check the whole sweep before anything trains, and describe it for the store.

        Raises:
            UserError: a bad name, a path the TrainTool lacks, a value it refuses, or an unknown metric.
        """
        if not re.fullmatch(r"[\w.-]{1,100}", self.sweep_name) or self.sweep_name.startswith("."):
            raise UserError(f"sweep_name {self.sweep_name!r}: only letters, digits, '.', '_' and '-' are possible")
        tool = self._fresh_tool(self.sweep_name)
        tool.model_copy(deep=True).update(search_centre(self.sweep.protein))
        simulations = self._simulations(tool)
        for metric in (self.sweep.protein.metric, self.cost_metric):
            tool.check_metric(metric, simulations)
        return SweepDefinition(
            protein=self.sweep.protein,
            num_trials=self.sweep.num_trials,
            max_cost=self.sweep.max_cost,
            seed=self.seed,
            cost_metric=self.cost_metric,
            train_overrides=self.train_overrides.root,
            simulations={simulation.name: simulation.model_dump(mode="json") for simulation in simulations},
            tool_class=f"{type(tool).__module__}:{type(tool).__qualname__}",
            tool=tool.model_dump(mode="json"),
            wandb=self.wandb,
        )

    def _fresh_tool(self, run_name: str) -> TrainTool:
        return self.train_tool_factory(run_name).update(self.train_overrides.root)

    def _simulations(self, tool: TrainTool) -> list[Any]:
        chosen = self.sweep.evaluation_simulations
        return list(tool.simulations if chosen is None else chosen)

    def _run_root(self, store: Store) -> Path:
        """The sweep's folder; its time of creation keeps it apart from an earlier sweep of the same name."""
        created = store.sweep(self.sweep_name).created_at
        return data_dir().absolute() / "sweeps" / self.sweep_name / f"{created:%Y%m%d-%H%M%S}"

    def _preparer(self, definition: SweepDefinition, root: Path) -> Callable[[Attempt], TrialSpec]:
        def prepare(attempt: Attempt) -> TrialSpec:
            tool = self._fresh_tool(f"{self.sweep_name}.{attempt.number:04d}")
            if "trainer.seed" not in {**self.train_overrides.root, **attempt.params}:
                tool.override("trainer.seed", trial_seed(definition.seed or 0, attempt.number))
            tool.update(attempt.params)
            return TrialSpec(
                number=attempt.number,
                attempt=attempt.attempt,
                tool_class=definition.tool_class,
                tool=tool.model_dump(mode="json"),
                simulations=[simulation.model_dump(mode="json") for simulation in self._simulations(tool)],
                run_dir=str(root / f"trial_{attempt.number:04d}"),
            )

        return prepare

    def _introduce(self, console: Console, store: Store, definition: SweepDefinition, executor: Executor) -> None:
        """The first lines: what is searched, over what, and where it is kept."""
        protein = definition.protein
        trials = store.trials(self.sweep_name)
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
        places = f"  trials: {executor.resources}\n  store: {store.url}\n  runs: {self._run_root(store)}"
        console.print(places, highlight=False, markup=False, soft_wrap=True)
        if trials:
            ended = sum(trial.state.ended for trial in trials)
            order = ranked(trials, protein.goal)
            best = f", best {order[0].score:.4g}" if order else ""
            console.print(f"resuming: {ended} of {definition.num_trials} trials have ended{best}", highlight=False)


def retrain(sweep_name: str, trial: int, seed: int | None = None, store: str | None = None) -> TrainTool:
    """Train once more with the hyperparameters of a sweep's trial.

    Args:
        sweep_name: the sweep.
        trial: the trial's number.
        seed: a fresh seed tells luck from merit; the trial's own if left out.
        store: URL of the store, if it is not the default one.
    """
    opened = open_store(store or default_store_url())
    try:
        definition = SweepDefinition.model_validate(opened.sweep(sweep_name).config)
        trials = opened.trials(sweep_name)
    finally:
        opened.close()
    if not 0 <= trial < len(trials):
        raise UserError(f"trial={trial}: sweep {sweep_name!r} has the trials 0 to {len(trials) - 1}")
    tool = TrainTool.model_validate(definition.tool).update(trials[trial].params)
    if seed is not None:
        tool.override("trainer.seed", seed)
    elif "trainer.seed" not in {**definition.train_overrides, **trials[trial].params}:
        tool.override("trainer.seed", trial_seed(definition.seed or 0, trial))
    return tool.override("run_name", f"{sweep_name}.{trial:04d}.seed{tool.trainer.seed}")


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed that a trial trains with: another for each trial, the same for each of its attempts."""
    return (sweep_seed * 1_000_003 + number) % 2**31


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Treat SIGTERM, by which clusters end a job, as Ctrl-C: the running attempt is recorded as lost."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _first_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Do `action` at the first Ctrl-C; the second is a KeyboardInterrupt."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        action()

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
