"""Checks that the trainer is correct and fast on this machine's GPUs.

    python -m benchmarks.trainer.gpu

Needs `pip install .[train]` and a GPU. It takes about 40 s on an H100. It checks the following, and ends with exit
status 1 if a check fails:

- losses and gradient: of a minibatch, those of the CPU to a relative 1e-3;
- ranks: with several GPUs, one rank on each (over NCCL) has the weights of one rank after three updates, to 1e-3;

and measures agent steps per second on one GPU, next to those of this machine's cores with random actions.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from urllib.request import url2pathname

import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.trainer.run import raw_steps_per_second
from experiments.arena import make_env
from metta.rl.game import game_of
from metta.rl.plan import ENVIRONMENTS_PER_CORE_ON_GPU, MINIBATCH_ON_GPU
from metta.rl.ppo import MEASURES, AutogradLearner
from metta.rl.processes import usable_cores
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import Stopwatch
from metta.rl.trainer import TrainingResult, train
from metta.rl.trainer_config import PolicyConfig, PPOConfig, TrainerConfig

TOLERANCE = 1e-3
"""Relative tolerance; GPUs add in another order, and multiply matrices with fewer digits if that is allowed."""

RAW_SHARE = 0.8
MILLION = 1_000_000


def largest_difference(first: Tensor, second: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((first - second).abs().max() / second.abs().max())


def check_losses(env: MettaGridConfig, device: torch.device) -> dict[str, float]:
    """Differences between a GPU and the CPU in the measures of one minibatch, and in its gradient."""
    game = game_of(env)
    torch.manual_seed(0)
    policy, config = game.make_policy(PolicyConfig()), PPOConfig()
    with game.collector(policy, 8, 16, 0, [0], Ranks(), Stopwatch()) as collector:
        batch, _ = collector.collect(policy, config)
    indices = torch.arange(0, len(batch), 3)
    advantages = torch.randn(len(indices), generator=torch.Generator().manual_seed(0))
    expected = AutogradLearner(policy).loss_gradient(batch, indices, advantages, len(indices), config)
    learner, there = AutogradLearner(policy.to(device)), batch.to(device)
    actual = learner.loss_gradient(there, indices, advantages.to(device), len(indices), config).cpu()
    split = -len(MEASURES)
    return {
        "losses": largest_difference(actual[split:], expected[split:]),
        "gradient": largest_difference(actual[:split], expected[:split]),
    }


def trained(env: MettaGridConfig, **settings: object) -> TrainingResult:
    with tempfile.TemporaryDirectory() as run_dir:
        return train(TrainerConfig(device="cuda").update(settings), env, Path(run_dir))


def weights_after(env: MettaGridConfig, num_ranks: int) -> Tensor:
    """The weights after three updates."""
    config = TrainerConfig(device="cuda", total_timesteps=3 * 8_192, num_ranks=num_ranks)
    with tempfile.TemporaryDirectory() as run_dir:
        result = train(config, env, Path(run_dir))
        folder = Path(url2pathname(result.policy_uri.removeprefix("file://")))
        return torch.cat([tensor.flatten() for tensor in load_file(folder / "policy.safetensors").values()])


def speed(env: MettaGridConfig, steps: int) -> dict[str, float]:
    """Agent steps per second on one GPU with settings that keep it busy, and of this machine's cores alone."""
    settings = {
        "batch_size": 8 * MINIBATCH_ON_GPU,
        "minibatch_size": MINIBATCH_ON_GPU,
        "num_environments": ENVIRONMENTS_PER_CORE_ON_GPU * usable_cores(),
    }
    trained(env, total_timesteps=16 * MINIBATCH_ON_GPU, num_ranks=1, **settings)  # loads parts of torch and CUDA
    result = trained(env, total_timesteps=steps, num_ranks=1, **settings)
    raw = raw_steps_per_second(env)
    fast = result.metrics["agent_steps"] / result.seconds
    return {"raw": raw, "trainer": fast, "to reach": min(MILLION, RAW_SHARE * raw)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4_000_000, help="agent steps of the measured run")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here, so nothing was checked")
        return 1
    logging.disable(logging.WARNING)
    env, gpus = make_env(), torch.cuda.device_count()
    found: dict[str, object] = {"gpu": torch.cuda.get_device_name(), "gpus": gpus, "cores": usable_cores()}
    differences = check_losses(env, torch.device("cuda"))
    alone = weights_after(env, 1)
    if gpus > 1:
        differences["ranks"] = largest_difference(weights_after(env, gpus), alone)
    found["differences"] = differences
    found["speed"] = speed(env, arguments.steps)
    wrong = [name for name, difference in differences.items() if not difference <= TOLERANCE]
    print(json.dumps(found, indent=1))
    print(f"wrong: {', '.join(wrong)}" if wrong else "right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
