"""Search the hyperparameters of PPO on the arena, including those that determine the cost of a trial."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from experiments import arena
from metta.common.config import Overrides
from metta.sweep.distributions import Distribution
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.tools.sweep import SweepTool


@dataclass(frozen=True)
class Sizes:
    """The size of trials on a kind of machine.

    Attributes:
        batch, minibatch, timesteps: smallest and largest, in agent steps.
        defaults: initial values of the trainer, if its own are meant for another kind of machine.
        seconds: mean training time per trial; the sweep's budget is this times the number of trials.
    """

    batch: tuple[int, int]
    minibatch: tuple[int, int]
    timesteps: tuple[int, int]
    defaults: dict[str, Any]
    seconds: float


CPU = Sizes((4_096, 32_768), (512, 4_096), (100_000, 10_000_000), {}, seconds=24.0)
"""On two CPU cores 20 trials take about ten minutes, with their evaluations."""

GPU = Sizes(
    (65_536, 1_048_576),
    (8_192, 131_072),
    (5_000_000, 100_000_000),
    {"trainer.batch_size": 131_072, "trainer.minibatch_size": 16_384, "trainer.total_timesteps": 20_000_000},
    seconds=110.0,
)
"""By the speed measured on an H100 with 16 cores, the defaults train for about 45 s. No such sweep was run yet."""

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files of the drivers of NVIDIA, AMD, and Windows Subsystem for Linux."""


def sweep_optimizer(
    sweep_name: str,
    num_trials: int = 10,
    metric: str = "arena",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    combat: bool = False,
    min_batch_size: int | None = None,
    max_batch_size: int | None = None,
    total_timesteps: int | None = None,
) -> SweepTool:
    """Sweep the optimiser's and PPO's hyperparameters, the width of the network and the length of the training.

    Unpromising trials are stopped early, and promising hyperparameters are repeated with other seeds. The budget
    grows with the number of trials.

    Args:
        sweep_name: the same name resumes or extends the sweep.
        num_trials: the number of trials.
        metric: the metric to maximise: "arena", "arena/combat", a game stat such as "arena/basic/heart.gained", ...
        device: the kind of machine to size the trials for; "auto" looks for a GPU.
        combat: whether agents attack each other in training.
        min_batch_size, max_batch_size: range of the batch size, in agent steps; by default it depends on the device.
        total_timesteps: agent steps of each trial; by default they are searched, within a budget of seconds.
    """
    sizes = GPU if device == "cuda" or (device == "auto" and _has_gpu()) else CPU
    batch = (min_batch_size or sizes.batch[0], max_batch_size or sizes.batch[1])
    fixed = {} if total_timesteps is None else {"trainer.total_timesteps": total_timesteps}
    trainer, constraints = _parameters(sizes, batch), []
    if total_timesteps is None:
        trainer["total_timesteps"] = _between(sizes.timesteps, "int_log_normal")
        constraints = ["total_timesteps >= 10 * batch_size"]  # a policy learns little in fewer than ten updates
    return SweepTool(
        sweep=SweepConfig(
            num_trials=num_trials,
            protein=ProteinConfig(
                metric=metric, goal="maximize", parameters={"trainer": trainer}, constraints=constraints
            ),
            max_cost=sizes.seconds * num_trials if total_timesteps is None else None,
            early_stopping="protein",
            seeds_per_trial="auto",
        ),
        sweep_name=sweep_name,
        train_tool_factory=partial(arena.train, combat=combat),
        train_overrides=Overrides({**sizes.defaults, **fixed}),
    )


def _parameters(sizes: Sizes, batch: tuple[int, int]) -> dict[str, Any]:
    """The searched parameters of the trainer, except the length of the training. The ranges contain its defaults."""
    return {
        "optimizer": {"learning_rate": _between((5e-4, 3e-2), "log_normal")},
        "ppo": {
            "clip_coef": _between((0.05, 0.4), "uniform"),
            "ent_coef": _between((2e-4, 3e-2), "log_normal"),
            "gae_lambda": _between((0.6, 0.98), "uniform"),
            "gamma": _between((0.9, 0.995), "logit_normal"),
            "update_epochs": _between((1, 4), "int_uniform"),
        },
        "policy": {"hidden_size": _between((32, 256), "uniform_pow2")},
        "batch_size": _between(batch, "int_log_normal"),
        "minibatch_size": _between(sizes.minibatch, "uniform_pow2"),
    }


def _between(bounds: tuple[float, float], distribution: Distribution) -> ParameterConfig:
    return ParameterConfig(min=bounds[0], max=bounds[1], distribution=distribution)


def _has_gpu() -> bool:
    """Whether torch finds a GPU. Importing torch takes seconds, so it is imported only if there are signs of a GPU."""
    if shutil.which("nvidia-smi") is None and not any(Path(device).exists() for device in GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()
