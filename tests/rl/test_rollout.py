"""The two collectors play the same, with any number of workers."""

from __future__ import annotations

import pytest
import torch

from metta.rl.game import MettagridGame
from metta.rl.policy import Policy
from metta.rl.ppo import Batch
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import Stopwatch
from metta.rl.tokens import TokenBatch
from metta.rl.trainer_config import PolicyConfig, PPOConfig
from tests.rl.small import small_env

Played = list[tuple[Batch, list[dict[str, float]]]]


def play(num_workers: int, first_batch: int = 0, batches: int = 3) -> Played:
    """Batches in which episodes end, with the same policy."""
    game = MettagridGame(small_env(max_steps=7))
    torch.manual_seed(0)
    policy = game.make_policy(PolicyConfig(hidden_size=16))
    assert isinstance(policy, Policy)
    with (
        torch.no_grad(),
        game.collector(policy, 4, 5, num_workers, [3], Ranks(), Stopwatch(), first_batch) as collector,
    ):
        return [collector.collect(policy, PPOConfig()) for _ in range(batches)]


def assert_same(left: Played, right: Played) -> None:
    for (batch, episodes), (other, other_episodes) in zip(left, right, strict=True):
        for name in ("actions", "log_probs", "values", "advantages", "returns"):
            torch.testing.assert_close(getattr(batch, name), getattr(other, name), rtol=1e-5, atol=1e-5)
        assert isinstance(batch.observations, TokenBatch)
        assert isinstance(other.observations, TokenBatch)
        for name in ("rows", "weights", "offsets"):
            assert torch.equal(getattr(batch.observations, name), getattr(other.observations, name))
        assert sorted(map(str, episodes)) == sorted(map(str, other_episodes))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_kernel_plays_what_pytorch_plays(num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = play(num_workers)
    assert any(episodes for _, episodes in compiled)
    monkeypatch.setattr("metta.rl.game.why_plain", lambda policy: "compared with the kernel")
    assert_same(compiled, play(num_workers))


def test_the_number_of_workers_changes_nothing() -> None:
    for (batch, _), (other, _) in zip(play(0), play(2), strict=True):
        assert torch.equal(batch.values, other.values)
        assert torch.equal(batch.log_probs, other.log_probs)
