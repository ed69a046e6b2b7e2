"""Progress of a run: counted on each rank, gathered from all, reported by rank 0."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from metta.rl.checkpoint import TrainingState
from metta.rl.memory_use import peak_memory
from metta.rl.plan import Plan
from metta.rl.policy import ActorCritic
from metta.rl.ranks import Ranks

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.2
"""Least time between two reports of progress."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run.

    Attributes:
        agent_steps: agent steps so far, in all attempts.
        total: agent steps that the run will take.
        seconds: seconds of training, in this attempt.
        metrics: the metrics of the last update, by name; see `metta.rl.trainer.train`.
        policy: the policy that is trained; it changes when the report has returned.
    """

    agent_steps: int
    total: int
    seconds: float
    metrics: dict[str, float]
    policy: ActorCritic


class ProgressReporter:
    """Keeps the counters and metrics of a run's state, and reports them. Its clock starts when it is created."""

    def __init__(
        self, state: TrainingState, plan: Plan, report: Callable[[TrainingProgress], bool], ranks: Ranks
    ) -> None:
        self._state, self._plan, self._report, self._ranks = state, plan, report, ranks
        self._seconds_before, self._steps_before = state.seconds, state.agent_steps
        self._started = time.monotonic()
        self._reported = 0.0
        self._seconds = 0.0
        self._new_episodes: list[dict[str, float]] = []
        self._last_episodes: deque[dict[str, float]] = deque(maxlen=plan.num_environments)

    def count_update(self, episodes: Iterable[dict[str, float]]) -> None:
        """Count an update, and the episodes that ended on this rank while its batch was collected."""
        self._new_episodes += episodes
        self._seconds = time.monotonic() - self._started
        self._state.updates += 1
        self._state.agent_steps += self._plan.batch_size
        self._state.seconds = self._seconds_before + self._seconds

    @property
    def is_due(self) -> bool:
        """Whether the last report is long enough ago."""
        return self._started + self._seconds - self._reported >= REPORT_SECONDS

    def measure(self, losses: dict[str, float], reward_per_step: float) -> None:
        """Put the metrics of the last update, over all ranks, into the state. A collective."""
        gathered = self._ranks.gather((self._new_episodes, reward_per_step, peak_memory()))
        for episodes, _, _ in gathered:
            self._last_episodes.extend(episodes)
        self._new_episodes = []
        self._reported = self._started + self._seconds
        state = self._state
        state.metrics |= {
            "agent_steps": state.agent_steps,
            "seconds": state.seconds,
            "steps_per_second": (state.agent_steps - self._steps_before) / self._seconds,
            "updates": state.updates,
            "learning_rate": state.optimizer.learning_rate,
            **self._plan.metrics(),
            "num_ranks": self._ranks.size,
            **losses,
            "reward_per_step": sum(reward for _, reward, _ in gathered) / self._ranks.size,
            **{name: sum(memory[name] for _, _, memory in gathered) for name in peak_memory()},
            **_episode_metrics(self._last_episodes),
        }

    def report(self) -> bool:
        """Log and report the metrics, and return whether to continue."""
        state = self._state
        logger.info("%s", " ".join(f"{name}={value:.5g}" for name, value in state.metrics.items()))
        return self._report(
            TrainingProgress(state.agent_steps, self._plan.total, self._seconds, state.metrics, state.policy)
        )


def _episode_metrics(episodes: deque[dict[str, float]]) -> dict[str, float]:
    """The mean over episodes of each stat; an episode without the stat counts as 0."""
    names = {name: None for episode in episodes for name in episode if not name.startswith("game/")}
    return {
        name if name in ("reward", "episode_length") else f"train/{name}": sum(
            episode.get(name, 0.0) for episode in episodes
        )
        / len(episodes)
        for name in names
    }
