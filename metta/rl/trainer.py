"""Training a policy by PPO, from start or checkpoint to the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.common.errors import UserError
from metta.rl import ppo
from metta.rl.adam import Adam
from metta.rl.checkpoint import RunCheckpoints, TrainingState
from metta.rl.game import Game, game_of
from metta.rl.gymnasium.config import GymnasiumConfig
from metta.rl.kernel.learner import KernelLearner
from metta.rl.launch import is_launched, launched_ranks, started_ranks
from metta.rl.memory_use import naming_sizes
from metta.rl.plan import Plan, computes_on_gpu, device_of, worthwhile_ranks
from metta.rl.policy import ActorCritic, is_compiled, why_plain
from metta.rl.progress import ProgressReporter, TrainingProgress
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import Stopwatch
from metta.rl.threads import torch_threads
from metta.rl.trainer_config import TrainerConfig

logger = logging.getLogger(__name__)

__all__ = ["TrainingProgress", "TrainingResult", "train", "train_as_rank"]


@dataclass(frozen=True)
class TrainingResult:
    """How an attempt at a run ended.

    Attributes:
        policy_uri: URI of the policy.
        metrics: the metrics of the last update, by name; see `train`.
        seconds: seconds of training, in this attempt.
        stopped: `report` asked to stop before the end.
    """

    policy_uri: str
    metrics: dict[str, float]
    seconds: float
    stopped: bool


def train(
    config: TrainerConfig,
    env: MettaGridConfig | GymnasiumConfig,
    run_dir: Path,
    report: Callable[[TrainingProgress], bool] = lambda progress: True,
) -> TrainingResult:
    """Train a policy, from the newest checkpoint in `run_dir` if there is one.

    A resumed attempt has the weights, the optimizer's state and the counters of the previous one; its environments
    start new episodes. In mettagrid it is therefore bitwise equal to a run that did not stop, if all episodes ended
    with the last update before the checkpoint; otherwise the log says that it differs.

    `config.num_ranks` processes train together. They are started here, unless a launcher such as torchrun has made this
    process one of several ranks: then those ranks train, and all of them call this.

    Args:
        config: hyperparameters.
        env: the game, of mettagrid, Gymnasium or PettingZoo.
        run_dir: folder of the run, for checkpoints.
        report: called with the progress; returns whether to continue.

    Returns:
        a result whose metrics are ``agent_steps`` and ``seconds`` (both of all attempts), ``steps_per_second``,
        ``updates``, ``batch_size``, ``minibatch_size``, ``num_environments`` and ``horizon`` as they were used,
        ``learning_rate``, the measures of `metta.rl.ppo.update`, ``reward_per_step``, those of
        `metta.rl.memory_use.peak_memory`, and the stats of the last episodes: ``reward`` and
        ``episode_length``, and the agents' stats with ``train/`` before the name. With `config.profile` also
        `metta.rl.stopwatch.Stopwatch.metrics` of this attempt.

    Raises:
        UserError: the run in `run_dir` was made with other settings, or the ranks don't fit the machine or the batch.
        TrainingDiverged: a loss is not finite.
        OutOfMemory: there is not enough memory for the sizes in `config`.
        WorkerError: an environment failed.
        RankFailedError, RankLostError: another rank failed, whether this process or a launcher started it.
    """
    on_gpu = computes_on_gpu(config)
    if is_launched():
        with launched_ranks(on_gpu) as ranks:
            if config.num_ranks not in (None, ranks.size):
                raise UserError(f"trainer.num_ranks={config.num_ranks}, but the launcher started {ranks.size} ranks")
            return train_as_rank(config, env, run_dir, report, ranks)
    game = game_of(env)
    number = config.num_ranks or worthwhile_ranks(config, game, on_gpu)
    Plan.of(config, game, Ranks(size=number))  # refuses impossible settings before any process starts
    with started_ranks(number, partial(train_as_rank, config, env, run_dir, _continue), on_gpu) as ranks:
        return train_as_rank(config, env, run_dir, report, ranks)


@naming_sizes
def train_as_rank(
    config: TrainerConfig,
    env: MettaGridConfig | GymnasiumConfig,
    run_dir: Path,
    report: Callable[[TrainingProgress], bool],
    ranks: Ranks,
) -> TrainingResult:
    """Train as one of the ranks, which all call this; see `train`. Only rank 0 reports and writes checkpoints."""
    game = game_of(env)
    plan = Plan.of(config, game, ranks)
    if ranks.leads:
        for warning in plan.warnings:
            logger.warning(warning)

    state = _initial_state(config, game, ranks)
    checkpoints = RunCheckpoints(run_dir, config, env, game.spec, ranks)
    checkpoints.restore_latest(state)
    _equalise_weights(state, ranks)
    learner = _fastest_learner(state.policy, ranks)
    learn_threads = 1 if isinstance(learner, KernelLearner) else plan.update_threads(ranks)  # the kernel has its own
    seconds_before = state.seconds
    stopwatch = Stopwatch()
    stopped = False

    if state.updates < plan.updates:
        with game.collector(
            state.policy, *plan.rollout, [config.seed], ranks, stopwatch, first_batch=state.updates
        ) as collector:
            progress = ProgressReporter(state, plan, report, ranks)
            checkpoints.start_clock()
            while state.updates < plan.updates and not stopped:
                state.optimizer.learning_rate = _learning_rate(config, state.updates / plan.updates)

                # Play with the current policy, then learn from the experience.
                with torch_threads(plan.collect_threads(ranks)), stopwatch.measure("acting"):
                    batch, episodes = collector.collect(state.policy, config.ppo)
                with torch_threads(learn_threads), stopwatch.measure("learning"):
                    generator = _generator(config, state)
                    losses = ppo.update(learner, state.optimizer, batch, config.ppo, plan.minibatches, generator, ranks)

                progress.count_update(episodes)
                last, save_is_due = state.updates == plan.updates, checkpoints.is_due
                if ranks.any(ranks.leads and (last or save_is_due or progress.is_due)):
                    state.at_reset = not ranks.any(not collector.at_reset)
                    progress.measure(losses, collector.reward_per_step)
                    if ranks.leads:
                        stopped = not progress.report() and not last
                        if save_is_due:
                            with stopwatch.measure("checkpoints"):
                                checkpoints.save(state)
                    stopped = ranks.any(stopped)

    with stopwatch.measure("checkpoints"):
        policy = checkpoints.save_last(state)
    return TrainingResult(
        policy_uri=policy.resolve().as_uri(),
        metrics=state.metrics | (stopwatch.metrics() if config.profile else {}),
        seconds=state.seconds - seconds_before,
        stopped=stopped,
    )


def _initial_state(config: TrainerConfig, game: Game, ranks: Ranks) -> TrainingState:
    device = device_of(config, ranks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        policy = game.make_policy(config.policy).to(device)
    return TrainingState(policy, Adam(policy.parameters(), config.optimizer))


def _fastest_learner(policy: ActorCritic, ranks: Ranks) -> ppo.Learner:
    learner = KernelLearner(policy, ranks.cores) if is_compiled(policy) else ppo.AutogradLearner(policy)
    if ranks.leads:
        how = f"PyTorch: {why_plain(policy) or f'on {policy.device}'}"
        logger.info("computes with %s", "the compiled kernel" if isinstance(learner, KernelLearner) else how)
    return learner


@torch.no_grad()
def _equalise_weights(state: TrainingState, ranks: Ranks) -> None:
    """Give all ranks bitwise equal weights, because machines may compute the initial ones differently."""
    for parameter in state.policy.parameters():
        ranks.average(parameter)


def _generator(config: TrainerConfig, state: TrainingState) -> torch.Generator:
    """The generator of an update's minibatches, the same on all ranks and in every attempt."""
    sequence = np.random.SeedSequence([config.seed, state.updates])
    return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))


def _learning_rate(config: TrainerConfig, done: float) -> float:
    """Learning-rate annealing to 0 over the run, if configured: linear, or half a period of a cosine (Loshchilov and
    Hutter, arXiv 1608.03983, equation 5). `done` is the completed fraction of the run."""
    if not config.anneal_learning_rate:
        return config.optimizer.learning_rate
    left = 1 - done if config.annealing == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.optimizer.learning_rate * left


def _continue(progress: TrainingProgress) -> bool:
    return True
