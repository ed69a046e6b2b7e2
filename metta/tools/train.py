"""TrainTool: train a policy and evaluate it. Torch is imported when the training starts, not before."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator
from rich.console import Console

from metta.common import shared_files
from metta.common.config import Config
from metta.common.data_dir import data_dir
from metta.common.entry_point import EntryPoint, load_target
from metta.common.errors import UserError, nearest
from metta.common.logging import log_to_file
from metta.common.tool import Tool
from metta.rl.launch import leads, prepare
from metta.rl.trainer_config import TrainerConfig
from metta.sim import metrics as simulation_metrics
from metta.sim.round_trip import EnvironmentConfig
from metta.sim.simulation_config import SimulationConfig
from metta.sim.stats import possible_stats
from metta.sweep.report.console import progress_line
from metta.sweep.report.live_lines import LiveLines
from metta.sweep.store.wandb_mirror.config import WandbConfig, destination
from metta.sweep.store.wandb_mirror.training import TrainingLog, logged_training
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec
from metta.tools.watch import ReplayTool

if TYPE_CHECKING:
    from metta.rl.trainer import TrainingProgress
    from metta.sim.evaluation import Evaluation

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
    "learning_rate",
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "grad_norm",
    "explained_variance",
)
"""Numbers that any run has, besides the stats of its game, ``train/<stat>``. `metta.rl.trainer.train` says more."""

PLAIN_PROGRESS_SECONDS = 10.0
"""Without a terminal, how often a run says how far it has come."""


class EvaluationConfig(Config):
    """What an evaluation leaves besides its metrics.

    Attributes:
        gif: draw an episode of the last simulation, as the run's artefact ``gif``.
    """

    gif: bool = False


class TrainTool(Tool):
    """Trains a policy and evaluates it.

    Attributes:
        run_name: the run's name and folder; the same name goes on from its checkpoint.
        trainer: hyperparameters.
        env: the game that is trained on.
        simulations: what the policy is evaluated on; none is possible.
        evaluation: what the evaluation leaves besides its metrics.
        policies: URL of a folder that other machines reach, to put the policy in: ``s3://bucket/folder``, or any other
            that fsspec writes to. Left out, it stays in the run's folder.
        wandb: whether and where to log a run that no sweep records.
    """

    run_name: str = Field(pattern=r"^[\w-][\w.-]{0,199}$")
    trainer: TrainerConfig = TrainerConfig()
    env: EnvironmentConfig
    simulations: list[SimulationConfig] = []
    evaluation: EvaluationConfig = EvaluationConfig()
    policies: str | None = Field(default=None, min_length=1)
    wandb: WandbConfig = Field(default_factory=WandbConfig)

    @field_validator("policies")
    @classmethod
    def _can_be_reached(cls, policies: str | None) -> str | None:
        try:
            return None if policies is None else shared_files.check_url(policies)
        except UserError as error:
            raise ValueError(str(error)) from None

    @staticmethod
    def shared_folder(policies: str, run_name: str) -> str:
        """URL of the folder below `policies` where a run puts its own."""
        return f"{policies.rstrip('/')}/{run_name}"

    @property
    def run_dir(self) -> Path:
        """Where checkpoints and the log are, when it is not a sweep that runs this."""
        return data_dir() / "runs" / self.run_name

    def run(self, report: Report, run_dir: Path | None = None) -> TrialResult:
        """Train, evaluate, and return what came of it. Of several ranks that a launcher started the first evaluates.

        Args:
            report: told of progress; answers whether to continue. Training that is stopped is not evaluated.
            run_dir: folder to use in place of `self.run_dir`.

        Raises:
            UserError: a simulation that a policy of this game cannot play, other settings under the same name, or a
                place for the policy that cannot be written to.
            TrainingDiverged, WorkerError: see `metta.rl.trainer.train`.
        """
        folder = run_dir or self.run_dir
        log = "train.log" if leads() else f"train.rank{os.environ['RANK']}.log"
        with log_to_file(folder / log):
            if self.policies is None or not leads():
                return self._run(report, folder)
            shared_files.require_writable(self.policies)
            return self._shared(self._run(report, folder), self.policies)

    def _shared(self, result: TrialResult, url: str) -> TrialResult:
        """The result, with its policy where other machines reach it."""
        from metta.rl.checkpoint import share_policy

        policy = shared_files.local_path(result.artefacts["policy"])
        assert policy is not None
        shared = share_policy(policy, self.shared_folder(url, self.run_name))
        return replace(result, artefacts={**result.artefacts, "policy": shared})

    def _run(self, report: Report, run_dir: Path) -> TrialResult:
        if self.trainer.num_ranks != 1:
            prepare()
        from metta.rl.actor import require_compatible
        from metta.rl.environment import EnvironmentSpec
        from metta.rl.trainer import train

        spec = EnvironmentSpec.of(self.env)
        for simulation in self.simulations:
            require_compatible(spec, EnvironmentSpec.of(simulation.env), f"simulation {simulation.name}")

        trained = train(self.trainer, self.env, run_dir, told_by_training(report))
        unseen = {f"train/{stat}": 0.0 for stat in _agent_stats(self)}
        metrics = {**unseen, **trained.metrics}
        artefacts = {"policy": trained.policy_uri}
        if self.simulations and not trained.stopped and leads():
            evaluation = self._evaluate(trained.policy_uri)
            _write_episodes(run_dir / "episodes.json", evaluation)
            metrics |= evaluation.metrics()
            if self.evaluation.gif:
                artefacts["gif"] = self._draw_episode(trained.policy_uri, run_dir)
        return TrialResult(
            metrics=metrics,
            cost=trained.seconds,
            artefacts=artefacts,
            stopped=trained.stopped,
        )

    def _evaluate(self, policy_uri: str) -> Evaluation:
        from metta.rl.checkpoint import load_policy
        from metta.sim.evaluate import evaluate

        return evaluate(load_policy(policy_uri), self.simulations)

    def _draw_episode(self, policy_uri: str, run_dir: Path) -> str:
        path = (run_dir / "episode.gif").absolute()
        ReplayTool(simulation=self.simulations[-1], policy_uri=policy_uri, to=path).write_gif()
        return path.as_uri()

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        """Run one attempt of a sweep's trial; see `metta.sweep.trial.RunTrial`."""
        tool = cls.model_validate(spec.tool)
        if spec.simulations:
            tool.simulations = [SimulationConfig.model_validate(simulation) for simulation in spec.simulations]
        return tool.run(report, Path(spec.run_dir))

    def metric_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        """Every metric that a sweep of this Tool may aim at: those of the evaluation first, then the training's.

        Args:
            simulations: what is evaluated in place of `self.simulations`.
        """
        chosen = self.simulations if simulations is None else _validated(simulations)
        training = [*TRAINING_METRICS, *(f"train/{stat}" for stat in _agent_stats(self))]
        return (simulation_metrics.metric_names(chosen) if chosen else []) + training

    def check_metric(self, metric: str, simulations: Sequence[Config] | None = None) -> None:
        """Check before anything trains that a run will measure `metric`.

        Raises:
            UserError: it will not; the message gives the nearest valid names.
        """
        chosen = self.simulations if simulations is None else _validated(simulations)
        if chosen:
            simulation_metrics.check_simulations(chosen)
        names = self.metric_names(chosen)
        if metric not in names:
            raise UserError(f"no run measures the metric {metric!r}; {nearest(metric, names)}")

    @staticmethod
    def describe(metrics: Mapping[str, float]) -> str:
        """What a run's metrics say in the game's own terms: ``per agent 8.2 ore, 5.1 battery, 2.5 heart``.

        Evaluated episodes count if there are any, else those of the training.
        """
        evaluated, trained = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for name, value in metrics.items():
            place, _, stat = name.rpartition("/")
            if place and stat.endswith(".gained"):
                (evaluated if "/" in place else trained)[stat.removesuffix(".gained")].append(value)
        gained = {name: sum(values) / len(values) for name, values in (evaluated or trained).items()}
        amounts = ", ".join(f"{amount:.1f} {name}" for name, amount in gained.items() if amount >= 0.05)
        return f"per agent {amounts}" if amounts else ""

    def invoke(self) -> int:
        if not leads():
            self.run(lambda progress: True)
            return 0
        console = Console()

        def notice(message: str) -> None:
            console.print(message, highlight=False, markup=False, soft_wrap=True)

        notice(
            f"{self.run_name}: training for {self.trainer.total_timesteps:,} agent steps; "
            f"log and policy go to {self.run_dir}"
        )
        if sentence := destination(self.wandb).sentence:
            notice(sentence)
        try:
            with LiveLines(console, PLAIN_PROGRESS_SECONDS) as lines, self._logged(notice) as training_log:

                def report(progress: Progress) -> bool:
                    lines.show(self.run_name, progress_line(progress, self.describe))
                    training_log.report(progress)
                    return True

                result = self.run(report)
                training_log.end(result)
        except KeyboardInterrupt:
            again = f":\n  {self._entry_point.command()}" if self._entry_point else ""
            notice(f"\nstopped; the same command goes on from the last checkpoint{again}")
            return 130
        self._print_outcome(console, result)
        return 0

    def _logged(self, notice: Callable[[str], None]) -> AbstractContextManager[TrainingLog]:
        settings = self.model_dump(mode="json", exclude={"env", "simulations"})
        return logged_training(self.wandb, self.run_name, self.run_dir, settings, notice)

    def _print_outcome(self, console: Console, result: TrialResult) -> None:
        metrics, policy = result.metrics, result.artefacts["policy"]
        console.print(
            f"trained {metrics['agent_steps']:,.0f} agent steps in {metrics['seconds']:.1f} s", highlight=False
        )
        for simulation in self.simulations:
            gained = ", ".join(
                f"{metrics[f'{simulation.name}/{name}.gained']:.2f} {name}"
                for name in simulation.env.game.resource_names
            )
            console.print(
                f"  {simulation.name}: {simulation.score} [bold]{metrics[simulation.name]:.2f}[/bold]; "
                f"gained per agent: {gained}",
                highlight=False,
            )
        console.print(f"policy: {policy}", highlight=False, soft_wrap=True, markup=False)
        command = _evaluation_command(self._entry_point, policy)
        if command:
            console.print("to evaluate it again:")
            console.print(f"  {command}", highlight=False, soft_wrap=True, markup=False, style="bold")


def told_by_training(report: Report) -> Callable[[TrainingProgress], bool]:
    """What training calls, to tell `report` in the words of a trial."""
    return lambda progress: report(Progress(progress.agent_steps, progress.total, progress.seconds, progress.metrics))


def _write_episodes(path: Path, evaluation: Evaluation) -> None:
    """Keep the stats of every episode that was played, by simulation."""
    episodes = {result.simulation.name: result.episodes for result in evaluation.results}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(episodes))
    temporary.replace(path)


def _agent_stats(tool: TrainTool) -> list[str]:
    """The stats of the game's agents, which training measures."""
    return [stat for stat in possible_stats(tool.env) if not stat.startswith("game/") and stat not in TRAINING_METRICS]


def _validated(simulations: Sequence[Config]) -> list[SimulationConfig]:
    """Simulations as they are, or out of the base class that a sweep knows them by."""
    return [
        simulation
        if isinstance(simulation, SimulationConfig)
        else SimulationConfig.model_validate(simulation.model_dump(mode="json"))
        for simulation in simulations
    ]


def _evaluation_command(entry_point: EntryPoint | None, policy_uri: str) -> str | None:
    """The command that evaluates a policy, if the module that made the TrainTool has an ``evaluate`` too."""
    if entry_point is None:
        return None
    path = f"{entry_point.path.rpartition('.')[0]}.evaluate"
    try:
        load_target(path)
    except UserError:
        return None
    return EntryPoint(path=path, args={"policy_uri": policy_uri}).command()
