"""Search the hyperparameters of PPO on an environment of Gymnasium or PettingZoo."""

from __future__ import annotations

from experiments import gymnasium
from metta.common.config import Overrides
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.tools.gymnasium import GymnasiumTool
from metta.tools.sweep import SweepTool


def sweep(
    sweep_name: str,
    env_id: str = "CartPole-v1",
    num_trials: int = 20,
    metric: str = "evaluation",
    total_timesteps: int | None = None,
) -> SweepTool:
    """Sweep the optimiser's and PPO's hyperparameters on an environment.

    Unpromising trials are stopped early, and promising hyperparameters are repeated with other seeds.

    Args:
        sweep_name: the same name resumes or extends the sweep.
        env_id: the environment, see `metta.rl.gymnasium.config.GymnasiumConfig`.
        num_trials: the number of trials.
        metric: the metric to maximise; "evaluation" is the mean reward of evaluated episodes.
        total_timesteps: agent steps of each trial; by default those of `experiments.gymnasium`.
    """

    def make(run_name: str) -> GymnasiumTool:
        return gymnasium.train(env_id, run_name)

    protein = ProteinConfig(
        metric=metric,
        goal="maximize",
        parameters={
            "trainer": {
                "optimizer": {"learning_rate": ParameterConfig(min=1e-4, max=1e-2, distribution="log_normal")},
                "ppo": {
                    "clip_coef": ParameterConfig(min=0.1, max=0.3, distribution="uniform"),
                    "ent_coef": ParameterConfig(min=1e-5, max=0.03, distribution="log_normal"),
                    "gae_lambda": ParameterConfig(min=0.8, max=0.99, distribution="logit_normal"),
                    "gamma": ParameterConfig(min=0.8, max=0.999, distribution="logit_normal"),
                    "update_epochs": ParameterConfig(min=2, max=20, distribution="int_log_normal"),
                },
            }
        },
    )
    return SweepTool(
        sweep=SweepConfig(num_trials=num_trials, protein=protein, early_stopping="protein", seeds_per_trial="auto"),
        sweep_name=sweep_name,
        train_tool_factory=make,
        train_overrides=Overrides({} if total_timesteps is None else {"trainer.total_timesteps": total_timesteps}),
    )
