"""The base class of Tools that train a policy and evaluate it, for any game. Torch is imported when training starts."""

from __future__ import annotations

import inspect
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args

from pydantic import Field, field_validator
from rich.text import Text

from metta.common import shared_files
from metta.common.config import Config
from metta.common.console import Console
from metta.common.data_dir import data_dir
from metta.common.entry_point import EntryPoint, load_target
from metta.common.errors import UserError, nearest
from metta.common.logging import log_to_file
from metta.common.tool import Tool
from metta.rl.launch import leads
from metta.rl.stopwatch import profile_line
from metta.rl.trainer_config import TrainerConfig
from metta.sweep.report.terminal.live_display import LiveDisplay
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import PeerLostError, Progress, Report, TrialResult, TrialSpec
from metta.sweep.wandb.config import WandbConfig, destination
from metta.sweep.wandb.training import TrainingLog, logged_training
from metta.tools.metrics_log import LogFormat, MetricsLog, metrics_log
from metta.tools.traits import TRAINING

if TYPE_CHECKING:
    from metta.rl.trainer import TrainingProgress

TRAINING_METRICS = (
    "agent_steps",
    "seconds",
    "steps_per_second",
    "updates",
    "reward",
    "reward_per_step",
    "episode_length",
    "batch_size",
    "minibatch_size",
    "num_environments",
    "num_ranks",
    "horizon",
    "memory_gib",
    "gpu_memory_gib",
    "learning_rate",
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "grad_norm",
    "explained_variance",
    "epochs",
)
"""Metrics of every run, in addition to the stats of its game, ``train/<stat>``; see `metta.rl.trainer.train`."""

EVALUATION_SECONDS = "eval_seconds"
"""The duration of the evaluation. It is not part of the cost, which counts only training."""

PLAIN_PROGRESS_SECONDS = 10.0
"""How often a run without a terminal prints its progress."""

EnvConfigT = TypeVar("EnvConfigT")
SimulationT = TypeVar("SimulationT", bound=Config)


class TrainingTool(Tool, Generic[EnvConfigT, SimulationT]):
    """Trains a policy and evaluates it.

    A subclass for a kind of game implements `_run`, `metric_names` and `_evaluated`.

    Attributes:
        run_name: the run's name and folder; the same name resumes from its checkpoint.
        trainer: hyperparameters.
        env: the game to train on.
        simulations: the simulations to evaluate the policy on; may be empty.
        policies: URL of a shared folder to copy the policy to: ``s3://bucket/folder``, or any other URL that fsspec
            can write to. By default the policy stays in the run's folder.
        wandb: whether and where to log a run that is not part of a sweep.
        log: also write the metrics of training and evaluation into the run's folder, as ``jsonl`` (``metrics.jsonl``)
            or ``tensorboard`` (``tensorboard/``). ``wandb`` means the same as ``wandb.enabled=true``.
    """

    traits: ClassVar[ToolTraits] = TRAINING
    """The facts about this Tool that a sweep needs; stored with the sweep."""

    run_name: str = Field(pattern=r"^[\w-][\w.-]{0,199}$")
    trainer: TrainerConfig = TrainerConfig()
    env: EnvConfigT
    simulations: list[SimulationT] = []
    policies: str | None = Field(default=None, min_length=1)
    wandb: WandbConfig = Field(default_factory=WandbConfig)
    log: LogFormat = "none"

    @abstractmethod
    def _run(self, report: Report, run_dir: Path) -> TrialResult:
        """Train in a folder, evaluate, and return the result."""

    @abstractmethod
    def metric_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        """Every metric that a sweep of this Tool may optimise: those of the evaluation, then those of the training.

        Args:
            simulations: evaluated instead of `self.simulations`.
        """

    @abstractmethod
    def _evaluated(self, simulation: SimulationT, metrics: Mapping[str, float]) -> str:
        """The result of a simulation on one line, as rich markup."""

    @field_validator("policies")
    @classmethod
    def _check_policies_url(cls, policies: str | None) -> str | None:
        try:
            return None if policies is None else shared_files.check_url(policies)
        except UserError as error:
            raise ValueError(str(error)) from None

    @staticmethod
    def shared_folder(policies: str, run_name: str) -> str:
        """URL of a run's folder below `policies`."""
        return f"{policies.rstrip('/')}/{run_name}"

    @property
    def run_dir(self) -> Path:
        """The folder of checkpoints and the log of a run that is not a trial of a sweep."""
        return data_dir() / "runs" / self.run_name

    def run(self, report: Report, run_dir: Path | None = None) -> TrialResult:
        """Train, evaluate, and return the result. If a launcher started several ranks, only rank 0 evaluates.

        Args:
            report: called with the progress; returns whether to continue. A stopped run is not evaluated.
            run_dir: folder to use instead of `self.run_dir`.

        Raises:
            UserError: a policy of this game cannot play a simulation, the run of this name has other settings, or the
                URL for policies is not writable.
            TrainingDiverged, WorkerError: see `metta.rl.trainer.train`.
        """
        folder = run_dir or self.run_dir
        log = "train.log" if leads() else f"train.rank{os.environ['RANK']}.log"
        with log_to_file(folder / log):
            if not leads():
                return self._run(report, folder)
            if self.policies is not None:
                shared_files.require_writable(self.policies)
            with metrics_log(self.log, folder) as metrics:
                result = self._run(_logging(report, metrics), folder)
                metrics.write(int(result.metrics["agent_steps"]), result.metrics)
            return result if self.policies is None else self._shared(result, self.policies)

    def _shared(self, result: TrialResult, url: str) -> TrialResult:
        """The result, with its policy copied to the shared folder."""
        from metta.rl.checkpoint import share_policy

        policy = shared_files.local_path(result.artefacts["policy"])
        assert policy is not None
        shared = share_policy(policy, self.shared_folder(url, self.run_name))
        return replace(result, artefacts={**result.artefacts, "policy": shared})

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        """Run one attempt of a sweep's trial; see `metta.sweep.trial.RunTrial`.

        Raises:
            PeerLostError: this rank failed because another one did.
        """
        simulations = {"simulations": spec.simulations} if spec.simulations else {}
        tool = cls.model_validate({**spec.tool, **simulations})
        try:
            return tool.run(report, Path(spec.run_dir))
        except RuntimeError as error:
            from metta.rl.ranks import RankLostError

            if isinstance(error, RankLostError):
                raise PeerLostError(str(error)) from error
            raise

    @classmethod
    def _read_simulations(cls, simulations: Sequence[Any]) -> list[SimulationT]:
        """Convert simulations from JSON, or from the base class in which a sweep holds them."""
        kind: type[SimulationT]
        (kind,) = get_args(cls.model_fields["simulations"].annotation)
        dumped = [each.model_dump(mode="json") if type(each) is Config else each for each in simulations]
        return [each if isinstance(each, kind) else kind.model_validate(each) for each in dumped]

    def _chosen(self, simulations: Sequence[Config] | None) -> list[SimulationT]:
        """The simulations to evaluate: the given ones, or by default those of this Tool."""
        return self.simulations if simulations is None else self._read_simulations(simulations)

    def check_metric(self, metric: str, simulations: Sequence[Config] | None = None) -> None:
        """Check before training that a run measures `metric`.

        Raises:
            UserError: no run measures it; the message gives the nearest valid names.
        """
        names = self.metric_names(simulations)
        if metric not in names:
            raise UserError(f"no run measures the metric {metric!r}; {nearest(metric, names)}")

    def progress_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        """Every metric that a run reports while it trains, so that a sweep may watch it. By default any metric."""
        return self.metric_names(simulations)

    def check_progress_metric(self, metric: str, simulations: Sequence[Config] | None = None) -> None:
        """Check before training that a run reports `metric` while it trains.

        Raises:
            UserError: no run reports it then; the message gives the nearest valid names.
        """
        names = self.progress_names(simulations)
        if metric not in names:
            raise UserError(
                f"sweep.progress_metric={metric}: no run reports this metric while it trains; {nearest(metric, names)}"
            )

    @staticmethod
    def describe(metrics: Mapping[str, float]) -> str:
        """A short description of a run's metrics in the game's own terms."""
        return ""

    def invoke(self) -> int:
        if not leads():
            self.run(lambda progress: True)
            return 0
        console = Console()

        def notice(message: str) -> None:
            console.print(message, highlight=False, markup=False, soft_wrap=True)

        notice(
            f"{self.run_name}: training for {self.trainer.total_timesteps:,} agent steps; "
            f"the log and the policy are written to {self.run_dir}"
        )
        if sentence := destination(self._wandb).sentence:
            notice(sentence)
        try:
            with LiveDisplay(console, PLAIN_PROGRESS_SECONDS) as display, self._logged(notice) as training_log:

                def report(progress: Progress) -> bool:
                    line = _progress_line(progress, self.describe)
                    display.show(lambda: Text(line, "cyan", no_wrap=True, overflow="ellipsis"), lambda: [line])
                    training_log.report(progress)
                    return True

                result = self.run(report)
                training_log.end(result)
        except KeyboardInterrupt:
            again = f":\n  {self._entry_point.command()}" if self._entry_point else ""
            notice(f"\nstopped; the same command resumes from the last checkpoint{again}")
            return 130
        self._print_outcome(console, result)
        return 0

    def _logged(self, notice: Callable[[str], None]) -> AbstractContextManager[TrainingLog]:
        settings = self.model_dump(mode="json", exclude={"env", "simulations"})
        return logged_training(self._wandb, self.run_name, self.run_dir, settings, notice)

    @property
    def _wandb(self) -> WandbConfig:
        return self.wandb.model_copy(update={"enabled": True}) if self.log == "wandb" else self.wandb

    def _print_outcome(self, console: Console, result: TrialResult) -> None:
        metrics, policy = result.metrics, result.artefacts["policy"]
        console.print(
            f"trained {metrics['agent_steps']:,.0f} agent steps in {metrics['seconds']:.1f} s", highlight=False
        )
        if self.trainer.profile:
            console.print(f"  {profile_line(metrics, result.cost)}", highlight=False, soft_wrap=True)
        for simulation in self.simulations:
            console.print(f"  {self._evaluated(simulation, metrics)}", highlight=False)
        console.print(f"policy: {policy}", highlight=False, soft_wrap=True, markup=False)
        command = _evaluation_command(self._entry_point, policy)
        if command:
            console.print("to evaluate it again:")
            console.print(f"  {command}", highlight=False, soft_wrap=True, markup=False, style="bold")


def _logging(report: Report, metrics: MetricsLog) -> Report:
    """A report that also writes the metrics to a log."""

    def logged(progress: Progress) -> bool:
        metrics.write(progress.step, progress.metrics)
        return report(progress)

    return logged


def _progress_line(progress: Progress, describe: Callable[[Mapping[str, float]], str]) -> str:
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


def progress_reporter(report: Report) -> Callable[[TrainingProgress], bool]:
    """A callback for `train` that passes its progress to the report of a trial."""
    return lambda progress: report(Progress(progress.agent_steps, progress.total, progress.seconds, progress.metrics))


def _evaluation_command(entry_point: EntryPoint | None, policy_uri: str) -> str | None:
    """The command that evaluates a policy, if the Tool's module also has a function ``evaluate``.

    Arguments that both functions have, such as the environment, keep their values.
    """
    if entry_point is None:
        return None
    path = f"{entry_point.path.rpartition('.')[0]}.evaluate"
    try:
        taken = inspect.signature(load_target(path)).parameters
    except UserError:
        return None
    same = {name: text for name, text in entry_point.args.items() if name in taken}
    return EntryPoint(path=path, args={"policy_uri": policy_uri, **same}).command()
