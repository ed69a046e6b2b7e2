"""Policies with memory, and policies of the user's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metta.common.errors import UserError
from metta.rl.checkpoint import load_policy
from metta.rl.environment import Buffers, Environment, EnvironmentSpec
from metta.rl.game import game_of
from metta.rl.gymnasium.config import GymnasiumConfig, GymnasiumSimulation
from metta.rl.gymnasium.evaluate import evaluate
from metta.rl.gymnasium.evaluate import load_policy as load_gymnasium_policy
from metta.rl.memory import MinGRU, Sequences
from metta.rl.policy import ActorCritic, Policy
from metta.rl.ppo import Batch
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import Stopwatch
from metta.rl.trainer import train
from metta.rl.trainer_config import PolicyConfig, PPOConfig
from tests.rl.gymnasium.test_training import LEVERS, MODULE, QUICK
from tests.rl.small import small_env
from tests.rl.test_trainer import config, same, weights

RECALL = GymnasiumConfig(env_id=f"{MODULE}:Recall-v0")
REMEMBERING = PolicyConfig(hidden_size=16, memory="mingru")


def test_a_whole_sequence_gives_the_states_of_single_steps() -> None:
    torch.manual_seed(0)
    layer, inputs, before = MinGRU(3, 5), torch.randn(7, 2, 3), torch.randn(2, 5)
    begins = torch.rand(7, 2) < 0.3
    whole = layer.states(inputs, before, begins)
    state = before.clone()
    for step in range(7):
        state[begins[step]] = 0.0
        with torch.no_grad():
            after = layer(inputs[step], state)
        torch.testing.assert_close(after, whole[step])
        torch.testing.assert_close(state, whole[step])


def test_nothing_is_remembered_across_the_beginning_of_an_episode() -> None:
    layer, inputs = MinGRU(3, 5), torch.randn(4, 1, 3)
    begins = torch.tensor([[False], [False], [True], [False]])
    one, other = (layer.states(inputs, torch.full((1, 5), value), begins) for value in (-1.0, 1.0))
    assert not torch.equal(one[1], other[1])
    assert torch.equal(one[2:], other[2:])


@pytest.mark.parametrize("env", [small_env(max_steps=6), small_env(max_steps=6, truncates=False), LEVERS, RECALL])
def test_what_is_learnt_from_is_what_was_played(env: Any) -> None:
    """On the sequences of a batch the policy computes the log-probabilities and values that it had while it played."""
    game = game_of(env)
    torch.manual_seed(0)
    policy = game.make_policy(REMEMBERING)
    for parameter in policy.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)  # so that actions depend on what is remembered
    begins = remembers = False
    with game.collector(policy, 4, 7, 0, [0], Ranks(), Stopwatch()) as collector:
        for _ in range(3):  # the later ones begin within episodes
            batch, _ = collector.collect(policy, PPOConfig())
            assert isinstance(batch.observations, Sequences)
            assert_played(policy, batch)
            begins |= bool(batch.observations.begins.any())
            remembers |= bool(batch.observations.states.any())
    assert begins
    assert remembers


def assert_played(policy: ActorCritic, batch: Batch) -> None:
    log_probs, _, values = policy.evaluate(batch.observations, batch.actions)
    torch.testing.assert_close(log_probs, batch.log_probs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values, batch.values, rtol=1e-4, atol=1e-4)
    whole = torch.arange(2 * batch.segment, 3 * batch.segment)  # a minibatch of one segment
    chosen = batch.select(whole)
    torch.testing.assert_close(policy.evaluate(chosen.observations, chosen.actions)[0], log_probs[whole])
    nothing = batch.select(whole[:0])  # the part of a rank that has none of the minibatch
    assert policy.evaluate(nothing.observations, nothing.actions)[2].shape == (0,)


def test_memory_solves_what_needs_memory(tmp_path: Path) -> None:
    def score(memory: str) -> float:
        settings = QUICK.model_copy(deep=True).update(
            {
                "total_timesteps": 5_120,
                "optimizer.learning_rate": 1e-2,
                "ppo.gamma": 0.95,
                "ppo.update_epochs": 3,
                "policy.memory": memory,
                "policy.hidden_size": 16,
            }
        )
        policy = load_gymnasium_policy(train(settings, RECALL, tmp_path / memory).policy_uri)
        episodes = evaluate(*policy, GymnasiumSimulation(env=RECALL, num_episodes=100))
        return float(np.mean([episode["reward"] for episode in episodes]))

    assert score("none") < 0.7
    assert score("mingru") > 0.9


def test_a_policy_with_memory_is_trained_resumed_and_played(tmp_path: Path) -> None:
    settings = config(updates=2, policy=REMEMBERING)
    first = train(settings, small_env(), tmp_path)
    assert not same(weights(first), weights(train(settings.override("total_timesteps", 1024), small_env(), tmp_path)))

    player = load_policy(first.policy_uri)

    def actions() -> list[list[int]]:
        environment = Environment(small_env(), Buffers.allocate(player.spec))
        environment.reset(seed=3)
        player.reset(num_agents=2, seed=0)
        played = []
        for _ in range(20):
            played.append(player.act(environment.buffers.observations).tolist())
            environment.buffers.actions[:] = played[-1]
            environment.step()
        return played

    assert actions() == actions()
    assert player._states.any()
    player.reset(num_agents=2, seed=0)
    assert not player._states.any()


def test_agents_that_leave_early_are_refused_before_training(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"policy": REMEMBERING})
    with pytest.raises(UserError, match="may leave an episode early"):
        train(settings, GymnasiumConfig(env_id=MODULE), tmp_path)


class Shy(Policy):
    """A policy that values nothing."""

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, values = super().heads(features)
        return logits, 0.0 * values


def test_a_policy_of_the_users_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        result = train(config(policy=PolicyConfig(hidden_size=8, type=f"{__name__}:Shy")), small_env(), tmp_path)
    assert "PyTorch: the compiled kernel does not support Shy" in caplog.text
    assert result.metrics["explained_variance"] == 0
    player = load_policy(result.policy_uri)
    player.reset(num_agents=2, seed=0)
    spec = EnvironmentSpec.of(small_env())
    assert player.act(np.full((2, spec.num_tokens, 3), 0xFF, dtype=np.uint8)).shape == (2,)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere:Shy", "No module"), (f"{__name__}:Absent", "Absent"), (f"{__name__}:REMEMBERING", "subclass of")],
)
def test_an_unusable_policy_class_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"trainer\.policy\.type={name}: .*{reason}"):
        train(config(policy=PolicyConfig(type=name)), small_env(), tmp_path)
