"""The kernel against its plain twins."""

import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.rl.adam import Adam
from metta.rl.environment import EnvironmentSpec
from metta.rl.kernel import build
from metta.rl.kernel.build import Unavailable
from metta.rl.kernel.functions import kernel
from metta.rl.kernel.learner import KernelLearner
from metta.rl.kernel.network import KernelNetwork
from metta.rl.policy import Actor, Policy, actor_of
from metta.rl.ppo import AutogradLearner, Batch, Learner, TrainingDiverged, update
from metta.rl.tokens import TokenBatch, Vocabulary
from metta.rl.trainer import train
from metta.rl.trainer_config import OptimizerConfig, PPOConfig
from tests.rl.small import small_env
from tests.rl.test_tokens import SPEC, observations, pack
from tests.rl.test_trainer import config, weights

FIELDS = ("rows", "weights", "offsets")


@pytest.fixture(autouse=True)
def _compiled() -> None:
    kernel()  # the machine that runs the tests has a compiler


@settings(max_examples=60, deadline=None)
@given(observations())
def test_tokens_are_encoded_to_the_bit(batch: list[list[tuple[int, int, int]]]) -> None:
    vocabulary = Vocabulary(SPEC)
    compiled, plain = vocabulary.encode(pack(batch)), vocabulary.encode_plainly(pack(batch))
    for name in FIELDS:
        assert torch.equal(getattr(compiled, name), getattr(plain, name))
        assert getattr(compiled, name).dtype == getattr(plain, name).dtype


@settings(max_examples=30, deadline=None)
@given(observations(), st.data())
def test_tokens_are_selected_to_the_bit(batch: list[list[tuple[int, int, int]]], data: st.DataObject) -> None:
    tokens = Vocabulary(SPEC).encode(pack(batch))
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, len(batch) - 1), min_size=1, max_size=6)))
    compiled = tokens.select(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metta.rl.tokens.kernel_is_available", lambda: False)
        plain = tokens.select(chosen)
    for name in FIELDS:
        assert torch.equal(getattr(compiled, name), getattr(plain, name))


def policy_of(hidden_size: int, num_actions: int) -> Policy:
    """A policy with weights that matter everywhere; the widths of the network are not multiples of a vector's."""
    torch.manual_seed(hidden_size)
    actions = tuple(f"action {index}" for index in range(num_actions))
    spec = EnvironmentSpec(1, 6, (3, 5), actions, ("inv:ore", "inv:heart", "last_action"), (), ())
    policy = Policy(Vocabulary(spec), num_actions, hidden_size)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return policy


def experience(policy: Policy, size: int) -> Batch:
    """Experience of observations with 0 to 40 tokens; ratios and values are on both sides of the clips."""
    generator = torch.Generator().manual_seed(size)
    lengths = torch.randint(0, 41, (size,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(torch.int32)
    count = int(offsets[-1])
    rows = torch.randint(0, len(policy.embeddings()), (count,), generator=generator).to(torch.int32)
    tokens = TokenBatch(rows, torch.rand(count, generator=generator) + 0.5, offsets)
    actions = torch.randint(0, len(policy.actor.bias), (size,), generator=generator)
    with torch.no_grad():
        log_probs, _, values = policy.evaluate(tokens, actions)
    noise = torch.randn(4, size, generator=generator) * torch.tensor([[0.3], [0.3], [1.0], [1.0]])
    return Batch(tokens, actions, log_probs + noise[0], values + noise[1], noise[2], values + noise[3])


SHAPES = [(1, 1), (7, 2), (16, 5), (40, 17), (128, 5), (150, 33)]


@pytest.mark.parametrize(("hidden_size", "num_actions"), SHAPES)
def test_it_plays_as_pytorch_does(hidden_size: int, num_actions: int) -> None:
    policy = policy_of(hidden_size, num_actions)
    tokens = experience(policy, 100).observations
    assert isinstance(tokens, TokenBatch)
    uniforms = torch.rand(100, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = Actor(policy)
        expected_actions, expected_log_probs, expected_values = plain.act(tokens, uniforms)
        bounds = torch.softmax(policy(tokens)[0], dim=-1).cumsum(dim=-1)
    compiled = actor_of(policy)
    assert isinstance(compiled, KernelNetwork)
    actions, log_probs, values = compiled.act(tokens, uniforms)
    decided = ((bounds - uniforms[:, None]).abs() > 1e-5).all(dim=1)
    assert decided.sum() > 90
    assert torch.equal(actions[decided], expected_actions[decided])
    torch.testing.assert_close(log_probs[decided], expected_log_probs[decided], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, expected_values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled.values(tokens), expected_values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("hidden_size", "num_actions"), SHAPES)
@pytest.mark.parametrize(("size", "threads"), [(1, 1), (47, 2), (48, 1), (700, 1), (800, 3)])
def test_losses_and_gradients_are_those_of_autograd(
    hidden_size: int, num_actions: int, size: int, threads: int
) -> None:
    policy = policy_of(hidden_size, num_actions)
    batch = experience(policy, size + 10)
    indices = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))[:size]
    advantages = torch.randn(size, generator=torch.Generator().manual_seed(1))
    settings = PPOConfig(clip_coef=0.1, vf_clip_coef=0.05, vf_coef=0.7, ent_coef=0.3)

    def compute(learner: Learner) -> torch.Tensor:
        return learner.loss_gradient(batch, indices, advantages, size + 0.5, settings)

    expected, actual = compute(AutogradLearner(policy)), compute(KernelLearner(policy, threads))
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6 * max(1.0, scale))


def test_what_is_not_finite_is_measured_as_such() -> None:
    policy = policy_of(16, 5)
    batch = experience(policy, 60)
    advantages = torch.zeros(60)
    advantages[50] = torch.nan
    measured = KernelLearner(policy).loss_gradient(batch, torch.arange(60), advantages, 60, PPOConfig())[-6:]
    assert torch.isnan(measured[:2]).all()
    assert torch.isfinite(measured[2:]).all()
    with torch.no_grad():
        policy.hidden.bias[3] = torch.nan
    assert torch.isnan(
        KernelLearner(policy).loss_gradient(batch, torch.arange(60), torch.ones(60), 60, PPOConfig())
    ).any()


@pytest.mark.parametrize(("hidden_size", "num_actions"), [(7, 2), (128, 5), (150, 33)])
@pytest.mark.parametrize("optimizer", [OptimizerConfig(), OptimizerConfig(type="adamw", weight_decay=0.3, beta2=0.9)])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_update_a_policy_together_as_pytorch_does(
    hidden_size: int, num_actions: int, optimizer: OptimizerConfig, threads: int
) -> None:
    settings = PPOConfig(vf_clip_coef=0.05, ent_coef=0.3, max_grad_norm=0.1, update_epochs=2)
    policies = [policy_of(hidden_size, num_actions) for _ in range(2)]
    batch = experience(policies[0], 2500)

    def learnt(learner: Learner, policy: Policy) -> tuple[dict[str, float], torch.Tensor]:
        adam = Adam(policy.parameters(), optimizer)
        generator = torch.Generator().manual_seed(0)
        measured = [update(learner, adam, batch, settings, 3, generator) for _ in range(2)][-1]
        return measured, torch.cat([adam.weights, adam.mean, adam.square, adam.steps[None]])

    expected, plain = learnt(AutogradLearner(policies[0]), policies[0])
    actual, compiled = learnt(KernelLearner(policies[1], threads), policies[1])
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=2e-5)
    assert actual == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert compiled[-1] == 12


def test_a_policy_that_diverges_stays_as_it_was_before() -> None:
    policy = policy_of(16, 5)
    batch = experience(policy, 1200)
    batch.returns[7] = torch.inf
    adam = Adam(policy.parameters(), OptimizerConfig())
    shuffled = torch.randperm(1200, generator=torch.Generator().manual_seed(0)).tensor_split(4)
    (bad,) = (number for number, indices in enumerate(shuffled) if 7 in indices)
    assert bad > 0, "a step comes before"
    with pytest.raises(TrainingDiverged, match="loss is inf"):
        update(KernelLearner(policy, 2), adam, batch, PPOConfig(update_epochs=2), 4, torch.Generator().manual_seed(0))
    assert adam.steps == bad
    assert adam.weights.isfinite().all()


def test_a_run_is_the_same_with_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="metta.rl.trainer")
    settings = config(updates=3, num_ranks=1).override("optimizer.learning_rate", 1e-4)
    compiled = weights(train(settings, small_env(), tmp_path / "compiled"))
    assert "compiled kernel" in caplog.text

    def unavailable() -> None:
        raise Unavailable("no compiler")

    monkeypatch.setattr("metta.rl.kernel.functions.library", unavailable)
    kernel.cache_clear()
    plain = weights(train(settings, small_env(), tmp_path / "plain"))
    kernel.cache_clear()
    assert "no compiler" in caplog.text
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=2e-5)


class TestBuild:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return build.cache_folder()

    def test_processes_that_start_at_once_leave_one_build(self, cache: Path) -> None:
        with ThreadPoolExecutor(3) as pool:
            loaded = list(pool.map(lambda _: build.library.__wrapped__(), range(3)))
        assert all(each.encode for each in loaded)
        assert [path.suffix for path in cache.iterdir()] == [".so"]

    def test_a_build_is_used_again(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        build.library.__wrapped__()
        monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
        build.library.__wrapped__()
        (before,) = cache.iterdir()
        monkeypatch.setattr(build, "_cpu", lambda: "another CPU")
        with pytest.raises(pytest.fail.Exception, match="compiled again"):
            build.library.__wrapped__()
        assert before.exists()

    def test_without_a_compiler_it_says_what_helps(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match="pip install ziglang"):
            build.library.__wrapped__()

    def test_a_compiler_that_fails_is_quoted(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        broken.write_text("#!/bin/sh\necho 'no stdint.h here' >&2\nexit 1\n")
        broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CC", str(broken))
        with pytest.raises(Unavailable, match=r"did not compile it: no stdint.h here"):
            build.library.__wrapped__()
        monkeypatch.setenv("CC", str(tmp_path / "absent"))
        with pytest.raises(Unavailable, match="did not compile it"):
            build.library.__wrapped__()

    def test_where_nothing_can_be_cached_it_is_built_for_the_process(self, cache: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("not a folder")
        assert build.library.__wrapped__().encode

    def test_it_can_be_turned_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("METTA_KERNEL", "off")
        with pytest.raises(Unavailable, match="METTA_KERNEL=off"):
            build.library.__wrapped__()


def test_observations_need_not_be_contiguous() -> None:
    seen = np.random.default_rng(0).integers(0, 5, (4, 3, 3), dtype=np.uint8)
    vocabulary = Vocabulary(SPEC)
    for name in FIELDS:
        assert torch.equal(
            getattr(vocabulary.encode(seen[::2]), name), getattr(vocabulary.encode(seen[::2].copy()), name)
        )
