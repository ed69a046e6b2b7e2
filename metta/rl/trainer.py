"""Training a policy by PPO, from start or checkpoint to the end."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.common.config import flatten
from metta.common.errors import UserError
from metta.rl import checkpoint, ppo
from metta.rl.adam import Adam
from metta.rl.checkpoint import TrainingState
from metta.rl.game import Game, Spec, game_of
from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.launch import is_launched, launched_ranks, started_ranks
from metta.rl.processes import usable_cores
from metta.rl.ranks import Ranks
from metta.rl.threads import torch_threads
from metta.rl.trainer_config import TrainerConfig, round_batch

logger = logging.getLogger(__name__)

FEW_UPDATES = 10
REPORT_SECONDS = 0.2
"""Least time between two reports of progress."""

STEPS_PER_THREAD = 4_096
"""Agent steps in a minibatch for each thread that computes with it; on fewer, threads wait longer than they compute."""

STEPS_PER_RANK = 512
"""Agent steps in a rank's part of a minibatch; on fewer, ranks wait for each other longer than they compute."""

ENVIRONMENTS_PER_RANK = 2

_MAY_CHANGE = ("total_timesteps", "checkpoint_seconds", "num_ranks", "num_workers", "device")
"""Settings of the trainer that may differ between attempts of one run."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run has come.

    Attributes:
        agent_steps: so far, in all attempts.
        total: agent steps that the run will take.
        seconds: of training, in this attempt.
        metrics: of the last update, by name; see `train`.
    """

    agent_steps: int
    total: int
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """How an attempt at a run ended.

    Attributes:
        policy_uri: where the policy is.
        metrics: of the last update, by name; see `train`.
        seconds: of training, in this attempt.
        stopped: it ended early because the report's answer was to stop.
        warnings: what is questionable about the settings.
    """

    policy_uri: str
    metrics: dict[str, float]
    seconds: float
    stopped: bool
    warnings: list[str]


def train(
    config: TrainerConfig,
    env: MettaGridConfig | GymnasiumConfig,
    run_dir: Path,
    report: Callable[[TrainingProgress], bool] = lambda progress: True,
) -> TrainingResult:
    """Train a policy, going on from the newest checkpoint in `run_dir` if there is one.

    An attempt that goes on has the weights, the optimizer's state and the counters of the one before; its environments
    start new episodes.

    `config.num_ranks` processes train together, which are started here; where a launcher such as torchrun has made this
    process one of several ranks, they are those, and all of them call this.

    Args:
        config: hyperparameters.
        env: the game, of mettagrid, Gymnasium or PettingZoo.
        run_dir: folder of the run, for checkpoints.
        report: told of progress; answers whether to continue.

    Returns:
        a result whose metrics are ``agent_steps`` and ``seconds`` (both of all attempts), ``steps_per_second``,
        ``updates``, ``batch_size``, ``minibatch_size``, ``num_environments`` and ``horizon`` as they came out,
        ``learning_rate``, what `metta.rl.ppo.update` measures, ``reward_per_step``, and the stats of the last
        episodes: ``reward`` and ``episode_length``, and the agents' stats with ``train/`` before the name.

    Raises:
        UserError: the run in `run_dir` was made with other settings, or the ranks don't fit the machine or the batch.
        TrainingDiverged: a loss is not finite.
        WorkerError: an environment failed.
        RankFailedError, RankLostError: another rank failed, one that this process started or one beside it.
    """
    on_gpu = _on_gpu(config)
    if is_launched():
        with launched_ranks(on_gpu) as ranks:
            if config.num_ranks not in (None, ranks.size):
                raise UserError(f"trainer.num_ranks={config.num_ranks}, but the launcher started {ranks.size} ranks")
            return train_as_rank(config, env, run_dir, report, ranks)
    spec = game_of(env).spec
    number = config.num_ranks or _worthwhile_ranks(config, spec, on_gpu)
    Plan.of(config, spec, Ranks(size=number))  # what cannot be is refused before anything starts
    with started_ranks(number, partial(train_as_rank, config, env, run_dir, _go_on), on_gpu) as ranks:
        return train_as_rank(config, env, run_dir, report, ranks)


def train_as_rank(
    config: TrainerConfig,
    env: MettaGridConfig | GymnasiumConfig,
    run_dir: Path,
    report: Callable[[TrainingProgress], bool],
    ranks: Ranks,
) -> TrainingResult:
    """Train as one of the ranks, each of which calls this; see `train`. Only rank 0 reports and writes checkpoints."""
    game = game_of(env)
    plan = Plan.of(config, game.spec, ranks)
    for warning in plan.warnings if ranks.leads else ():
        logger.warning(warning)
    settings = {"trainer": config.model_dump(mode="json"), "env": env.model_dump(mode="json")}
    state = _initial_state(config, game, ranks)
    earlier = ranks.broadcast(checkpoint.latest(run_dir))
    if earlier is not None:
        _require_same(checkpoint.settings_of(earlier), settings, run_dir)
        checkpoint.restore(earlier, state)
        logger.info("resumed from %s at %d agent steps", earlier, state.agent_steps)
    _make_equal(state, ranks)
    actions, minibatches = _generators(config, state, ranks)
    seconds_before, steps_before = state.seconds, state.agent_steps
    stopped = False
    episodes: deque[dict[str, float]] = deque(maxlen=plan.num_environments)

    if state.updates < plan.updates:
        seed = [config.seed, state.updates]
        with game.player(plan.num_environments, plan.horizon, plan.num_workers, seed, ranks) as player:
            started = saved = time.monotonic()
            reported = 0.0
            finished: list[dict[str, float]] = []
            while state.updates < plan.updates and not stopped:
                learning_rate = _learning_rate(config, state.updates / plan.updates)
                state.optimizer.learning_rate = learning_rate

                # The other cores are the workers'.
                with torch_threads(1 if plan.num_workers else ranks.cores):
                    batch, ended = player.collect(state.policy, config.ppo, actions)
                with torch_threads(plan.update_threads(ranks)):
                    losses = ppo.update(
                        state.policy, state.optimizer, batch, config.ppo, plan.minibatches, minibatches, ranks
                    )

                finished += ended
                now = time.monotonic()
                state.updates += 1
                state.agent_steps += plan.batch_size
                state.seconds = seconds_before + now - started
                last = state.updates == plan.updates
                saves = now - saved >= config.checkpoint_seconds
                if ranks.any(ranks.leads and (last or saves or now - reported >= REPORT_SECONDS)):
                    played = ranks.gather((finished, player.reward_per_step))
                    finished = []
                    for ended, _ in played:
                        episodes.extend(ended)
                    state.metrics |= {
                        "agent_steps": state.agent_steps,
                        "seconds": state.seconds,
                        "steps_per_second": (state.agent_steps - steps_before) / (now - started),
                        "updates": state.updates,
                        "learning_rate": learning_rate,
                        **plan.metrics(),
                        "num_ranks": ranks.size,
                        **losses,
                        "reward_per_step": sum(reward for _, reward in played) / ranks.size,
                        **_episode_metrics(episodes),
                    }
                    reported = now
                    if ranks.leads:
                        logger.info("%s", " ".join(f"{name}={value:.5g}" for name, value in state.metrics.items()))
                        progress = TrainingProgress(
                            state.agent_steps, plan.updates * plan.batch_size, now - started, state.metrics
                        )
                        stopped = not report(progress) and not last
                        if saves:
                            checkpoint.save(run_dir, state, game.spec, settings)
                            saved = time.monotonic()
                    stopped = ranks.any(stopped)

    folder = ranks.broadcast(checkpoint.save(run_dir, state, game.spec, settings) if ranks.leads else run_dir)
    return TrainingResult(
        policy_uri=folder.resolve().as_uri(),
        metrics=state.metrics,
        seconds=state.seconds - seconds_before,
        stopped=stopped,
        warnings=plan.warnings,
    )


@dataclass(frozen=True)
class Plan:
    """What a run will do, once its settings are fitted to its environment.

    Attributes:
        updates: batches to learn from, in all attempts.
        num_environments: environments that step together.
        horizon: steps of each environment per batch.
        batch_size: agent steps per batch.
        minibatches: minibatches per pass over a batch.
        num_workers: processes that step the environments of each rank.
        warnings: what is questionable about the settings.
    """

    updates: int
    num_environments: int
    horizon: int
    batch_size: int
    minibatches: int
    num_workers: int
    warnings: list[str]

    @classmethod
    def of(cls, config: TrainerConfig, spec: Spec, ranks: Ranks) -> Plan:
        if ranks.size > config.num_environments:
            raise UserError(
                f"trainer.num_ranks: {ranks.size} ranks have only {config.num_environments} environments to share; "
                "raise trainer.num_environments"
            )
        num_environments, horizon = round_batch(config.batch_size, spec.num_agents, config.num_environments, ranks.size)
        batch_size = num_environments * horizon * spec.num_agents
        updates = math.ceil(config.total_timesteps / config.batch_size)
        warnings = []
        if updates < FEW_UPDATES:
            warnings.append(
                f"only {updates} updates: total_timesteps {config.total_timesteps:,} / batch_size "
                f"{config.batch_size:,}; under {FEW_UPDATES} little is learnt"
            )
        if config.minibatch_size > batch_size:
            warnings.append(
                f"minibatch_size {config.minibatch_size:,} is more than the batch of {batch_size:,}, "
                "so each batch is one minibatch"
            )
        num_workers = (ranks.cores if ranks.cores > 1 else 0) if config.num_workers is None else config.num_workers
        return cls(
            updates=updates,
            num_environments=num_environments,
            horizon=horizon,
            batch_size=batch_size,
            minibatches=max(1, round(batch_size / config.minibatch_size)),
            num_workers=min(num_workers, num_environments // ranks.size),
            warnings=warnings,
        )

    def update_threads(self, ranks: Ranks) -> int:
        """How many threads are worth it for a rank's part of minibatches of this size."""
        return max(1, min(ranks.cores, self.batch_size // self.minibatches // ranks.size // STEPS_PER_THREAD))

    def metrics(self) -> dict[str, float]:
        return {
            "batch_size": self.batch_size,
            "minibatch_size": self.batch_size / self.minibatches,
            "num_environments": self.num_environments,
            "horizon": self.horizon,
        }


def _on_gpu(config: TrainerConfig) -> bool:
    return config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())


def _worthwhile_ranks(config: TrainerConfig, spec: Spec, on_gpu: bool) -> int:
    """One rank for each GPU, or on a CPU for each core, if its part of minibatches and environments is not tiny."""
    num_environments, _ = round_batch(config.batch_size, spec.num_agents, config.num_environments)
    if on_gpu:
        return min(max(1, torch.cuda.device_count()), num_environments)
    by_minibatch = min(config.minibatch_size, config.batch_size) // STEPS_PER_RANK
    return max(1, min(usable_cores(), num_environments // ENVIRONMENTS_PER_RANK, by_minibatch))


def _initial_state(config: TrainerConfig, game: Game, ranks: Ranks) -> TrainingState:
    device = _device(config, ranks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        policy = game.make_policy(config.policy.hidden_size).to(device)
    return TrainingState(policy, Adam(policy.parameters(), config.optimizer))


def _device(config: TrainerConfig, ranks: Ranks) -> torch.device:
    if not _on_gpu(config):
        return torch.device("cpu")
    if ranks.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"trainer.num_ranks: rank {ranks.local_rank} of this machine has no GPU of its own; "
            f"it has {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(ranks.local_rank)
    return torch.device("cuda", ranks.local_rank)


@torch.no_grad()
def _make_equal(state: TrainingState, ranks: Ranks) -> None:
    """Have all ranks begin with the same weights to the bit: machines may differ in how they compute them."""
    for parameter in state.policy.parameters():
        ranks.average(parameter)


def _generators(config: TrainerConfig, state: TrainingState, ranks: Ranks) -> tuple[torch.Generator, torch.Generator]:
    """What draws this rank's actions, and its minibatches; each attempt has its own."""
    sequence = np.random.SeedSequence([config.seed, state.updates, ranks.rank])
    actions, minibatches = (int(number) for number in sequence.generate_state(2))
    device = state.policy.device
    return torch.Generator(device).manual_seed(actions), torch.Generator().manual_seed(minibatches)


def _learning_rate(config: TrainerConfig, done: float) -> float:
    """Learning-rate annealing: linear to 0 over the run, if asked for. `done` is the part of the run that is over."""
    return config.optimizer.learning_rate * (1 - done if config.anneal_learning_rate else 1)


def _episode_metrics(episodes: deque[dict[str, float]]) -> dict[str, float]:
    """The mean over episodes of each stat; one that did not occur in an episode counts as 0 there."""
    names = {name: None for episode in episodes for name in episode if not name.startswith("game/")}
    return {
        name if name in ("reward", "episode_length") else f"train/{name}": sum(
            episode.get(name, 0.0) for episode in episodes
        )
        / len(episodes)
        for name in names
    }


def _require_same(before: dict[str, Any], now: dict[str, Any], run_dir: Path) -> None:
    old, new = flatten(before), flatten(now)
    changed = [
        f"{path}: {old.get(path, '(absent)')} -> {new.get(path, '(absent)')}"
        for path in {**old, **new}
        if old.get(path) != new.get(path) and path.removeprefix("trainer.") not in _MAY_CHANGE
    ]
    if changed:
        raise UserError(
            f"the run in {run_dir} was made with other settings: {'; '.join(changed[:6])}"
            + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
            + "\nchoose another run name, or delete its checkpoints"
        )


def _go_on(progress: TrainingProgress) -> bool:
    return True
