import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import parameters_to_vector

from metta.common.errors import UserError
from metta.rl import checkpoint
from metta.rl.adam import Adam
from metta.rl.checkpoint import load_policy
from metta.rl.environment import Buffers, Environment, EnvironmentSpec
from metta.rl.game import MettagridGame
from metta.rl.memory_use import OutOfMemory
from metta.rl.plan import Plan
from metta.rl.player import require_compatible
from metta.rl.ppo import TrainingDiverged
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import profile_line
from metta.rl.trainer import TrainingProgress, TrainingResult, train
from metta.rl.trainer_config import OptimizerConfig, PolicyConfig, PPOConfig, TrainerConfig
from metta.sweep.mishaps import is_mishap
from tests.rl.small import small_env


def config(updates: int = 3, seed: int = 0, **settings: object) -> TrainerConfig:
    small = TrainerConfig(
        total_timesteps=256 * updates,
        batch_size=256,
        minibatch_size=64,
        seed=seed,
        num_environments=8,
        num_workers=0,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        ppo=PPOConfig(update_epochs=3, gamma=0.9),
        policy=PolicyConfig(hidden_size=32),
        checkpoint_seconds=1e9,
    )
    return small.update(settings)


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    return load_file(Path(result.policy_uri.removeprefix("file://")) / "policy.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_learns(tmp_path: Path) -> None:
    rewards: list[float] = []

    def report(progress: TrainingProgress) -> bool:
        rewards.append(progress.metrics["reward_per_step"])
        return True

    result = train(config(updates=40), small_env(), tmp_path, report)
    assert result.metrics["reward_per_step"] > 3 * rewards[0]
    assert result.metrics["train/heart.gained"] == pytest.approx(result.metrics["reward"])
    assert result.metrics["explained_variance"] > 0.2


def test_a_seed_fixes_the_run(tmp_path: Path) -> None:
    results = [train(config(seed=seed), small_env(), tmp_path / str(run)) for run, seed in enumerate([1, 1, 2])]
    assert same(weights(results[0]), weights(results[1]))
    assert not same(weights(results[0]), weights(results[2]))
    first, second = (
        {name: value for name, value in result.metrics.items() if "second" not in name and "memory" not in name}
        for result in results[:2]
    )
    assert first == second


def test_worker_processes_learn_the_same(tmp_path: Path) -> None:
    alone = train(config(), small_env(), tmp_path / "alone")
    together = train(config(num_workers=2), small_env(), tmp_path / "together")
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(tensor, weights(together)[name], rtol=1e-3, atol=1e-4)


def test_a_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    first = train(config(updates=2), small_env(), tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    resumed = train(config(updates=4), small_env(), tmp_path / "run")
    again = train(config(updates=4), small_env(), tmp_path / "copy")
    assert resumed.metrics["updates"] == 4
    assert resumed.metrics["agent_steps"] == 2 * first.metrics["agent_steps"]
    assert resumed.metrics["seconds"] > first.metrics["seconds"]
    assert resumed.seconds < resumed.metrics["seconds"]
    assert same(weights(resumed), weights(again))
    assert not same(weights(first), weights(resumed))


@pytest.mark.parametrize(("max_steps", "memory"), [(16, "none"), (8, "mingru"), (12, "none")])
def test_resuming_at_an_episode_reset_equals_not_resuming(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, max_steps: int, memory: Literal["none", "mingru"]
) -> None:
    """A batch has 16 steps of each environment, so episodes of 12 do not end with it."""
    env = small_env(max_steps=max_steps)
    env.desync_episodes = False
    policy = PolicyConfig(hidden_size=8, memory=memory)
    whole = train(config(updates=4, policy=policy), env, tmp_path / "whole")
    train(config(updates=2, policy=policy), env, tmp_path / "resumed")
    with caplog.at_level("INFO"):
        resumed = train(config(updates=4, policy=policy), env, tmp_path / "resumed")
    assert same(weights(whole), weights(resumed)) == (max_steps != 12)
    assert ("differ from a run that did not stop" in caplog.text) == (max_steps == 12)


def test_a_checkpoint_restores_the_whole_state(tmp_path: Path) -> None:
    spec = EnvironmentSpec.of(small_env())
    saved, restored = _state(seed=1), _state(seed=2)
    _learn_something(saved)
    saved.updates, saved.agent_steps, saved.seconds, saved.metrics = 7, 70, 1.5, {"loss": 0.25}
    checkpoint.save(tmp_path, saved, spec, {})
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    checkpoint.restore(newest, restored)
    _learn_something(saved)
    _learn_something(restored)
    assert same(saved.policy.state_dict(), restored.policy.state_dict())
    for name in ("updates", "agent_steps", "seconds", "metrics"):
        assert getattr(saved, name) == getattr(restored, name)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train(config(), small_env(), tmp_path)
    second = train(config(), small_env(), tmp_path)
    assert second.policy_uri == first.policy_uri
    assert second.metrics == first.metrics


@pytest.mark.parametrize(
    ("seed", "max_steps", "change"), [(5, 20, r"trainer\.seed: 0 -> 5"), (0, 30, "max_steps: 20 -> 30")]
)
def test_a_run_does_not_resume_with_other_settings(tmp_path: Path, seed: int, max_steps: int, change: str) -> None:
    train(config(), small_env(), tmp_path)
    with pytest.raises(UserError, match=change):
        train(config(seed=seed), small_env(max_steps=max_steps), tmp_path)


def test_the_report_can_stop_a_run(tmp_path: Path) -> None:
    result = train(config(updates=50), small_env(), tmp_path, lambda progress: False)
    assert result.stopped
    assert result.metrics["updates"] == 1
    assert checkpoint.latest(tmp_path) is not None


def test_a_run_that_diverges_says_so(tmp_path: Path) -> None:
    wild = config(updates=20).override("optimizer.learning_rate", 1e30)
    with pytest.raises(TrainingDiverged, match="diverged"):
        train(wild, small_env(), tmp_path)


def test_a_gpu_that_would_idle_is_warned_of() -> None:
    def warnings(device: Literal["cpu", "cuda"], minibatch_size: int, num_environments: int) -> str:
        settings = TrainerConfig(
            device=device, batch_size=262_144, minibatch_size=minibatch_size, num_environments=num_environments
        )
        return " ".join(Plan.of(settings, MettagridGame(small_env()), Ranks(size=2, cores=4)).warnings)

    assert "minibatch_size 32,768 and num_environments 256" in warnings("cuda", 1_024, 256)
    assert "minibatch_size 32,768 and num_environments 256" in warnings("cuda", 32_768, 32)
    assert "idle" not in warnings("cuda", 32_768, 256)
    assert "idle" not in warnings("cpu", 1_024, 32)


def test_updates_and_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(config(total_timesteps=600, minibatch_size=5_000), small_env(), tmp_path)
    assert result.metrics["updates"] == 3  # ceil(600 / 256)
    assert result.metrics["batch_size"] == result.metrics["minibatch_size"] == 256
    assert "only 3 updates" in caplog.text
    assert "5,000 is more than the batch of 256" in caplog.text


def test_the_learning_rate_falls_when_annealed(tmp_path: Path) -> None:
    result = train(config(updates=4, anneal_learning_rate=True), small_env(), tmp_path)
    assert result.metrics["learning_rate"] == pytest.approx(3e-3 / 4)
    settings = config(updates=4, anneal_learning_rate=True, annealing="cosine")
    result = train(settings, small_env(), tmp_path / "cosine")
    assert result.metrics["learning_rate"] == pytest.approx(3e-3 * (1 - math.sqrt(0.5)) / 2)


def test_an_update_ends_when_the_policy_moved_too_far(tmp_path: Path) -> None:
    def epochs(target_kl: float | None) -> float:
        settings = config(updates=1).override("ppo.target_kl", target_kl)
        return train(settings, small_env(), tmp_path / str(target_kl)).metrics["epochs"]

    assert (epochs(None), epochs(1e-9), epochs(1e9)) == (3, 1, 3)


def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, state = EnvironmentSpec.of(small_env()), _state(seed=0)
    before = checkpoint.save(tmp_path, state, spec, {})

    def disk_full(path: Path, value: object) -> None:
        raise OSError("no space left")

    state.updates = 1
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_write_json", disk_full)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save(tmp_path, state, spec, {})
    assert checkpoint.latest(tmp_path) == before
    after = checkpoint.save(tmp_path, state, spec, {})
    assert checkpoint.latest(tmp_path) == after
    assert sorted(path.name for path in after.parent.iterdir()) == ["000000", "000001"]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(config(updates=5, checkpoint_seconds=0, checkpoints_kept=3), small_env(), tmp_path)
    names = [path.name for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["000003", "000004", "000005"]
    train(config(updates=6, checkpoints_kept=1), small_env(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000006"]


def test_a_run_of_an_older_version_without_some_settings_resumes(tmp_path: Path) -> None:
    first = train(config(), small_env(), tmp_path)
    path = Path(first.policy_uri.removeprefix("file://")) / "training.json"
    stored = json.loads(path.read_text())
    for name in ("annealing", "profile"):
        del stored["settings"]["trainer"][name]
    path.write_text(json.dumps(stored))
    assert train(config(updates=4), small_env(), tmp_path).metrics["updates"] == 4


def test_an_annealed_run_is_not_continued_with_another_length(tmp_path: Path) -> None:
    train(config(anneal_learning_rate=True), small_env(), tmp_path)
    with pytest.raises(UserError, match=r"total_timesteps: 768 -> 1,024.*learning rate falls to 0"):
        train(config(updates=4, anneal_learning_rate=True), small_env(), tmp_path)


def test_a_profile_says_where_all_seconds_went(tmp_path: Path) -> None:
    result = train(config(profile=True, checkpoint_seconds=0), small_env(), tmp_path)
    parts = [result.metrics[f"{part}_seconds"] for part in ("stepping", "acting", "learning", "checkpoints")]
    assert all(seconds > 0 for seconds in parts)
    assert "learning" in profile_line(result.metrics, result.seconds)


def test_memory_use_is_measured(tmp_path: Path) -> None:
    metrics = train(config(updates=1), small_env(), tmp_path).metrics
    assert 0.05 < metrics["memory_gib"] < 64
    assert metrics["gpu_memory_gib"] == 0


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_out_of_memory_names_the_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def update(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("metta.rl.ppo.update", update)
    with pytest.raises(OutOfMemory, match=r"batch_size=256, .*minibatch_size=64, .*hidden_size=32") as raised:
        train(config(), small_env(), tmp_path)
    assert not is_mishap(f"Traceback\nOutOfMemory: {raised.value}")


def play(policy_uri: str, seed: int) -> tuple[list[list[int]], float]:
    """The actions of one episode on one map, and the hearts gained in it."""
    player = load_policy(policy_uri)
    environment = Environment(small_env(), Buffers.allocate(player.spec))
    environment.reset(seed=3)
    player.reset(num_agents=2, seed=seed)
    actions = []
    while not environment.done:
        environment.buffers.actions[:] = player.act(environment.buffers.observations)
        actions.append(environment.buffers.actions.tolist())
        environment.step()
    return actions, environment.episode_stats().get("heart.gained", 0.0)


def test_a_loaded_policy_plays_as_it_learnt(tmp_path: Path) -> None:
    early = train(config(updates=1), small_env(), tmp_path / "early").policy_uri
    late = train(config(updates=40), small_env(), tmp_path / "late").policy_uri
    assert play(early, seed=0) == play(early, seed=0)
    assert play(early, seed=0) != play(early, seed=1)
    assert play(late, seed=0)[1] > 8  # of at most 20; drawing actions evenly gains about 2


def test_a_policy_for_another_game_is_refused(tmp_path: Path) -> None:
    spec = EnvironmentSpec.of(small_env())
    require_compatible(spec, EnvironmentSpec.of(small_env(num_agents=4)), "more agents")
    with pytest.raises(UserError, match=r"with vibes: its actions are .*change_vibe"):
        require_compatible(spec, EnvironmentSpec.of(small_env(num_vibes=2)), "with vibes")


@pytest.mark.parametrize("uri", ["file:///nowhere/1", "memory://nowhere/1"])
def test_a_missing_policy_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"no policy\.json"):
        load_policy(uri)


def _state(seed: int) -> checkpoint.TrainingState:
    torch.manual_seed(seed)
    policy = checkpoint.make_policy(EnvironmentSpec.of(small_env()), PolicyConfig(hidden_size=4))
    return checkpoint.TrainingState(policy, Adam(policy.parameters(), OptimizerConfig(learning_rate=0.1)))


def _learn_something(state: checkpoint.TrainingState) -> None:
    weights = parameters_to_vector(state.policy.parameters())
    state.optimizer.step(torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))


TRAINING = """
import sys
from pathlib import Path
from typing import Literal
from experiments.arena import make_env
from metta.rl.trainer import train
from metta.rl.trainer_config import TrainerConfig
train(TrainerConfig(total_timesteps=1, batch_size=32, num_ranks=1), make_env(num_agents=4), Path(sys.argv[1]))
assert not {"torch._dynamo", "sympy"} & set(sys.modules)
"""


def test_training_does_not_import_the_compiler_of_torch(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path)], check=True)
