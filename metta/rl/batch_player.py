"""Plays a batch of experience by the compiled kernel, in worker processes that do not import torch.

Each environment plays through the whole batch before the next one begins. So its game stays in the CPU's caches, and
workers wait for each other once per batch instead of at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metta.rl.environment import Buffers, EnvironmentSpec
from metta.rl.episodes import EpisodeSeeds, EpisodicEnvironment
from metta.rl.kernel.functions import Encoder, NetworkSizes, PackedNetwork, Seat, TokenTables
from metta.rl.shared_arrays import Field, Memory, arrays_on

_RECORDED = ("rows", "weights", "offsets", "actions", "log_probs", "values", "rewards", "terminals", "truncations")


@dataclass(frozen=True)
class Experience:
    """What happened in a batch.

    Attributes:
        rows, weights: int32 and float32 [environments, most tokens], those of the observations one after the other.
        offsets: int32 [environments, observations + 1]; see `metta.rl.tokens.TokenBatch`.
        actions: int64 [environments, steps, agents]; the arrays after it have the same axes.
        log_probs: float32, of the actions.
        values: float32, of the observations; along the steps there is one more, after the last.
        final_values: float32, of the last observations of an episode that was truncated at this step, else 0.
        rewards, terminals, truncations: what followed the actions.
        packed: float32, the policy's weights; see `PackedNetwork`.
        token_weights, token_channels, token_has_place, token_first_rows: see `TokenTables`.
    """

    rows: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int32]
    actions: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]
    final_values: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    packed: npt.NDArray[np.float32]
    token_weights: npt.NDArray[np.float32]
    token_channels: npt.NDArray[np.int32]
    token_has_place: npt.NDArray[np.int32]
    token_first_rows: npt.NDArray[np.int32]

    @property
    def tables(self) -> TokenTables:
        """The vocabulary's. In shared memory, because large arguments delay the start of a worker."""
        return TokenTables(self.token_weights, self.token_channels, self.token_has_place, self.token_first_rows)


@dataclass(frozen=True)
class BatchPlan:
    """How batches are played.

    Attributes:
        horizon: steps of each environment per batch.
        spec: of an environment.
        network: of the policy.
        episode_seeds: of the episodes of all environments.
        action_seeds: fixes the actions in each environment that is played.
    """

    horizon: int
    spec: EnvironmentSpec
    network: NetworkSizes
    episode_seeds: EpisodeSeeds
    action_seeds: Sequence[Sequence[int]]

    def fields(self) -> dict[str, Field]:
        """The shapes and types of `Experience`."""
        environments = len(self.action_seeds)
        agents = (environments, self.horizon, self.spec.num_agents)
        observations = self.horizon * self.spec.num_agents
        return {
            "rows": ((environments, observations * self.spec.num_tokens), np.int32),
            "weights": ((environments, observations * self.spec.num_tokens), np.float32),
            "offsets": ((environments, observations + 1), np.int32),
            "actions": (agents, np.int64),
            "log_probs": (agents, np.float32),
            "values": ((environments, self.horizon + 1, self.spec.num_agents), np.float32),
            "final_values": (agents, np.float32),
            "rewards": (agents, np.float32),
            "terminals": (agents, np.bool_),
            "truncations": (agents, np.bool_),
            "packed": ((self.network.packed_floats,), np.float32),
            **{f"token_{name}": (shape, dtype) for name, (shape, dtype) in TokenTables.fields().items()},
        }

    def uniforms(self, environment: int, batch: int) -> npt.NDArray[np.float32]:
        """The random numbers in [0, 1), [steps, agents], that decide the actions of an environment in a batch."""
        generator = np.random.default_rng([*self.action_seeds[environment], batch])
        return generator.random((self.horizon, self.spec.num_agents), dtype=np.float32)

    def experience(self, memory: Memory) -> Experience:
        """View shared memory as the arrays of a batch."""
        return Experience(**arrays_on(memory, self.fields()))


class BatchPlayer:
    """Plays some of the environments. Its request is the number of a batch, from which the actions' seeds come.

    Args:
        plan: of all environments.
        memory: of the batch.
        members: the indices of the environments that this worker plays.
    """

    def __init__(self, plan: BatchPlan, memory: Memory, members: Sequence[int]) -> None:
        self._plan = plan
        self._experience = plan.experience(memory)
        self._network = PackedNetwork(plan.network, self._experience.packed)
        self._encoder = Encoder(self._experience.tables, plan.spec.num_agents, plan.spec.num_tokens)
        self._environments: dict[int, EpisodicEnvironment] = {}
        self._seats: dict[int, Seat] = {}
        self._uniforms = np.zeros((plan.horizon, plan.spec.num_agents), dtype=np.float32)
        like: EpisodicEnvironment | None = None
        for index in members:
            buffers = Buffers.allocate(plan.spec)
            final_observations = np.zeros_like(buffers.observations)
            like = EpisodicEnvironment(buffers, final_observations, plan.episode_seeds, index, like)
            self._environments[index] = like
            self._seats[index] = self._seat(index, buffers)

    def __call__(self, request: bytes) -> list[dict[str, float]]:
        """Play a batch into the memory, and return the stats of the whole episodes that ended."""
        batch = int.from_bytes(request, "big")
        return [stats for index in self._environments for stats in self._play(index, batch)]

    def _seat(self, index: int, buffers: Buffers) -> Seat:
        experience = self._experience
        arrays = {
            "observed": buffers.observations,
            "chosen": buffers.actions,
            "rewarded": buffers.rewards,
            "terminated": buffers.terminals,
            "truncated": buffers.truncations,
            "uniforms": self._uniforms,
            **{name: getattr(experience, name)[index] for name in _RECORDED},
        }
        return Seat(self._network, experience.tables, arrays)

    def _play(self, index: int, batch: int) -> list[dict[str, float]]:
        """Play one environment through a batch."""
        environment, seat = self._environments[index], self._seats[index]
        final_values, values = self._experience.final_values[index], self._experience.values[index]
        self._uniforms[:] = self._plan.uniforms(index, batch)
        episodes = []
        for step in range(self._plan.horizon):
            seat.choose(step)
            stats = environment.step()
            if stats is not None:
                episodes.append(stats)
            if seat.record(step):
                self._write_values(environment.final_observations, final_values[step])
        self._write_values(environment.buffers.observations, values[-1])
        return episodes

    def _write_values(self, observations: npt.NDArray[np.uint8], values: npt.NDArray[np.float32]) -> None:
        tokens = self._encoder.encode(observations)
        self._network.act(tokens, len(observations), None, None, None, values.ctypes.data)
