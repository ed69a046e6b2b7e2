"""TrainTool: train a policy of mettagrid and evaluate it. Torch is imported when training starts, not before."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from metta.common.config import Config
from metta.common.errors import UserError
from metta.common.files import write_whole
from metta.rl.launch import leads, start_fork_server
from metta.sim import metrics as simulation_metrics
from metta.sim.round_trip import EnvironmentConfig
from metta.sim.simulation_config import SimulationConfig
from metta.sim.stats import possible_stats
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import Report, TrialResult
from metta.tools.training import EVALUATION_SECONDS, TRAINING_METRICS, TrainingTool, progress_reporter
from metta.tools.traits import IN_GAMES
from metta.tools.watch import ReplayTool

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from metta.rl.environment import EnvironmentSpec
    from metta.rl.trainer import TrainingProgress
    from metta.sim.evaluation import Evaluation


class EvaluationConfig(Config):
    """Further evaluations and output, in addition to the metrics of the trained policy.

    Attributes:
        during_training: how often to evaluate the policy while it trains, at equal distances, so that a sweep can stop
            trials by the score itself (`sweep.progress_metric`). Its seconds are part of the training's, so of the
            cost.
        episodes_during_training: at most so many episodes of each simulation in these evaluations. If several ranks
            train together, one evaluation may take five minutes.
        gif: draw an episode of the last simulation, as the run's artefact ``gif``.
    """

    during_training: int = Field(default=0, ge=0)
    episodes_during_training: int = Field(default=8, ge=1)
    gif: bool = False


class TrainTool(TrainingTool[EnvironmentConfig, SimulationConfig]):
    """Trains a policy in a game of mettagrid and evaluates it; see `TrainingTool` for its other fields.

    Attributes:
        evaluation: further evaluations and output.
    """

    traits: ClassVar[ToolTraits] = IN_GAMES
    evaluation: EvaluationConfig = EvaluationConfig()

    def _run(self, report: Report, run_dir: Path) -> TrialResult:
        if self.trainer.num_ranks != 1:
            start_fork_server()
        from metta.rl.environment import EnvironmentSpec
        from metta.rl.player import require_compatible
        from metta.rl.trainer import train
        from metta.sim.league import require_opponents

        spec = EnvironmentSpec.of(self.env)
        for simulation in self.simulations:
            require_compatible(spec, EnvironmentSpec.of(simulation.env), f"simulation {simulation.name}")
            require_opponents(simulation)

        trained = train(self.trainer, self.env, run_dir, self._evaluating(progress_reporter(report), spec))
        absent = {f"train/{stat}": 0.0 for stat in _agent_stats(self)}
        metrics = {**absent, **trained.metrics}
        artefacts = {"policy": trained.policy_uri}
        if self.simulations and not trained.stopped and leads():
            evaluation = self._evaluate(trained.policy_uri)
            _write_episodes(run_dir / "episodes.json", evaluation)
            metrics |= evaluation.metrics() | {EVALUATION_SECONDS: evaluation.seconds}
            if self.evaluation.gif:
                artefacts["gif"] = self._draw_episode(trained.policy_uri, run_dir)
        return TrialResult(
            metrics=metrics,
            cost=trained.seconds,
            artefacts=artefacts,
            stopped=trained.stopped,
        )

    def _evaluating(
        self, report: Callable[[TrainingProgress], bool], spec: EnvironmentSpec
    ) -> Callable[[TrainingProgress], bool]:
        """The report, which also adds the metrics of the evaluations during training if there are any.

        Args:
            spec: of the environment that the policy is trained in.
        """
        times, most = self.evaluation.during_training, self.evaluation.episodes_during_training
        if not times:
            return report
        if not self.simulations:
            raise UserError(f"evaluation.during_training={times}, but there are no simulations to evaluate on")
        from metta.rl.player import PolicyPlayer
        from metta.rl.policy import Policy
        from metta.sim.evaluate import UnfinishedEvaluationError, evaluate

        simulations = [
            each.model_copy(update={"num_episodes": min(most, each.num_episodes)}) for each in self.simulations
        ]
        done = 0

        def evaluating(progress: TrainingProgress) -> bool:
            nonlocal done
            reached = min(times, progress.agent_steps * (times + 1) // progress.total)
            if reached > done:
                done = reached
                assert isinstance(progress.policy, Policy)
                progress.policy.eval()
                try:
                    evaluation = evaluate(PolicyPlayer(progress.policy, spec), simulations, cores=1)
                    seconds, metrics = progress.seconds + evaluation.seconds, progress.metrics | evaluation.metrics()
                    progress = replace(progress, seconds=seconds, metrics=metrics)
                except UnfinishedEvaluationError as error:
                    logger.warning("the evaluation after %d agent steps has no result: %s", progress.agent_steps, error)
                finally:
                    progress.policy.train()
            return report(progress)

        return evaluating

    def _evaluate(self, policy_uri: str) -> Evaluation:
        from metta.rl.checkpoint import load_policy
        from metta.sim.evaluate import evaluate

        return evaluate(load_policy(policy_uri), self.simulations)

    def _draw_episode(self, policy_uri: str, run_dir: Path) -> str:
        path = (run_dir / "episode.gif").absolute()
        ReplayTool(simulation=self.simulations[-1], policy_uri=policy_uri, to=path).write_gif()
        return path.as_uri()

    def metric_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        return self._evaluation_names(simulations) + self._training_names()

    def progress_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        evaluated = self._evaluation_names(simulations) if self.evaluation.during_training else []
        return evaluated + self._training_names()

    def check_progress_metric(self, metric: str, simulations: Sequence[Config] | None = None) -> None:
        if metric in self._evaluation_names(simulations) and not self.evaluation.during_training:
            raise UserError(
                f"sweep.progress_metric={metric}: it is measured when training has ended; "
                "train_overrides.evaluation.during_training=10 also measures it ten times during training"
            )
        super().check_progress_metric(metric, simulations)

    def _evaluation_names(self, simulations: Sequence[Config] | None) -> list[str]:
        chosen = self._chosen(simulations)
        return simulation_metrics.metric_names(chosen) if chosen else []

    def _training_names(self) -> list[str]:
        return [*TRAINING_METRICS, *(f"train/{stat}" for stat in _agent_stats(self))]

    def check_metric(self, metric: str, simulations: Sequence[Config] | None = None) -> None:
        if chosen := self._chosen(simulations):
            simulation_metrics.check_simulations(chosen)
        super().check_metric(metric, simulations)

    @staticmethod
    def describe(metrics: Mapping[str, float]) -> str:
        """The mean amount that an agent gained: ``per agent 8.2 ore, 5.1 battery, 2.5 heart``.

        It is measured in the evaluation if there is one, else in training.
        """
        evaluated, trained = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for name, value in metrics.items():
            source, _, stat = name.rpartition("/")
            if source and stat.endswith(".gained"):
                (evaluated if "/" in source else trained)[stat.removesuffix(".gained")].append(value)
        gained = {name: sum(values) / len(values) for name, values in (evaluated or trained).items()}
        amounts = ", ".join(f"{amount:.1f} {name}" for name, amount in gained.items() if amount >= 0.05)
        return f"per agent {amounts}" if amounts else ""

    def _evaluated(self, simulation: SimulationConfig, metrics: Mapping[str, float]) -> str:
        gained = ", ".join(
            f"{metrics[f'{simulation.name}/{name}.gained']:.2f} {name}" for name in simulation.env.game.resource_names
        )
        return (
            f"{simulation.name}: {simulation.score} [bold]{metrics[simulation.name]:.2f}[/bold]; "
            f"gained per agent: {gained}"
        )


def _write_episodes(path: Path, evaluation: Evaluation) -> None:
    """Write the stats of every episode, by simulation."""
    episodes = {result.simulation.name: result.episodes for result in evaluation.results}
    write_whole(path, json.dumps(episodes))


def _agent_stats(tool: TrainTool) -> list[str]:
    """The agents' stats that training measures."""
    return [stat for stat in possible_stats(tool.env) if not stat.startswith("game/") and stat not in TRAINING_METRICS]
