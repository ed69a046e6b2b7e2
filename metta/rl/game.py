"""The interface of a game for the trainer: a spec, a network for it, and a collector of experience."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.checkpoint import make_policy
from metta.rl.environment import EnvironmentSpec
from metta.rl.episodes import EpisodeSeeds
from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.kernel.functions import kernel_is_available
from metta.rl.kernel_rollout import KernelCollector
from metta.rl.policy import ActorCritic, why_plain
from metta.rl.ppo import Batch
from metta.rl.ranks import Ranks
from metta.rl.rollout import MettagridCollector
from metta.rl.stopwatch import Stopwatch
from metta.rl.tokens import Vocabulary
from metta.rl.trainer_config import PolicyConfig, PPOConfig
from metta.rl.vector_environment import VectorEnvironment

if TYPE_CHECKING:
    from dataclasses import Field


_ACTIONS = 1
"""Makes the seed of an environment's actions differ from that of its episodes."""


class Spec(Protocol):
    """A dataclass of JSON types that describes an environment to a policy."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def num_agents(self) -> int: ...


class Collector(Protocol):
    """Plays with the current policy to collect experience."""

    @property
    def reward_per_step(self) -> float:
        """Mean reward of an agent's step in the last batch."""
        ...

    @property
    def at_reset(self) -> bool:
        """Whether the last batch ended with an episode in all environments, so that a run that resumes after it
        continues as if it had not stopped."""
        ...

    def collect(self, policy: Any, config: PPOConfig) -> tuple[Batch, list[dict[str, float]]]:
        """Play, and estimate the advantage of every action by generalised advantage estimation.

        Returns:
            the batch, on the policy's device, and the stats of the episodes that ended meanwhile.
        """
        ...


class Game(Protocol):
    """A game, with a network that fits it."""

    @property
    def spec(self) -> Spec: ...

    def uses_all_cores(self, policy: PolicyConfig) -> bool:
        """Whether one rank keeps all CPU cores busy: its environments step in workers, and threads learn."""
        ...

    def worthwhile_workers(self, num_environments: int, cores: int) -> int:
        """How many processes step the environments of a rank fastest; 0 is the rank itself."""
        ...

    def make_policy(self, config: PolicyConfig) -> ActorCritic:
        """An untrained policy; its weights are drawn from torch's global generator.

        Raises:
            UserError: this game has no such policy.
        """
        ...

    def collector(
        self,
        policy: Any,
        num_environments: int,
        horizon: int,
        num_workers: int,
        seed: Sequence[int],
        ranks: Ranks,
        stopwatch: Stopwatch,
        first_batch: int = 0,
    ) -> AbstractContextManager[Collector]:
        """Plays this rank's part of the environments, `horizon` steps for each batch. The seed fixes all random events.

        The stopwatch measures their stepping. `first_batch` batches were collected before, by a run that is resumed.
        """
        ...


def game_of(env: MettaGridConfig | GymnasiumConfig) -> Game:
    """The game that a configuration describes.

    Raises:
        UserError: no policy here can play it.
    """
    if isinstance(env, GymnasiumConfig):
        from metta.rl.gymnasium.game import GymnasiumGame

        return GymnasiumGame(env)
    return MettagridGame(env)


class MettagridGame:
    """A game of mettagrid."""

    def __init__(self, config: MettaGridConfig) -> None:
        self._config = config
        self.spec = EnvironmentSpec.of(config)

    def uses_all_cores(self, policy: PolicyConfig) -> bool:
        return kernel_is_available() and policy.memory == "none" and policy.type is None

    def worthwhile_workers(self, num_environments: int, cores: int) -> int:
        return cores if cores > 1 else 0

    def make_policy(self, config: PolicyConfig) -> ActorCritic:
        return make_policy(self.spec, config)

    @contextmanager
    def collector(
        self,
        policy: Any,
        num_environments: int,
        horizon: int,
        num_workers: int,
        seed: Sequence[int],
        ranks: Ranks,
        stopwatch: Stopwatch,
        first_batch: int = 0,
    ) -> Iterator[Collector]:
        part = ranks.part(num_environments)
        action_seeds = [[*seed, number, _ACTIONS] for number in part]
        if why_plain(policy) is None:
            seeds = EpisodeSeeds(self._config, num_environments, part.start, list(seed), first_batch * horizon)
            workers = min(num_workers, len(part))
            with KernelCollector(policy, seeds, action_seeds, horizon, workers, stopwatch, first_batch) as collector:
                yield collector
            return
        with VectorEnvironment(
            self._config, num_environments, num_workers, seed, part, first_batch * horizon
        ) as environments:
            yield MettagridCollector(environments, Vocabulary(self.spec), horizon, action_seeds, stopwatch, first_batch)
