"""Train the policies that are stored as opponents in the arena's league.

    uv run python -m benchmarks.flagship.opponents miners fighters

Each takes about two minutes on one core. Their networks are narrow, so that their files are small. The other commands
read only these files, not the rest of the training's output.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from experiments.arena import make_env
from metta.rl.trainer_config import PolicyConfig, TrainerConfig
from metta.sim.league import KEPT

COMBAT = {"miners": False, "fighters": True}
TIMESTEPS = {"miners": 2_000_000, "fighters": 2_500_000}
FILES = ("policy.safetensors", "policy.json")


def trainer(name: str) -> TrainerConfig:
    """The hyperparameters of an opponent's training: the defaults, but narrow, and with an annealed learning rate."""
    return TrainerConfig(
        total_timesteps=TIMESTEPS[name],
        num_ranks=1,
        anneal_learning_rate=True,
        policy=PolicyConfig(hidden_size=32),
    )


def keep(name: str) -> Path:
    """Train an opponent and replace its stored policy; return its folder."""
    from metta.common.shared_files import local_path
    from metta.rl.trainer import train

    with tempfile.TemporaryDirectory() as run_dir:
        trained = train(trainer(name), make_env(combat=COMBAT[name]), Path(run_dir))
        checkpoint = local_path(trained.policy_uri)
        assert checkpoint is not None
        target = KEPT / name
        target.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            shutil.copyfile(checkpoint / file, target / file)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=list(COMBAT), default=list(COMBAT))
    for name in parser.parse_args().names:
        print(f"{name}: kept in {keep(name)}")


if __name__ == "__main__":
    main()
