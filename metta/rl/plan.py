"""The plan of a run: its settings, fitted to its environment, its ranks and the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from metta.common.errors import UserError
from metta.rl.game import Game
from metta.rl.processes import usable_cores
from metta.rl.ranks import Ranks
from metta.rl.trainer_config import TrainerConfig, round_batch

FEW_UPDATES = 10

STEPS_PER_THREAD = 4_096
"""Agent steps that a thread computes together; with fewer, threads wait for each other longer than they compute."""

STEPS_PER_RANK = 512
"""Agent steps in a rank's part of a minibatch; with fewer, ranks wait for each other longer than they compute."""

ENVIRONMENTS_PER_RANK = 2

MINIBATCH_ON_GPU = 16_384
ENVIRONMENTS_PER_CORE_ON_GPU = 32
"""Agent steps in a minibatch of each GPU, and environments for each core that feeds it: with fewer, a GPU mostly waits.
On an H100 half as many steps in a minibatch take as long. Where workers play by the kernel, half as many environments
are as fast; more are for the policies that PyTorch plays, which was not measured. See docs/benchmarks.md."""


@dataclass(frozen=True)
class Plan:
    """The settings of a run, fitted to its environment.

    Attributes:
        updates: batches to learn from, in all attempts.
        num_environments: environments that step together.
        horizon: steps of each environment per batch.
        batch_size: agent steps per batch.
        minibatches: minibatches per pass over a batch; with memory each has at least all steps of an agent.
        num_workers: processes that step the environments of each rank.
        warnings: questionable settings.
    """

    updates: int
    num_environments: int
    horizon: int
    batch_size: int
    minibatches: int
    num_workers: int
    warnings: list[str]

    @classmethod
    def of(cls, config: TrainerConfig, game: Game, ranks: Ranks) -> Plan:
        """Fit the settings.

        Raises:
            UserError: there are more ranks than environments.
        """
        if ranks.size > config.num_environments:
            raise UserError(
                f"trainer.num_ranks: {ranks.size} ranks have only {config.num_environments} environments to share; "
                "raise trainer.num_environments"
            )
        spec = game.spec
        num_environments, horizon = round_batch(config.batch_size, spec.num_agents, config.num_environments, ranks.size)
        batch_size = num_environments * horizon * spec.num_agents
        segments = num_environments * spec.num_agents if config.policy.memory != "none" else batch_size
        updates = math.ceil(config.total_timesteps / config.batch_size)
        num_workers = config.num_workers
        if num_workers is None:
            num_workers = game.worthwhile_workers(num_environments // ranks.size, ranks.cores)
        return cls(
            updates=updates,
            num_environments=num_environments,
            horizon=horizon,
            batch_size=batch_size,
            minibatches=max(1, min(segments, round(batch_size / config.minibatch_size))),
            num_workers=min(num_workers, num_environments // ranks.size),
            warnings=_warnings(config, updates, batch_size, ranks),
        )

    @property
    def total(self) -> int:
        """Agent steps of the whole run."""
        return self.updates * self.batch_size

    @property
    def rollout(self) -> tuple[int, int, int]:
        """Environments, horizon and workers, for a collector."""
        return self.num_environments, self.horizon, self.num_workers

    def collect_threads(self, ranks: Ranks) -> int:
        """Threads that choose actions: one if worker processes step the environments, because they need the cores."""
        return 1 if self.num_workers else self._threads(self.batch_size // self.horizon, ranks)

    def update_threads(self, ranks: Ranks) -> int:
        """Threads that learn from minibatches."""
        return self._threads(self.batch_size // self.minibatches, ranks)

    @staticmethod
    def _threads(steps: int, ranks: Ranks) -> int:
        """The number of threads that pay off for a rank's part of this many agent steps."""
        return max(1, min(ranks.cores, steps // ranks.size // STEPS_PER_THREAD))

    def metrics(self) -> dict[str, float]:
        return {
            "batch_size": self.batch_size,
            "minibatch_size": self.batch_size / self.minibatches,
            "num_environments": self.num_environments,
            "horizon": self.horizon,
        }


def _warnings(config: TrainerConfig, updates: int, batch_size: int, ranks: Ranks) -> list[str]:
    warnings = []
    if updates < FEW_UPDATES:
        warnings.append(
            f"only {updates} updates: total_timesteps {config.total_timesteps:,} / batch_size "
            f"{config.batch_size:,}; a policy learns little in fewer than {FEW_UPDATES}"
        )
    if config.minibatch_size > batch_size:
        warnings.append(
            f"minibatch_size {config.minibatch_size:,} is more than the batch of {batch_size:,}, "
            "so each batch is one minibatch"
        )
    minibatch, environments = MINIBATCH_ON_GPU * ranks.size, ENVIRONMENTS_PER_CORE_ON_GPU * ranks.cores * ranks.size
    if computes_on_gpu(config) and (config.minibatch_size < minibatch or config.num_environments < environments):
        warnings.append(
            f"minibatch_size {config.minibatch_size:,} and {config.num_environments:,} environments leave a GPU mostly "
            f"idle; it is busy from about minibatch_size {minibatch:,} and num_environments {environments:,}"
        )
    return warnings


def computes_on_gpu(config: TrainerConfig) -> bool:
    return config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())


def device_of(config: TrainerConfig, ranks: Ranks) -> torch.device:
    """The device of this rank, made torch's current one.

    Raises:
        UserError: there are more ranks on this machine than GPUs.
    """
    if not computes_on_gpu(config):
        return torch.device("cpu")
    if ranks.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"trainer.num_ranks: rank {ranks.local_rank} of this machine has no GPU; "
            f"the machine has {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(ranks.local_rank)
    return torch.device("cuda", ranks.local_rank)


def worthwhile_ranks(config: TrainerConfig, game: Game, on_gpu: bool) -> int:
    """One rank for each GPU. On CPUs one, if it can use all cores; else one for each core that gets enough to do."""
    num_environments, _ = round_batch(config.batch_size, game.spec.num_agents, config.num_environments)
    if on_gpu:
        return min(max(1, torch.cuda.device_count()), num_environments)
    if game.uses_all_cores(config.policy):
        return 1
    by_minibatch = min(config.minibatch_size, config.batch_size) // STEPS_PER_RANK
    return max(1, min(usable_cores(), num_environments // ENVIRONMENTS_PER_RANK, by_minibatch))
