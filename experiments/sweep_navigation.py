"""Search the hyperparameters of PPO on navigation, at equal agent steps."""

from __future__ import annotations

from experiments import navigation
from metta.common.config import Overrides
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.tools.sweep import SweepTool


def sweep(
    sweep_name: str, num_trials: int = 12, metric: str = "navigation", total_timesteps: int = 300_000
) -> SweepTool:
    """Sweep the optimiser's and PPO's hyperparameters on navigation.

    Unpromising trials are stopped early, and promising hyperparameters are repeated with other seeds.

    Args:
        sweep_name: the same name resumes or extends the sweep.
        num_trials: the number of trials.
        metric: the metric to maximise; "navigation" is the mean number of hearts that an agent gains.
        total_timesteps: agent steps of each trial.
    """
    protein = ProteinConfig(
        metric=metric,
        goal="maximize",
        parameters={
            "trainer": {
                "optimizer": {"learning_rate": ParameterConfig(min=5e-4, max=3e-2, distribution="log_normal")},
                "ppo": {
                    "clip_coef": ParameterConfig(min=0.05, max=0.4, distribution="uniform"),
                    "ent_coef": ParameterConfig(min=2e-4, max=3e-2, distribution="log_normal"),
                    "gae_lambda": ParameterConfig(min=0.6, max=0.98, distribution="uniform"),
                    "gamma": ParameterConfig(min=0.8, max=0.99, distribution="logit_normal"),
                    "update_epochs": ParameterConfig(min=1, max=8, distribution="int_log_normal"),
                },
                "minibatch_size": ParameterConfig(min=256, max=2_048, distribution="uniform_pow2"),
            }
        },
    )
    return SweepTool(
        sweep=SweepConfig(num_trials=num_trials, protein=protein, early_stopping="protein", seeds_per_trial="auto"),
        sweep_name=sweep_name,
        train_tool_factory=navigation.train,
        train_overrides=Overrides({"trainer.total_timesteps": total_timesteps}),
    )
