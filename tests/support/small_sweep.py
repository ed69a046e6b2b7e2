"""A sweep of real training that takes seconds."""

from __future__ import annotations

from metta.rl.trainer_config import TrainerConfig
from metta.sim.simulation_config import SimulationConfig
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.tools.sweep import SweepTool
from metta.tools.train import TrainTool
from tests.rl.small import small_env


def small_train(run_name: str, total_timesteps: int = 3_000) -> TrainTool:
    """Train on a small room, in this process."""
    return TrainTool(
        run_name=run_name,
        trainer=TrainerConfig(total_timesteps=total_timesteps, batch_size=1_024, num_workers=0, checkpoint_seconds=0.1),
        env=small_env(),
        simulations=[SimulationConfig(name="small/room", env=small_env(), num_episodes=2)],
    )


def small_sweep(sweep_name: str, num_trials: int = 2, total_timesteps: int = 3_000) -> SweepTool:
    """Sweep the learning rate and the clipping of `small_train`."""
    protein = ProteinConfig(
        metric="small",
        parameters={
            "trainer": {
                "optimizer": {"learning_rate": ParameterConfig(min=1e-4, max=1e-2, distribution="log_normal")},
                "ppo": {"clip_coef": ParameterConfig(min=0.1, max=0.3, distribution="uniform")},
            }
        },
    )

    def factory(run_name: str) -> TrainTool:
        return small_train(run_name, total_timesteps)

    return SweepTool(
        sweep=SweepConfig(num_trials=num_trials, protein=protein), sweep_name=sweep_name, train_tool_factory=factory
    )
