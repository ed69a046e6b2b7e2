"""Checkpoints: a run's state as safetensors and JSON, and the policies in them.

A checkpoint is a folder ``checkpoints/<updates done>`` in the run's folder. A policy's URI is that of this folder:

- ``policy.safetensors``, ``policy.json``: weights, and the data needed to play with them; these two are a policy;
- ``training.safetensors``, ``training.json``: the further data needed to continue training.

It is written under another name, flushed to disk and renamed, so that every visible checkpoint is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load, load_file, save_file
from torch import Tensor

from metta.common import shared_files
from metta.common.config import flatten
from metta.common.errors import UserError
from metta.common.files import flush_to_disk
from metta.rl.adam import Adam
from metta.rl.environment import EnvironmentSpec
from metta.rl.player import PolicyPlayer
from metta.rl.policy import ActorCritic, Policy, policy_class
from metta.rl.tokens import Vocabulary
from metta.rl.trainer_config import PolicyConfig, TrainerConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import BaseModel

    from metta.rl.ranks import Ranks

logger = logging.getLogger(__name__)

_MAY_CHANGE = (
    "total_timesteps",
    "checkpoint_seconds",
    "checkpoints_kept",
    "profile",
    "num_ranks",
    "num_workers",
    "device",
)
"""Settings of the trainer that may differ between attempts of one run."""

_WEIGHTS, _DESCRIPTION = "policy.safetensors", "policy.json"
_TEMPORARY = ".tmp-"
_OPTIMIZER = "optimizer."
_COUNTERS = ("updates", "agent_steps", "seconds", "metrics", "at_reset")


@dataclass
class TrainingState:
    """The state that changes during a run.

    Attributes:
        policy: the network.
        optimizer: the optimizer of its weights.
        updates: number of batches learnt from.
        agent_steps: steps, summed over agents and environments.
        seconds: seconds of training, in all attempts.
        metrics: the metrics of the last update, by name.
        at_reset: whether all episodes ended with the last update, so that a resumed run equals one that did not stop.
    """

    policy: ActorCritic
    optimizer: Adam
    updates: int = 0
    agent_steps: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    at_reset: bool = False


def make_policy(spec: EnvironmentSpec, config: PolicyConfig) -> Policy:
    """An untrained policy for an environment; its weights are drawn from torch's global generator.

    Raises:
        UserError: the class of policies does not exist.
    """
    made = policy_class(config, Policy)
    return made(Vocabulary(spec), len(spec.actions), config.hidden_size, config.memory)


def save(run_dir: Path, state: TrainingState, spec: DataclassInstance, settings: dict[str, Any], kept: int = 2) -> Path:
    """Write a checkpoint, delete those that are too old, and return its folder.

    Args:
        run_dir: the run's folder.
        state: the state to save.
        spec: describes the environment to a policy.
        settings: JSON-compatible configuration of the run, stored with the state.
        kept: how many checkpoints are kept, at least 1.
    """
    root = run_dir / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    target = root / f"{state.updates:06d}"
    if target.exists():
        return target
    temporary = root / f"{_TEMPORARY}{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(_on_cpu(state.policy.state_dict()), temporary / _WEIGHTS)
    remembered = {f"{_OPTIMIZER}{name}": tensor for name, tensor in state.optimizer.state_dict().items()}
    save_file(_on_cpu(remembered), temporary / "training.safetensors")
    _write_json(temporary / _DESCRIPTION, {**state.policy.config.model_dump(mode="json"), "environment": asdict(spec)})
    counters = {name: getattr(state, name) for name in _COUNTERS}
    _write_json(temporary / "training.json", {"settings": settings, **counters})
    for path in [*temporary.iterdir(), temporary]:
        flush_to_disk(path)
    temporary.rename(target)
    flush_to_disk(root)
    for old in _checkpoints(run_dir)[:-kept]:
        shutil.rmtree(old)
    return target


def latest(run_dir: Path) -> Path | None:
    """The newest checkpoint in a run's folder, or None."""
    return next(reversed(_checkpoints(run_dir)), None)


def settings_of(checkpoint: Path) -> dict[str, Any]:
    """The configuration of the run that wrote a checkpoint."""
    settings: dict[str, Any] = json.loads((checkpoint / "training.json").read_text())["settings"]
    return settings


def restore(checkpoint: Path, state: TrainingState) -> None:
    """Load a checkpoint into the state of a run with the same settings."""
    state.policy.load_state_dict(load_file(checkpoint / _WEIGHTS))
    tensors = load_file(checkpoint / "training.safetensors")
    state.optimizer.load_state_dict({name.removeprefix(_OPTIMIZER): tensor for name, tensor in tensors.items()})
    counters = json.loads((checkpoint / "training.json").read_text())
    for name in _COUNTERS:
        setattr(state, name, counters.get(name, False))


class RunCheckpoints:
    """The checkpoints of one run, written by rank 0 and read by all ranks.

    Args:
        run_dir: the run's folder.
        config: hyperparameters of the run.
        env: the game.
        spec: describes the game to a policy.
        ranks: the ranks that train together.
    """

    def __init__(
        self, run_dir: Path, config: TrainerConfig, env: BaseModel, spec: DataclassInstance, ranks: Ranks
    ) -> None:
        self._run_dir = run_dir
        self._every_seconds, self._kept = config.checkpoint_seconds, config.checkpoints_kept
        self._settings = {"trainer": config.model_dump(mode="json"), "env": env.model_dump(mode="json")}
        self._spec = spec
        self._ranks = ranks
        self._saved = time.monotonic()

    def restore_latest(self, state: TrainingState) -> None:
        """Continue from the newest checkpoint, if there is one. A collective.

        Raises:
            UserError: it was made with other settings.
        """
        newest = self._ranks.broadcast(latest(self._run_dir))
        if newest is not None:
            _require_same(settings_of(newest), self._settings, self._run_dir)
            restore(newest, state)
            difference = "" if state.at_reset else "; its new episodes make it differ from a run that did not stop"
            logger.info("resumed from %s at %d agent steps%s", newest, state.agent_steps, difference)

    def start_clock(self) -> None:
        """Count the time to the next checkpoint from now."""
        self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self._saved >= self._every_seconds

    def save(self, state: TrainingState) -> Path:
        """Write a checkpoint and return its folder."""
        folder = save(self._run_dir, state, self._spec, self._settings, self._kept)
        self.start_clock()
        return folder

    def save_last(self, state: TrainingState) -> Path:
        """Write the last checkpoint on rank 0, and return its folder on every rank. A collective."""
        return self._ranks.broadcast(self.save(state) if self._ranks.leads else self._run_dir)


def _require_same(before: dict[str, Any], now: dict[str, Any], run_dir: Path) -> None:
    defaults = flatten({"trainer": TrainerConfig().model_dump(mode="json")})  # for settings newer than the run
    old, new = defaults | flatten(before), flatten(now)
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
    total = "trainer.total_timesteps"
    if new["trainer.anneal_learning_rate"] and old[total] != new[total]:
        raise UserError(
            f"the run in {run_dir} cannot be continued with another length ({total}: {old[total]:,} -> {new[total]:,}"
            "), because its learning rate falls to 0 over its length; choose another run name"
        )


def load_policy(uri: str, device: str = "cpu") -> PolicyPlayer:
    """Load a policy to play with.

    Args:
        uri: a checkpoint's folder: a path, or a URL that `metta.common.shared_files` reads.
        device: torch device that the policy computes on.

    Raises:
        UserError: the folder has no policy.
    """
    weights, description = read_policy(uri)
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description["environment"].items()
    }
    spec = EnvironmentSpec(**fields)
    policy = make_policy(spec, policy_config(description))
    policy.load_state_dict(weights)
    return PolicyPlayer(policy.to(device).eval(), spec)


def policy_config(description: dict[str, Any]) -> PolicyConfig:
    """The configuration of a policy, from its description, which may be from a version with fewer settings."""
    return PolicyConfig(**{name: description[name] for name in PolicyConfig.model_fields if name in description})


def read_policy(uri: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a policy, and the description that is needed to rebuild its network.

    Raises:
        UserError: the folder has no policy.
    """

    def read(name: str) -> bytes:
        try:
            return shared_files.read_bytes(f"{uri.rstrip('/')}/{name}")
        except FileNotFoundError:
            raise UserError(f"policy {uri}: there is no {name}") from None

    description: dict[str, Any] = json.loads(read(_DESCRIPTION))
    return load(read(_WEIGHTS)), description


def share_policy(checkpoint: Path, url: str) -> str:
    """Copy the policy of a checkpoint into a folder below a URL, and return the URL of that folder.

    The folder's name ends in a digest of the weights, so that no policy overwrites another, even with equal run names.

    Raises:
        UserError: the URL is not writable.
    """
    weights = (checkpoint / _WEIGHTS).read_bytes()
    shared = f"{url.rstrip('/')}/{checkpoint.name}-{hashlib.sha256(weights).hexdigest()[:12]}"
    shared_files.write_bytes(f"{shared}/{_WEIGHTS}", weights)
    shared_files.write_bytes(f"{shared}/{_DESCRIPTION}", (checkpoint / _DESCRIPTION).read_bytes())  # completes it
    return shared


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    root = run_dir / "checkpoints"
    return sorted(path for path in root.glob("*") if path.name.isdigit()) if root.is_dir() else []


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1))
