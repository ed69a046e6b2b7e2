"""Search the hyperparameters of PPO on the arena."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from experiments import arena
from metta.common.config import Overrides
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.tools.sweep import SweepTool

GPU = {"min_batch_size": 65_536, "max_batch_size": 1_048_576, "total_timesteps": 50_000_000}
CPU = {"min_batch_size": 4_096, "max_batch_size": 32_768, "total_timesteps": 400_000}
"""Sizes of a trial on either kind of machine. On two CPU cores 20 trials take about three minutes."""

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files of the drivers of NVIDIA, AMD, and Windows Subsystem for Linux."""


def sweep_optimizer(
    sweep_name: str,
    num_trials: int = 10,
    metric: str = "arena",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    min_batch_size: int | None = None,
    max_batch_size: int | None = None,
    total_timesteps: int | None = None,
) -> SweepTool:
    """Sweep the optimiser's and PPO's hyperparameters on the arena.

    Args:
        sweep_name: the same name resumes or extends the sweep.
        num_trials: trials in all.
        metric: what to maximise: "arena", "arena/combat", a game stat such as "arena/basic/heart.gained", ...
        device: the kind of machine to size the trials for; "auto" looks for a GPU.
        min_batch_size, max_batch_size: range of the batch size, in agent steps; by default it depends on the device.
        total_timesteps: agent steps of each trial; by default it depends on the device.
    """
    sizes = GPU if device == "cuda" or (device == "auto" and _has_gpu()) else CPU
    chosen = {"min_batch_size": min_batch_size, "max_batch_size": max_batch_size, "total_timesteps": total_timesteps}
    sizes = {name: sizes[name] if value is None else value for name, value in chosen.items()}
    protein = ProteinConfig(
        metric=metric,
        goal="maximize",
        parameters={
            "trainer": {
                "optimizer": {"learning_rate": ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal")},
                "ppo": {
                    "clip_coef": ParameterConfig(min=0.05, max=0.3, distribution="uniform"),
                    "ent_coef": ParameterConfig(min=0.0001, max=0.01, distribution="log_normal"),
                    "gae_lambda": ParameterConfig(min=0.8, max=0.99, distribution="uniform"),
                },
                "batch_size": ParameterConfig(
                    min=sizes["min_batch_size"], max=sizes["max_batch_size"], distribution="int_uniform"
                ),
            }
        },
    )
    return SweepTool(
        sweep=SweepConfig(num_trials=num_trials, protein=protein),
        sweep_name=sweep_name,
        train_tool_factory=arena.train,
        train_overrides=Overrides({"trainer.total_timesteps": sizes["total_timesteps"]}),
    )


def _has_gpu() -> bool:
    """Whether torch finds a GPU. Importing torch takes seconds, so it is imported only if there are signs of a GPU."""
    if shutil.which("nvidia-smi") is None and not any(Path(device).exists() for device in GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()
