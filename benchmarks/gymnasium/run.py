"""Measures how fast our PPO solves environments of Gymnasium on one core, compared with Stable-Baselines3's.

    uv sync --extra peers
    uv run --no-sync python -m benchmarks.gymnasium.run --seeds 5

Each run is a separate process, bound to one core; ours and theirs take turns. Each trains with the hyperparameters that
its own project recommends for that environment (Stable-Baselines3's are those of its RL Zoo), until the environment is
solved, the steps are used up, or five minutes have passed.
With ``--runs FOLDER`` each run is stored as a file; existing files are read, so an interrupted benchmark continues.

Seconds are the CPU time of the training, so other load on the machine has little effect; on an idle core they equal the
elapsed time.

An environment is solved when the mean reward of the last episodes in training (as many as there are environments)
reaches its threshold. For each environment the benchmark prints how many runs solved it, and for all runs the seconds
and steps of training and the mean reward of 100 episodes that the policy then plays greedily: the median over the
seeds, and the range.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SOLVED = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "Pendulum-v1": math.inf,
    "LunarLander-v3": 200.0,
    "LunarLanderContinuous-v3": 200.0,
}
"""The reward at which a training ends; Pendulum-v1 has none, so it trains to the end."""
LIMIT_SECONDS = 300.0
EPISODES = 100
EVALUATION_SEED = 10_000


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        solved: whether the environment was solved.
        seconds: seconds of training.
        steps: steps of the environment.
        reward: mean over evaluated episodes.
    """

    solved: bool
    seconds: float
    steps: int
    reward: float


def ours(env_id: str, seed: int) -> Run:
    """Train with this project's PPO."""
    import metta.rl.trainer  # noqa: F401  importing torch is not training
    from experiments.gymnasium import train
    from metta.rl.gymnasium.config import GymnasiumSimulation
    from metta.rl.gymnasium.evaluate import evaluate, load_policy
    from metta.sweep.trial import Progress

    solved, seconds = False, 0.0

    def report(progress: Progress) -> bool:
        nonlocal solved, seconds
        seconds = time.process_time() - started
        solved = progress.metrics.get("reward", -1e9) >= SOLVED[env_id]
        return not solved and seconds < LIMIT_SECONDS

    tool = train(env_id)
    tool.update({"trainer.seed": seed, "trainer.device": "cpu", "simulations": []})
    simulation = GymnasiumSimulation(env=tool.env, num_episodes=EPISODES, seed=EVALUATION_SEED)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = tool.run(report, Path(folder))
        episodes = evaluate(*load_policy(result.artefacts["policy"]), simulation)
    reward = statistics.fmean(episode["reward"] for episode in episodes)
    return Run(solved, seconds, int(result.metrics["agent_steps"]), reward)


def stable_baselines3(env_id: str, seed: int) -> Run:
    """Train with Stable-Baselines3's PPO."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    settings = _settings_of_the_zoo(env_id)
    steps, num_environments = settings.pop("total_timesteps"), settings.pop("num_environments")
    normalize = settings.pop("normalize", False)
    solved = False

    class Watch(BaseCallback):  # type: ignore[misc]
        def _on_rollout_start(self) -> None:
            nonlocal solved
            rewards = [episode["r"] for episode in self.model.ep_info_buffer]
            solved = bool(rewards) and statistics.fmean(rewards) >= SOLVED[env_id]

        def _on_step(self) -> bool:
            return not solved and time.process_time() - started < LIMIT_SECONDS

    environments = make_vec_env(env_id, num_environments, seed=seed)
    played = make_vec_env(env_id, 1, seed=EVALUATION_SEED)
    if normalize:
        environments = VecNormalize(environments, gamma=settings["gamma"])
        played = VecNormalize(played, training=False, norm_reward=False)
        played.obs_rms = environments.obs_rms
    model = PPO(
        "MlpPolicy", environments, seed=seed, device="cpu", stats_window_size=num_environments, verbose=0, **settings
    )
    started = time.process_time()
    model.learn(steps, callback=Watch())
    seconds = time.process_time() - started
    reward, _ = evaluate_policy(model, played, n_eval_episodes=EPISODES, deterministic=True)
    return Run(solved, seconds, int(model.num_timesteps), float(reward))


def _settings_of_the_zoo(env_id: str) -> dict[str, Any]:
    """The options of Stable-Baselines3's PPO, and the keys that `stable_baselines3` takes out of them."""
    if env_id == "CartPole-v1":
        return {
            "total_timesteps": 100_000,
            "num_environments": 8,
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "ent_coef": 0.0,
            "learning_rate": lambda left: 1e-3 * left,
            "clip_range": lambda left: 0.2 * left,
        }
    if env_id == "Acrobot-v1":
        return {
            "total_timesteps": 1_000_000,
            "num_environments": 16,
            "normalize": True,
            "n_steps": 256,
            "n_epochs": 4,
            "gamma": 0.99,
            "gae_lambda": 0.94,
            "ent_coef": 0.0,
        }
    if env_id == "Pendulum-v1":
        return {
            "total_timesteps": 102_400,
            "num_environments": 4,
            "n_steps": 1024,
            "n_epochs": 10,
            "gamma": 0.9,
            "gae_lambda": 0.95,
            "ent_coef": 0.0,
            "learning_rate": 1e-3,
            "use_sde": True,
            "sde_sample_freq": 4,
        }
    return {
        "total_timesteps": 1_000_000,
        "num_environments": 16,
        "n_steps": 1024,
        "batch_size": 64,
        "n_epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "ent_coef": 0.01,
    }


TRAINERS = {"ours": ours, "stable-baselines3": stable_baselines3}


def run_once(trainer: str, env_id: str, seed: int, folder: Path | None) -> Run:
    """Train, or read an earlier result from the folder."""
    file = folder / f"{env_id}_{trainer}_{seed}.json" if folder else None
    if file and file.exists():
        return Run(**json.loads(file.read_text()))
    run = run_apart(trainer, env_id, seed)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(run)) + "\n")
    return run


def run_apart(trainer: str, env_id: str, seed: int) -> Run:
    """Train in a separate process on one core."""
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--one", trainer, env_id, str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", choices=SOLVED, default=list(SOLVED))
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="store every run there, and repeat none")
    parser.add_argument("--one", nargs=3, metavar=("TRAINER", "ENVIRONMENT", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        trainer, env_id, seed = options.one
        print(json.dumps(asdict(TRAINERS[trainer](env_id, int(seed)))))
        return
    runs: dict[str, dict[str, list[Run]]] = {}
    for env_id in options.environments:
        of_environment = runs[env_id] = {trainer: [] for trainer in options.trainers}
        for seed in range(options.seeds):
            for trainer, done in of_environment.items():
                done.append(run_once(trainer, env_id, seed, options.runs))
                print(f"{env_id} {trainer} seed {seed}: {done[-1]}", flush=True)
    for env_id, of_environment in runs.items():
        print(f"\n{env_id}, solved at {SOLVED[env_id]:g}, {options.seeds} seeds: median (range)")
        for trainer, done in of_environment.items():
            print(f"  {trainer:<18} {_summary(done)}")


def _summary(runs: list[Run]) -> str:
    return (
        f"solved {sum(run.solved for run in runs)} of {len(runs)}; {_spread([run.seconds for run in runs])} s; "
        f"{_spread([run.steps / 1000 for run in runs])} thousand steps; reward {_spread([run.reward for run in runs])}"
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
