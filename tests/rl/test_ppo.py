import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.rl.adam import Adam
from metta.rl.environment import EnvironmentSpec
from metta.rl.policy import ActorCritic, Policy
from metta.rl.ppo import MEASURES, AutogradLearner, Batch, TrainingDiverged, generalized_advantages, ppo_loss, update
from metta.rl.tokens import TokenBatch, Vocabulary
from metta.rl.trainer_config import OptimizerConfig, PPOConfig


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_advantages_by_hand() -> None:
    # Step 1 ends the game; step 2 is in a new one, and is followed by a state worth 4.
    advantages = generalized_advantages(
        rewards=column(1, 2, 3),
        values=column(0.5, 1.0, 2.0),
        next_values=column(1.0, 0.0, 4.0),
        ended=np.array([[False], [True], [False]]),
        gamma=0.5,
        gae_lambda=0.8,
    )
    last = 3 + 0.5 * 4 - 2
    middle = 2 + 0.5 * 0 - 1
    first = (1 + 0.5 * 1 - 0.5) + 0.5 * 0.8 * middle
    np.testing.assert_allclose(advantages, column(first, middle, last), rtol=1e-6)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    def advantage(next_value: float) -> float:
        return float(
            generalized_advantages(
                rewards=column(1, 100),
                values=column(0, 0),
                next_values=column(next_value, 0),
                ended=np.array([[True], [False]]),
                gamma=0.9,
                gae_lambda=0.95,
            )[0, 0]
        )

    assert advantage(next_value=10) == pytest.approx(1 + 0.9 * 10)  # truncated: the last state's value
    assert advantage(next_value=0) == pytest.approx(1)  # terminated


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0.5, 1.0))
def test_with_lambda_1_the_advantage_is_the_discounted_return_less_the_value(
    steps: int, seed: int, gamma: float
) -> None:
    generator = np.random.default_rng(seed)
    rewards, values = generator.normal(size=(2, steps, 3)).astype(np.float32)
    last_value = generator.normal(size=3).astype(np.float32)
    next_values = np.vstack([values[1:], last_value[None]])
    advantages = generalized_advantages(rewards, values, next_values, np.zeros((steps, 3), dtype=bool), gamma, 1.0)
    following = last_value
    for step in reversed(range(steps)):
        following = rewards[step] + gamma * following
        np.testing.assert_allclose(advantages[step], following - values[step], rtol=1e-3, atol=1e-3)


def batch_for(policy: Policy, advantages: list[float], log_ratio: float = 0.0, value_change: float = 0.0) -> Batch:
    """A batch of one-token observations, for which the policy's ratio and values have changed by the given amounts."""
    size = len(advantages)
    tokens = TokenBatch(
        rows=torch.arange(size, dtype=torch.int32),
        weights=torch.ones(size),
        offsets=torch.arange(size + 1, dtype=torch.int32),
    )
    with torch.no_grad():
        logits, values = policy(tokens)
    actions = torch.arange(size) % 2
    log_probs = torch.log_softmax(logits, dim=-1).gather(1, actions[:, None]).squeeze(1)
    advantage = torch.tensor(advantages)
    return Batch(
        tokens, actions, log_probs - log_ratio, values - value_change, advantage, values - value_change + advantage
    )


def evaluated(policy: ActorCritic, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return policy.evaluate(batch.observations, batch.actions)


def entropy(policy: Policy, batch: Batch) -> float:
    _, entropies, _ = evaluated(policy, batch)
    return entropies.mean().item()


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    spec = EnvironmentSpec(1, 6, (1, 5), ("noop", "north"), ("inv:ore",), (), ())
    return Policy(Vocabulary(spec), num_actions=2, hidden_size=8)


def test_the_losses_by_hand(policy: Policy) -> None:
    config = PPOConfig(clip_coef=0.1, vf_coef=0.5, ent_coef=0.0)
    batch = batch_for(policy, [1.0, -1.0], log_ratio=float(np.log(1.5)), value_change=0.3)
    _, measured = ppo_loss(*evaluated(policy, batch), batch, len(batch), config)
    measures = dict(zip(MEASURES, measured, strict=True))
    # Ratio 1.5 is clipped to 1.1 where the advantage is 1 and not where it is -1.
    assert float(measures["policy_loss"]) == pytest.approx(-(1.1 - 1.5) / 2, rel=1e-4)
    # Values are 0.3 from before, 0.1 when clipped; returns are 1 above and 1 below the values before.
    expected = 0.5 * (max(0.7**2, 0.9**2) + max(1.3**2, 1.1**2)) / 2
    assert float(measures["value_loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(measures["loss"]) == pytest.approx(0.2 + 0.5 * expected, rel=1e-4)
    assert float(measures["clip_fraction"]) == 1
    assert float(measures["approx_kl"]) == pytest.approx(0.5 - np.log(1.5), rel=1e-3)


def test_values_have_a_clip_of_their_own(policy: Policy) -> None:
    def value_loss(vf_clip_coef: float | None) -> float:
        config = PPOConfig(clip_coef=0.1, vf_clip_coef=vf_clip_coef)
        batch = batch_for(policy, [1.0, -1.0], value_change=0.3)
        return float(ppo_loss(*evaluated(policy, batch), batch, 2, config)[1][MEASURES.index("value_loss")])

    assert value_loss(None) == value_loss(0.1)
    assert value_loss(0.2) == pytest.approx(0.5 * (0.8**2 + 1.3**2) / 2, rel=1e-4)
    assert value_loss(1e9) == pytest.approx(0.5 * (0.7**2 + 1.3**2) / 2, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_derivatives_are_those_of_the_loss(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = PPOConfig(clip_coef=0.1, vf_coef=0.7, ent_coef=0.3)
    nothing = batch_for(policy, []).observations
    before, old_values, advantages, returns, *changes = torch.randn(7, 64, generator=generator).unbind()
    batch = Batch(nothing, torch.zeros(64), before, old_values, advantages, returns)
    moved = [start + 0.2 * change for start, change in zip((before, torch.ones(64), old_values), changes, strict=True)]
    log_probs, entropies, values = (tensor.requires_grad_() for tensor in moved)

    ratio = (log_probs - batch.log_probs).exp()
    gain = torch.min(ratio * batch.advantages, ratio.clamp(0.9, 1.1) * batch.advantages)
    clipped = values.clamp(batch.values - 0.1, batch.values + 0.1)
    error = torch.max((values - batch.returns).square(), (clipped - batch.returns).square())
    loss = (-gain + 0.7 * 0.5 * error - 0.3 * entropies).mean()
    expected = torch.autograd.grad(loss, (log_probs, entropies, values))

    slopes, measured = ppo_loss(log_probs, entropies, values, batch, 64, config)
    measures = dict(zip(MEASURES, measured, strict=True))
    torch.testing.assert_close(slopes, list(expected))
    torch.testing.assert_close(measures["loss"], loss.detach())
    assert 0 < measures["clip_fraction"] < 1


def test_a_value_within_the_clip_always_has_a_slope() -> None:
    generator = torch.Generator().manual_seed(0)
    before, returns = torch.rand(2, 1000, generator=generator)
    values = before + 0.05 * torch.rand(1000, generator=generator)
    zeros = torch.zeros(1000)
    nothing = TokenBatch(zeros.int(), zeros, torch.zeros(1001, dtype=torch.int32))
    batch = Batch(nothing, zeros.long(), zeros, before, zeros, returns)
    (_, _, slopes), _ = ppo_loss(zeros, zeros, values, batch, 1000, PPOConfig(clip_coef=0.1))
    assert (slopes != 0).all()


def test_nothing_is_gained_by_moving_beyond_the_clip(policy: Policy) -> None:
    config = PPOConfig(clip_coef=0.1, vf_coef=0.0, ent_coef=0.0)
    batch = batch_for(policy, [1.0, -1.0, 1.0, -1.0], log_ratio=0.5)
    batch.advantages[:] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    outputs = evaluated(policy, batch)
    slopes, _ = ppo_loss(*outputs, batch, len(batch), config)
    (gradient,) = torch.autograd.grad(outputs, policy.place_embeddings, slopes)
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[[1, 3]] != 0).any()


def test_the_entropy_bonus_makes_choices_more_even(policy: Policy) -> None:
    with torch.no_grad():
        policy.actor.weight.normal_()
    batch = batch_for(policy, [0.0] * 6)
    optimizer = Adam(policy.parameters(), OptimizerConfig(learning_rate=1e-2))
    config = PPOConfig(ent_coef=1.0, vf_coef=0.0, update_epochs=20)
    before = entropy(policy, batch)
    update(
        AutogradLearner(policy), optimizer, batch, config, num_minibatches=2, generator=torch.Generator().manual_seed(0)
    )
    assert entropy(policy, batch) > before


def test_an_update_makes_good_actions_more_likely_and_values_more_accurate(policy: Policy) -> None:
    batch = batch_for(policy, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    config = PPOConfig(update_epochs=20)
    optimizer = Adam(policy.parameters(), OptimizerConfig(learning_rate=1e-2))
    measures = update(
        AutogradLearner(policy), optimizer, batch, config, num_minibatches=1, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        logits, values = policy(batch.observations)
    log_probs = torch.log_softmax(logits, dim=-1).gather(1, batch.actions[:, None]).squeeze(1)
    assert (log_probs[[0, 2, 4]] > batch.log_probs[[0, 2, 4]]).all()
    assert (log_probs[[1, 3, 5]] < batch.log_probs[[1, 3, 5]]).all()
    assert (values - batch.returns).abs().mean() < 0.9 * (batch.values - batch.returns).abs().mean()
    assert measures["explained_variance"] == pytest.approx(
        1 - float((batch.returns - batch.values).var() / batch.returns.var()), abs=1e-4
    )


def test_each_sample_is_in_one_minibatch_of_each_epoch(policy: Policy) -> None:
    seen: list[list[int]] = []
    policy.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].rows.tolist()))
    batch = batch_for(policy, [1.0, -1.0, 1.0, -1.0, 1.0])
    seen.clear()
    config = PPOConfig(update_epochs=3)
    optimizer = Adam(policy.parameters(), OptimizerConfig())
    update(
        AutogradLearner(policy), optimizer, batch, config, num_minibatches=2, generator=torch.Generator().manual_seed(0)
    )
    assert [len(rows) for rows in seen] == [3, 2] * 3
    for epoch in range(3):
        assert sorted(seen[2 * epoch] + seen[2 * epoch + 1]) == [0, 1, 2, 3, 4]


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_policy(policy: Policy) -> None:
    batch = batch_for(policy, [1.0, float("nan")])
    before = [parameter.clone() for parameter in policy.parameters()]
    optimizer = Adam(policy.parameters(), OptimizerConfig())
    with pytest.raises(TrainingDiverged, match=r"policy_loss is nan.*lower learning rate"):
        update(AutogradLearner(policy), optimizer, batch, PPOConfig(), num_minibatches=1, generator=torch.Generator())
    assert all(torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))
