"""The speed of training, against the game alone and against a straightforward PPO.

    uv run python -m benchmarks.trainer.run

Trains on the arena with the trainer's defaults (on each core that this process may use), in turns with:

- arena: the arena's own settings, `experiments.arena.TRAINER`, whose network is half as wide and learns in more passes;
- raw: mettagrid stepped with random actions, one process on each core, without learning;
- dense: one process, observations as images, a convolution (`benchmarks.trainer.dense`).

Prints agent steps per second, the median and range over the repeats, and the ratios that the project promises.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.rl.environment import Buffers, Environment, EnvironmentSpec
from metta.rl.processes import usable_cores
from metta.rl.trainer_config import TrainerConfig

RAW_SECONDS = 4.0
DENSE_UPDATES = 2


def raw_steps_per_second(env: MettaGridConfig) -> float:
    """Agent steps per second of random play, summed over one process on each core."""
    cores = usable_cores()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.starmap(_play_at_random, [(env, seed) for seed in range(cores)], chunksize=1))


def _play_at_random(env: MettaGridConfig, seed: int) -> float:
    spec = EnvironmentSpec.of(env)
    environment = Environment(env, Buffers.allocate(spec))
    generator = np.random.default_rng(seed)
    actions = generator.integers(0, len(spec.actions), size=(1000, spec.num_agents), dtype=np.int32)
    environment.reset(seed)
    started, steps = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < RAW_SECONDS:
        environment.buffers.actions[:] = actions[steps % len(actions)]
        environment.step()
        steps += 1
        if environment.done:
            environment.reset(seed + steps)
    return steps * spec.num_agents / seconds


def trained_steps_per_second(config: TrainerConfig, env: MettaGridConfig) -> float:
    """Agent steps per second of a whole run, from the start of its workers to its last checkpoint."""
    from metta.rl.trainer import train

    with tempfile.TemporaryDirectory() as run_dir:
        result = train(config, env, Path(run_dir))
    return result.metrics["agent_steps"] / result.seconds


def main() -> None:
    from benchmarks.trainer.dense import train_dense  # here, because workers import this file and do not need these
    from experiments.arena import TRAINER, make_env

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500_000, help="agent steps of each training run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    logging.disable(logging.WARNING)
    env, config = make_env(), TrainerConfig(total_timesteps=arguments.steps)
    own = TRAINER.model_copy(update={"total_timesteps": arguments.steps})
    warm_up = TrainerConfig(total_timesteps=config.batch_size)
    contestants: dict[str, Callable[[], float]] = {
        "raw": lambda: raw_steps_per_second(env),
        "dense": lambda: train_dense(config, env, DENSE_UPDATES),
        "trainer": lambda: trained_steps_per_second(config, env),
        "arena": lambda: trained_steps_per_second(own, env),
    }
    trained_steps_per_second(warm_up, env)  # torch loads some of its parts at the first update
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.repeats):
        for name, contestant in contestants.items():
            measured[name].append(contestant())

    medians = {name: statistics.median(values) for name, values in measured.items()}
    ratios = {
        "trainer / raw": (medians["trainer"] / medians["raw"], 0.40),
        "arena / raw": (medians["arena"] / medians["raw"], 0.40),
        "trainer / dense": (medians["trainer"] / medians["dense"], 4.0),
    }
    if arguments.json:
        print(json.dumps({"cores": usable_cores(), "measured": measured, "ratios": ratios}))
        return
    print(f"arena, {env.game.num_agents} agents, {usable_cores()} cores, {arguments.repeats} repeats")
    for name, values in measured.items():
        print(f"{name:>16}  {medians[name]:>9,.0f} agent steps/s  ({min(values):,.0f} to {max(values):,.0f})")
    for name, (ratio, target) in ratios.items():
        print(f"{name:>16}  {ratio:9.2f}  (target: {target:.2f})")


if __name__ == "__main__":
    main()
