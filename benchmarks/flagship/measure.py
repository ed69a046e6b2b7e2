"""Sweeps of the arena, and trainings with their recommended hyperparameters."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments import arena
from metta.common.config import flatten
from metta.rl.trainer_config import OptimizerConfig, PolicyConfig, PPOConfig, TrainerConfig
from metta.sweep.state import read_state
from metta.sweep.store import open_store

ROOT = Path(__file__).parents[2]
Game = Literal["basic", "combat"]
Method = Literal["protein", "random"]

RANDOM = {
    "sweep.protein.method": "random",
    "sweep.early_stopping": "off",
    "sweep.seeds_per_trial": 1,
}
"""Overrides that make a sweep a random search over the same space."""

DEFAULTS = TrainerConfig(
    total_timesteps=1_000_000,
    batch_size=8_192,
    minibatch_size=1_024,
    optimizer=OptimizerConfig(type="adam", learning_rate=5e-3, beta1=0.9, beta2=0.999, eps=1e-5, weight_decay=0.0),
    ppo=PPOConfig(
        clip_coef=0.2, ent_coef=0.005, vf_coef=0.5, gae_lambda=0.9, gamma=0.98, max_grad_norm=0.5, update_epochs=2
    ),
    policy=PolicyConfig(hidden_size=128),
    anneal_learning_rate=False,
    num_environments=32,
)
"""The trainer's defaults of commit 7005977, copied here because the current ones may change."""

METRICS: dict[Game, str] = {"basic": "arena", "combat": "arena/combat"}
"""What the sweep of a game maximises. Trained without combat, it is README's sweep: the mean of both simulations."""

FOREVER = 1_000_000_000
"""Agent steps of a training that a limit of seconds ends."""


@dataclass(frozen=True)
class Recommended:
    """The recommendation of a sweep for a limited training time.

    Attributes:
        trial: the number of the trial.
        params: its hyperparameters, or these with another length.
        tried: whether a trial had that length.
        seconds: its cost in the sweep, or that which is expected.
        score: its score in the sweep, or that which is expected.
    """

    trial: int
    params: dict[str, Any]
    tried: bool
    seconds: float
    score: float


@dataclass(frozen=True)
class Training:
    """A training on a fresh seed.

    Attributes:
        score: hearts per agent.
        stderr: standard error of the score over episodes.
        seconds: seconds of training.
        agent_steps: agent steps of training.
    """

    score: float
    stderr: float
    seconds: float
    agent_steps: int


def sweep(name: str, game: Game, method: Method, seed: int, folder: Path, num_trials: int, max_cost: float) -> float:
    """Run a sweep, or resume it; return the seconds of this run.

    Random search is limited only by the budget, because its trials are cheaper than those that Protein chooses.
    """
    trials = num_trials if method == "protein" else 100 * num_trials
    overrides: dict[str, Any] = {"seed": seed, "sweep.max_cost": max_cost, "write_report": "false"}
    overrides |= RANDOM if method == "random" else {}
    command = [sys.executable, "tools/run.py", "experiments.sweep_arena.sweep_optimizer"]
    command += ["--args", f"sweep_name={name}", f"num_trials={trials}", f"metric={METRICS[game]}", "device=cpu"]
    command += [f"combat={str(game == 'combat').lower()}", "--overrides"]
    command += [f"{path}={value}" for path, value in overrides.items()]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "METTA_DATA_DIR": str(folder.absolute())})
    return time.perf_counter() - started


def recommended(name: str, folder: Path, max_seconds: float) -> Recommended | None:
    """The recommendation of a sweep within a cost, as `metta-sweep best --max-cost` gives it; None if all cost more."""
    with closing(open_store(f"sqlite:///{folder.absolute() / 'sweeps.db'}")) as store:
        state = read_state(store, name)
        best = state.best_within(max_seconds)
        if best is None or best.score is None or best.cost is None:
            return None
        if (other := state.other_length_within(max_seconds)) is not None:
            return Recommended(other.number, flatten(other.params), False, other.cost, other.score)
        return Recommended(best.number, dict(state.params_of(best)), True, best.cost, best.score)


def spent(name: str, folder: Path) -> float:
    """The cost of a sweep's trials in seconds."""
    with closing(open_store(f"sqlite:///{folder.absolute() / 'sweeps.db'}")) as store:
        return float(read_state(store, name).spent)


def with_params(params: dict[str, Any]) -> TrainerConfig:
    """The trainer's settings of a trial: the arena's own with the trial's hyperparameters."""
    config = arena.TRAINER.model_copy(deep=True)
    return config.update({path.removeprefix("trainer."): value for path, value in params.items()})


def train(game: Game, config: TrainerConfig, seed: int, max_seconds: float | None = None) -> Training:
    """Train and evaluate.

    Args:
        game: the game for training and evaluation.
        config: hyperparameters.
        seed: seed of the training.
        max_seconds: if given, training stops after this time, regardless of `config.total_timesteps`.
    """
    from metta.rl.checkpoint import load_policy
    from metta.rl.trainer import train as train_policy
    from metta.sim.evaluate import evaluate

    length = {} if max_seconds is None else {"total_timesteps": FOREVER}
    simulation = arena.SETTINGS[game]()
    with tempfile.TemporaryDirectory() as run_dir:
        trained = train_policy(
            config.model_copy(update={"seed": seed, **length}),
            arena.make_env(combat=game == "combat"),
            Path(run_dir),
            lambda progress: max_seconds is None or progress.seconds < max_seconds,
        )
        (score,) = evaluate(load_policy(trained.policy_uri), [simulation]).simulation_scores.values()
    assert score.stderr is not None
    return Training(score.mean, score.stderr, trained.seconds, int(trained.metrics["agent_steps"]))
