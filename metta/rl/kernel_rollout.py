"""Collecting experience by the compiled kernel: the twin of `metta.rl.rollout` for the default policy.

The policy plays on the CPU even if it learns on a GPU. Its network is small, so that a worker computes an action about
as fast as its environment steps, while a GPU would have to be asked at every step.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metta.rl.batch_player import BatchPlan, BatchPlayer, Experience
from metta.rl.environment import EnvironmentSpec
from metta.rl.episodes import EpisodeSeeds
from metta.rl.kernel.functions import TokenTables
from metta.rl.kernel.network import KernelNetwork, sizes_of
from metta.rl.policy import Policy
from metta.rl.ppo import Batch, generalized_advantages
from metta.rl.shared_arrays import allocate
from metta.rl.stopwatch import Stopwatch
from metta.rl.tokens import TokenBatch, Vocabulary
from metta.rl.trainer_config import PPOConfig
from metta.rl.worker_pool import WorkerPool


class KernelCollector:
    """Plays `horizon` steps in every environment per batch, in worker processes; see `metta.rl.batch_player`.

    Its batches are those of `MettagridCollector`, apart from how sums of floats are rounded.

    Args:
        policy: the default one, which plays.
        seeds: of the episodes of all environments.
        action_seeds: fixes the actions in each environment of this rank.
        horizon: steps of each environment per batch.
        num_workers: processes to start; 0 plays in this process.
        stopwatch: measures how long the environments step and actions are chosen.
        first_batch: batches that were collected before, by the run that this one continues.
    """

    def __init__(
        self,
        policy: Policy,
        seeds: EpisodeSeeds,
        action_seeds: Sequence[Sequence[int]],
        horizon: int,
        num_workers: int,
        stopwatch: Stopwatch,
        first_batch: int = 0,
    ) -> None:
        spec = EnvironmentSpec.of(seeds.config)
        self._player = policy if policy.device.type == "cpu" else copy.deepcopy(policy).cpu()
        plan = BatchPlan(horizon, spec, sizes_of(self._player), seeds, action_seeds)
        memory = allocate(plan.fields())
        self._experience = plan.experience(memory)
        for name in TokenTables.fields():
            getattr(self._experience.tables, name)[:] = getattr(Vocabulary(spec).tables, name)
        self._network = KernelNetwork(self._player, packed=self._experience.packed)
        self._stopwatch = stopwatch
        self._batch = first_batch
        self.reward_per_step = 0.0
        self.at_reset = False
        environments = range(len(action_seeds))
        members = [environments[worker::num_workers] for worker in range(num_workers)]
        self._local = None if members else BatchPlayer(plan, memory, environments)
        self._pool = WorkerPool(BatchPlayer, [(plan, memory, own) for own in members], name="environments")
        self._started = False

    @torch.no_grad()
    def collect(self, policy: Policy, config: PPOConfig) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and estimate the advantage of every action; see `metta.rl.game.Collector`."""
        if policy is not self._player:
            self._player.load_state_dict(policy.state_dict())
        self._network.pack()
        self._experience.final_values[:] = 0
        with self._stopwatch.measure("stepping"):
            episodes = self._play(self._batch.to_bytes(8, "big"))
        self._batch += 1
        experience = self._experience
        self.reward_per_step = float(experience.rewards.mean())
        self.at_reset = bool((experience.terminals | experience.truncations)[:, -1].all())
        return _batch(experience, config).to(policy.device), episodes

    def _play(self, request: bytes) -> list[dict[str, float]]:
        if self._local is not None:
            return self._local(request)
        if not self._started:
            self._pool.receive()
            self._started = True
        self._pool.send(request)
        return list(itertools.chain(*self._pool.receive()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()


def _batch(experience: Experience, config: PPOConfig) -> Batch:
    """The batch to learn from, with advantages by GAE."""
    values, following = experience.values[:, :-1], experience.values[:, 1:]
    following = np.where(experience.truncations, experience.final_values, following)
    following = np.where(experience.terminals, np.float32(0), following)
    ended = experience.terminals | experience.truncations
    advantages = generalized_advantages(
        experience.rewards.swapaxes(0, 1),
        values.swapaxes(0, 1),
        following.swapaxes(0, 1),
        ended.swapaxes(0, 1),
        config.gamma,
        config.gae_lambda,
    ).swapaxes(0, 1)
    return Batch(
        observations=_tokens(experience),
        actions=torch.from_numpy(experience.actions.flatten()),
        log_probs=_flat(experience.log_probs),
        values=_flat(values),
        advantages=_flat(advantages),
        returns=_flat(advantages + values),
    )


def _tokens(experience: Experience) -> TokenBatch:
    counts = experience.offsets[:, -1]
    rows, weights = (
        np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])
        for parts in (experience.rows, experience.weights)
    )
    firsts = np.cumsum(counts, dtype=np.int32) - counts
    offsets = np.append(experience.offsets[:, :-1] + firsts[:, None], counts.sum(dtype=np.int32))
    return TokenBatch(torch.from_numpy(rows), torch.from_numpy(weights), torch.from_numpy(offsets))


def _flat(values: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(values.flatten())
