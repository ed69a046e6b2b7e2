"""GymnasiumTool: train a policy on an environment of Gymnasium or PettingZoo, and evaluate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator

from metta.common.config import Config
from metta.common.console import Console
from metta.common.tool import Tool
from metta.rl.gymnasium.config import GymnasiumConfig, GymnasiumSimulation
from metta.rl.launch import leads, start_fork_server
from metta.sweep.trial import Report, TrialResult
from metta.tools.training import TRAINING_METRICS, TrainingTool, progress_reporter

_OF_SIMULATION = ("", ".stderr", ".episodes", "/episode_length")


class GymnasiumTool(TrainingTool[GymnasiumConfig, GymnasiumSimulation]):
    """Trains a policy on an environment of Gymnasium or PettingZoo, with the same PPO as `TrainTool`, and evaluates it.

    Its fields are those of `TrainingTool`.
    """

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [simulation.name for simulation in self.simulations]
        if twice := sorted({name for name in names if names.count(name) > 1 or name in TRAINING_METRICS}):
            raise ValueError(f"simulations: the name {twice[0]!r} is already used")
        return self

    def _run(self, report: Report, run_dir: Path) -> TrialResult:
        if self.trainer.num_ranks != 1:
            start_fork_server()
        from metta.rl.gymnasium.environments import spec_of
        from metta.rl.gymnasium.evaluate import evaluate, evaluation_metrics, load_policy, require_playable
        from metta.rl.trainer import train

        spec = spec_of(self.env)
        for simulation in self.simulations:
            require_playable(spec, spec_of(simulation.env), f"simulation {simulation.name}")

        trained = train(self.trainer, self.env, run_dir, progress_reporter(report))
        metrics = dict(trained.metrics)
        if not trained.stopped and leads():
            for simulation in self.simulations:
                metrics |= evaluation_metrics(simulation.name, evaluate(*load_policy(trained.policy_uri), simulation))
        return TrialResult(metrics, trained.seconds, {"policy": trained.policy_uri}, stopped=trained.stopped)

    def metric_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        evaluated = [
            f"{simulation.name}{suffix}"
            for simulation in self._chosen(simulations)
            for suffix in _OF_SIMULATION
            if suffix != ".stderr" or simulation.num_episodes > 1
        ]
        return evaluated + list(TRAINING_METRICS)

    def progress_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        return list(TRAINING_METRICS)

    @staticmethod
    def describe(metrics: Mapping[str, float]) -> str:
        """The mean length of episodes in training."""
        return f"episodes of {metrics['episode_length']:.0f} steps" if "episode_length" in metrics else ""

    def _evaluated(self, simulation: GymnasiumSimulation, metrics: Mapping[str, float]) -> str:
        return _line(simulation.name, metrics)


class GymnasiumSimTool(Tool):
    """Evaluates a policy that `GymnasiumTool` trained.

    Attributes:
        policy_uri: ``file://`` URI or path of a checkpoint's folder.
        simulation: the environment and episodes to play.
    """

    policy_uri: str
    simulation: GymnasiumSimulation

    def invoke(self) -> int:
        from metta.rl.gymnasium.evaluate import evaluate, evaluation_metrics, load_policy

        name = self.simulation.name
        metrics = evaluation_metrics(name, evaluate(*load_policy(self.policy_uri), self.simulation))
        Console().print(_line(name, metrics), highlight=False)
        return 0


def _line(name: str, metrics: Mapping[str, float]) -> str:
    error = f" ± {metrics[f'{name}.stderr']:.2f}" if f"{name}.stderr" in metrics else ""
    return (
        f"{name}: reward [bold]{metrics[name]:.2f}[/bold]{error} over {metrics[f'{name}.episodes']:.0f} episodes "
        f"of {metrics[f'{name}/episode_length']:.0f} steps"
    )
