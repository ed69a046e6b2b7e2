"""GymnasiumTool: train a policy on an environment of Gymnasium or PettingZoo, and evaluate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator
from rich.console import Console

from metta.common.config import Config
from metta.common.errors import UserError, nearest
from metta.common.tool import Tool
from metta.rl.gymnasium.config import GymnasiumConfig, GymnasiumSimulation
from metta.rl.launch import leads, prepare
from metta.sweep.trial import Report, TrialResult, TrialSpec
from metta.tools.train import TRAINING_METRICS, TrainTool, told_by_training

_OF_SIMULATION = ("", ".stderr", ".episodes", "/episode_length")


class GymnasiumTool(TrainTool):
    """Trains a policy by the same PPO as `TrainTool`, on an environment of Gymnasium or PettingZoo.

    Attributes:
        env: the environment that is trained on.
        simulations: what the policy is evaluated on; none is possible.
    """

    env: GymnasiumConfig  # type: ignore[assignment]
    simulations: list[GymnasiumSimulation] = []  # type: ignore[assignment]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.trainer.num_workers:
            raise ValueError("trainer.num_workers: environments of Gymnasium step within their rank; leave it out")
        if self.evaluation.gif:
            raise ValueError("evaluation.gif: only episodes of mettagrid can be drawn")
        names = [simulation.name for simulation in self.simulations]
        if twice := sorted({name for name in names if names.count(name) > 1 or name in TRAINING_METRICS}):
            raise ValueError(f"simulations: the name {twice[0]!r} is taken")
        return self

    def _run(self, report: Report, run_dir: Path) -> TrialResult:
        if self.trainer.num_ranks != 1:
            prepare()
        from metta.rl.gymnasium.evaluate import evaluate, evaluation_metrics, load_policy, require_playable
        from metta.rl.gymnasium.game import spec_of
        from metta.rl.trainer import train

        spec = spec_of(self.env)
        for simulation in self.simulations:
            require_playable(spec, spec_of(simulation.env), f"simulation {simulation.name}")

        trained = train(self.trainer, self.env, run_dir, told_by_training(report))
        metrics = dict(trained.metrics)
        if not trained.stopped and leads():
            for simulation in self.simulations:
                metrics |= evaluation_metrics(simulation.name, evaluate(*load_policy(trained.policy_uri), simulation))
        return TrialResult(metrics, trained.seconds, {"policy": trained.policy_uri}, stopped=trained.stopped)

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        """Run one attempt of a sweep's trial; see `metta.sweep.trial.RunTrial`."""
        tool = cls.model_validate(spec.tool)
        if spec.simulations:
            tool.simulations = [GymnasiumSimulation.model_validate(simulation) for simulation in spec.simulations]
        return tool.run(report, Path(spec.run_dir))

    def metric_names(self, simulations: Sequence[Config] | None = None) -> list[str]:
        chosen = self.simulations if simulations is None else _validated(simulations)
        evaluated = [
            f"{simulation.name}{suffix}"
            for simulation in chosen
            for suffix in _OF_SIMULATION
            if suffix != ".stderr" or simulation.num_episodes > 1
        ]
        return evaluated + list(TRAINING_METRICS)

    def check_metric(self, metric: str, simulations: Sequence[Config] | None = None) -> None:
        names = self.metric_names(simulations)
        if metric not in names:
            raise UserError(f"no run measures the metric {metric!r}; {nearest(metric, names)}")

    @staticmethod
    def describe(metrics: Mapping[str, float]) -> str:
        """How long an episode is in training."""
        return f"episodes of {metrics['episode_length']:.0f} steps" if "episode_length" in metrics else ""

    def _print_outcome(self, console: Console, result: TrialResult) -> None:
        metrics = result.metrics
        console.print(
            f"trained {metrics['agent_steps']:,.0f} agent steps in {metrics['seconds']:.1f} s", highlight=False
        )
        for simulation in self.simulations:
            console.print(f"  {_line(simulation.name, metrics)}", highlight=False)
        console.print(f"policy: {result.artefacts['policy']}", highlight=False, soft_wrap=True, markup=False)


class GymnasiumSimTool(Tool):
    """Evaluates a policy that `GymnasiumTool` trained.

    Attributes:
        policy_uri: ``file://`` URI or path of a checkpoint's folder.
        simulation: what to play.
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


def _validated(simulations: Sequence[Config]) -> list[GymnasiumSimulation]:
    """Simulations as they are, or out of the base class that a sweep knows them by."""
    return [
        simulation
        if isinstance(simulation, GymnasiumSimulation)
        else GymnasiumSimulation.model_validate(simulation.model_dump(mode="json"))
        for simulation in simulations
    ]
