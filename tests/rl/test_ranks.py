import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from metta.common.errors import UserError
from metta.rl import checkpoint
from metta.rl.environment import EnvironmentSpec
from metta.rl.launch import RankFailedError, started_ranks
from metta.rl.policy import Policy
from metta.rl.ppo import AutogradLearner, Batch, TrainingDiverged, update
from metta.rl.ranks import Ranks
from metta.rl.tokens import TokenBatch, Vocabulary
from metta.rl.trainer import TrainingProgress, TrainingResult, train
from metta.rl.trainer_config import PPOConfig
from metta.rl.worker_pool import WorkerError
from tests.rl.small import small_env
from tests.rl.test_trainer import config, same, weights

SAMPLES = 12


def batch() -> Batch:
    """Experience of one-token observations, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randperm(SAMPLES, generator=generator).to(torch.int32)
    tokens = TokenBatch(observations, torch.ones(SAMPLES), torch.arange(SAMPLES + 1, dtype=torch.int32))
    values, advantages = torch.randn(2, SAMPLES, generator=generator)
    log_probs = -torch.rand(SAMPLES, generator=generator)
    return Batch(tokens, torch.arange(SAMPLES) % 2, log_probs, values, advantages, values + advantages)


class GradientDescent:
    """Gradient descent with a learning rate of 1."""

    def __init__(self, policy: Policy) -> None:
        self.parameters = list(policy.parameters())

    def step(self, gradient: torch.Tensor, skip: torch.Tensor) -> None:
        assert not skip
        with torch.no_grad():
            vector_to_parameters(parameters_to_vector(self.parameters) - gradient, self.parameters)


def learn_from_part(ranks: Ranks) -> tuple[Policy, dict[str, float]]:
    """Make one step of gradient descent on a rank's part of the batch."""
    torch.manual_seed(0)
    spec = EnvironmentSpec(1, 6, (1, 5), ("noop", "north"), ("inv:ore", "inv:battery", "inv:heart"), (), ())
    policy = Policy(Vocabulary(spec), num_actions=2, hidden_size=8)
    part = batch().select(torch.tensor(ranks.part(SAMPLES)))
    settings = PPOConfig(update_epochs=1, max_grad_norm=0.1)
    measures = update(
        AutogradLearner(policy), GradientDescent(policy), part, settings, 1, torch.Generator().manual_seed(0), ranks
    )
    return policy, measures


def test_two_ranks_have_the_gradient_of_one() -> None:
    alone, expected = learn_from_part(Ranks())
    with started_ranks(2, learn_from_part, on_gpu=False) as ranks:
        together, measures = learn_from_part(ranks)
    assert expected["grad_norm"] > 0.1
    for name, parameter in together.named_parameters():
        torch.testing.assert_close(parameter, alone.get_parameter(name), rtol=1e-5, atol=1e-6)
    assert measures == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_two_ranks_learn_and_one_resumes(tmp_path: Path) -> None:
    rewards: list[float] = []

    def report(progress: TrainingProgress) -> bool:
        rewards.append(progress.metrics["reward_per_step"])
        return True

    result = train(config(updates=40, num_ranks=2), small_env(), tmp_path, report)
    assert result.metrics["reward_per_step"] > 3 * rewards[0]
    assert result.metrics["num_ranks"] == 2
    assert result.metrics["batch_size"] == 256
    assert result.metrics["agent_steps"] == 40 * 256
    assert result.metrics["train/heart.gained"] == pytest.approx(result.metrics["reward"])
    alone = train(config(updates=41, num_ranks=1), small_env(), tmp_path)
    assert alone.metrics["updates"] == 41
    assert alone.metrics["num_ranks"] == 1
    assert alone.metrics["reward_per_step"] > 2 * rewards[0]


def test_the_number_of_ranks_and_workers_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    """Sums over a minibatch differ in the last bits, because each rank and thread adds its own part."""

    def run(num_ranks: int, num_workers: int) -> dict[str, torch.Tensor]:
        run_dir = tmp_path / f"{num_ranks}-{num_workers}"
        return weights(train(config(updates=3, num_ranks=num_ranks, num_workers=num_workers), small_env(), run_dir))

    alone = run(1, 0)
    for together in (run(2, 0), run(1, 2)):
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name], tensor, rtol=0, atol=1e-5)


def test_a_seed_fixes_what_ranks_do_and_a_report_stops_them(tmp_path: Path) -> None:
    def run(name: str) -> TrainingResult:
        return train(config(updates=9, num_ranks=2), small_env(), tmp_path / name, lambda progress: False)

    first, second = run("first"), run("second")
    assert first.stopped
    assert first.metrics["updates"] == 1
    assert same(weights(first), weights(second))
    assert len(load_file(Path(first.policy_uri.removeprefix("file://")) / "training.safetensors")) > 0
    assert checkpoint.latest(tmp_path / "first") is not None


def test_ranks_need_environments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="9 ranks have only 8 environments"):
        train(config(num_ranks=9), small_env(), tmp_path)


def test_ranks_that_diverge_say_so(tmp_path: Path) -> None:
    wild = config(updates=20, num_ranks=2).override("optimizer.learning_rate", 1e30)
    with pytest.raises(TrainingDiverged, match="diverged"):
        train(wild, small_env(), tmp_path)


def test_environments_that_fail_on_all_ranks(tmp_path: Path) -> None:
    broken = small_env()
    broken.game.map_builder.agents = 1  # type: ignore[attr-defined]
    with pytest.raises((ValueError, WorkerError, RankFailedError), match="exceeds available spawn points"):
        train(config(num_ranks=2), broken, tmp_path)


def raise_on_the_second(ranks: Ranks) -> None:
    ranks.gather(os.getpid())
    if not ranks.leads:
        raise ValueError("no more ore")
    ranks.average(torch.zeros(3))


def die_on_the_second(ranks: Ranks) -> None:
    ranks.gather(os.getpid())
    if not ranks.leads:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.average(torch.zeros(3))


def wait_for_the_first(ranks: Ranks) -> None:
    ranks.gather(os.getpid())
    ranks.average(torch.zeros(3))


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (raise_on_the_second, r"(?s)rank 1 failed:.*ValueError: no more ore"),
        (die_on_the_second, "rank 1 died.*SIGKILL"),
    ],
)
def test_a_rank_that_fails_fails_the_run(work: Callable[[Ranks], None], reason: str) -> None:
    with pytest.raises(RankFailedError, match=reason), started_ranks(2, work, on_gpu=False) as ranks:
        work(ranks)


def test_no_rank_outlives_one_that_fails_here() -> None:
    pids: list[int] = []

    def be_interrupted(ranks: Ranks) -> None:
        pids.extend(ranks.gather(os.getpid()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), started_ranks(3, wait_for_the_first, on_gpu=False) as ranks:
        be_interrupted(ranks)
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in pids if pid != os.getpid()):
        assert time.monotonic() < deadline, "ranks are still there"
        time.sleep(0.05)
    assert len(set(pids)) == 3


def test_parts_are_even() -> None:
    assert [Ranks(rank, 3).part(9) for rank in range(3)] == [range(3), range(3, 6), range(6, 9)]
