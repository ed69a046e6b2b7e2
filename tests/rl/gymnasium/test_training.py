from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import gymnasium as experiment
from experiments import sweep_gymnasium
from metta.common.errors import UserError
from metta.common.runner import main as run_tool
from metta.rl.gymnasium.config import GymnasiumConfig, GymnasiumSimulation
from metta.rl.gymnasium.environments import GymnasiumEnvironments, spec_of
from metta.rl.gymnasium.evaluate import evaluate, load_policy
from metta.rl.gymnasium.game import GymnasiumCollector, GymnasiumGame
from metta.rl.gymnasium.policy import GymnasiumPolicy, Moments
from metta.rl.plan import Plan
from metta.rl.ranks import Ranks
from metta.rl.stopwatch import Stopwatch
from metta.rl.trainer import TrainingResult, train
from metta.rl.trainer_config import OptimizerConfig, PolicyConfig, PPOConfig, TrainerConfig
from metta.rl.worker_pool import WorkerError
from metta.tools.gymnasium import GymnasiumTool
from metta.tools.sweep import retrain

MODULE = "tests.support.gymnasium_environments"
ALONE: Any = {"ranks": Ranks(), "stopwatch": Stopwatch()}
LEVERS = GymnasiumConfig(env_id=f"{MODULE}:Levers-v0")
QUICK = TrainerConfig(
    total_timesteps=2048,
    batch_size=256,
    minibatch_size=64,
    num_environments=8,
    num_ranks=1,
    device="cpu",
    optimizer=OptimizerConfig(learning_rate=3e-3),
    ppo=PPOConfig(gamma=0.5, ent_coef=0.0, update_epochs=4),
    policy=PolicyConfig(hidden_size=32),
)


def trained(tmp_path: Path, env: GymnasiumConfig, **changes: Any) -> TrainingResult:
    return train(QUICK.model_copy(update=changes), env, tmp_path)


def mean_reward(policy_uri: str, env: GymnasiumConfig) -> float:
    episodes = evaluate(*load_policy(policy_uri), GymnasiumSimulation(env=env))
    return sum(episode["reward"] for episode in episodes) / len(episodes)


@pytest.mark.parametrize("shown", ["number", "flag", "image"])
def test_it_learns_to_choose(tmp_path: Path, shown: str) -> None:
    env = LEVERS.model_copy(update={"options": {"shown": shown}})
    assert mean_reward(trained(tmp_path, env).policy_uri, env) > 4.5  # of 5; chance is 2.5


def test_it_learns_real_actions(tmp_path: Path) -> None:
    env = LEVERS.model_copy(update={"options": {"real": True}})
    assert mean_reward(trained(tmp_path, env, total_timesteps=5120).policy_uri, env) > 4.0  # of 5; 0.5 gives 2.5


def test_it_learns_with_several_agents_of_pettingzoo(tmp_path: Path) -> None:
    env = GymnasiumConfig(env_id=MODULE)
    result = trained(tmp_path, env, total_timesteps=4096)
    assert mean_reward(result.policy_uri, env) > 3.6  # agents see 5 and 3 numbers, so 4 is most
    assert load_policy(result.policy_uri)[1].num_agents == 2


def test_statistics_are_resumed_from_the_checkpoint(tmp_path: Path) -> None:
    first = train(QUICK, LEVERS, tmp_path, lambda progress: progress.agent_steps < 1024)
    assert first.stopped
    before = load_policy(first.policy_uri)[0]
    longer = QUICK.override("total_timesteps", 4 * QUICK.total_timesteps)
    after = load_policy(train(longer, LEVERS, tmp_path).policy_uri)[0]
    assert 0 < float(before.observed.count) < float(after.observed.count)
    assert 0 < float(before.returns.count) < float(after.returns.count)
    assert float(after.observed.mean[2]) == pytest.approx(50.5, abs=0.1)
    assert after.scaled.tolist() == [False, False, True]


def test_without_normalisation_numbers_stay_unchanged(tmp_path: Path) -> None:
    env = LEVERS.model_copy(update={"normalize_observations": False, "normalize_rewards": False})
    policy, _ = load_policy(trained(tmp_path, env, total_timesteps=512).policy_uri)
    assert not policy.scaled.any()
    assert float(policy.returns.count) == 0


def test_a_seed_gives_the_same_run(tmp_path: Path) -> None:
    results = [trained(tmp_path / str(i), LEVERS, total_timesteps=512, seed=seed) for i, seed in enumerate((1, 1, 2))]
    losses = [result.metrics["loss"] for result in results]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("env", [LEVERS, GymnasiumConfig(env_id=MODULE)])
def test_workers_change_nothing(tmp_path: Path, env: GymnasiumConfig) -> None:
    """Neither weights and statistics nor the stats of episodes, bit for bit."""
    runs = [
        trained(tmp_path / str(workers), env, total_timesteps=512, num_workers=workers, num_environments=3)
        for workers in (0, 1, 2)
    ]
    policies = [load_policy(run.policy_uri)[0].state_dict() for run in runs]
    for run, policy in zip(runs[1:], policies[1:], strict=True):
        assert run.metrics["reward"] == runs[0].metrics["reward"]
        assert all(torch.equal(policy[name], value) for name, value in policies[0].items())


def test_slow_environments_step_in_workers_and_fast_ones_do_not() -> None:
    def workers(options: dict[str, Any], num_environments: int, **settings: Any) -> int:
        game = GymnasiumGame(GymnasiumConfig(env_id=LEVERS.env_id, options=options))
        config = QUICK.model_copy(update={"num_environments": num_environments, **settings})
        return Plan.of(config, game, Ranks(cores=4)).num_workers

    assert workers({"seconds": 2e-3}, 8) == 4
    assert workers({}, 1) == 0
    assert workers({}, 8, num_workers=3) == 3


@pytest.mark.parametrize("when", ["reset", "step"])
def test_an_environment_that_fails_in_a_worker_shows_its_traceback(when: str) -> None:
    env = GymnasiumConfig(env_id=f"{MODULE}:Broken-v0", options={"when": when})
    with (
        pytest.raises(WorkerError, match=rf"in worker process [01]:\n(.*\n)*.*in {when}\n(.*\n)*.*the {when} broke"),
        GymnasiumEnvironments(env, range(2), [0], num_workers=2) as environments,
    ):
        environments.step(np.zeros((2, 1, 1), dtype=np.int64))


def with_values_of_one(environments: GymnasiumEnvironments) -> GymnasiumPolicy:
    """A policy whose critic always returns 1."""
    policy = GymnasiumPolicy(environments.spec, 4, normalized=True)
    torch.nn.init.zeros_(policy.critic[-1].weight)  # type: ignore[arg-type]
    torch.nn.init.ones_(policy.critic[-1].bias)  # type: ignore[arg-type]
    return policy


def test_the_return_of_a_truncated_episode_includes_the_value_that_follows() -> None:
    """With a critic that is always 1 and rewards of 0 to 1, the return of a last step is its reward + gamma."""
    environments = GymnasiumEnvironments(LEVERS, range(2), [0])
    policy = with_values_of_one(environments)
    player = GymnasiumCollector(environments, 5, normalize_rewards=False, seed=[0], **ALONE)
    config = PPOConfig(gamma=0.5, gae_lambda=1.0)
    batch, episodes = player.collect(policy, config)
    last = batch.returns.view(5, 2)[-1]
    assert all(value in (0.5, 1.5) for value in last.tolist())
    assert [episode["episode_length"] for episode in episodes] == [5.0, 5.0]
    assert sum(episode["reward"] for episode in episodes) == pytest.approx(player.reward_per_step * 10)


@pytest.mark.parametrize("truncated", [False, True])
def test_an_agent_whose_episode_ended_early_is_not_learnt_from(truncated: bool) -> None:
    """The second agent plays 3 of the Pair's 5 steps; where it is cut off, a critic that is always 1 adds gamma."""
    environments = GymnasiumEnvironments(
        GymnasiumConfig(env_id=MODULE, options={"truncated": truncated}), range(2), [0]
    )
    policy = with_values_of_one(environments)
    player = GymnasiumCollector(environments, 5, normalize_rewards=True, seed=[0], **ALONE)
    config = PPOConfig(gamma=0.5, gae_lambda=0.0)
    batch, _ = player.collect(policy, config)
    assert len(batch) == len(batch.actions) == len(batch.returns) == 2 * (5 + 3)
    assert float(policy.returns.count) == 16
    player.collect(policy, config)
    assert float(policy.observed.count) == 16

    plain = GymnasiumCollector(environments, 5, normalize_rewards=False, seed=[0], **ALONE)
    batch, _ = plain.collect(policy, config)
    last_of_second = batch.returns[torch.tensor([9, 11])]  # after two steps of 4 agents, a, b, a, b
    assert plain.reward_per_step in {wins / 16 for wins in range(17)}
    assert all(value in ((0.5, 1.5) if truncated else (0.0, 1.0)) for value in last_of_second.tolist())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=6), min_size=1, max_size=5))
def test_merged_moments_are_those_of_all_samples(parts: list[list[float]]) -> None:
    moments = Moments(1)
    for part in parts:
        samples = torch.tensor(part, dtype=torch.float64)[:, None]
        moments.merge(samples.mean(0), samples.square().mean(0), len(part))
    everything = np.concatenate(parts)
    assert float(moments.mean) == pytest.approx(everything.mean(), abs=1e-9)
    assert float(moments.variance) == pytest.approx(everything.var(), abs=1e-6)


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(UserError, match=r"env_id=CartPol-v1: .*CartPole"):
        spec_of(GymnasiumConfig(env_id="CartPol-v1"))
    with pytest.raises(UserError, match=r"env_id=no\.such_module: no parallel environment"):
        spec_of(GymnasiumConfig(env_id="no.such_module"))
    with pytest.raises(UserError, match="its agents have different observation spaces"):
        spec_of(GymnasiumConfig(env_id=MODULE, options={"same": False}))


def test_frames_are_stacked_and_grey() -> None:
    env = GymnasiumConfig(env_id=LEVERS.env_id, options={"shown": "image"}, frame_stack=3, grayscale=True)
    (leaf,) = spec_of(env).leaves
    assert leaf.image == (3, 8, 12)


def test_the_tool_trains_and_evaluates(tmp_path: Path) -> None:
    tool = experiment.train("CartPole-v1", "run").update({"trainer.total_timesteps": 512, "trainer.num_ranks": 1})
    result = tool.run(lambda progress: True, tmp_path)
    assert set(tool.metric_names()) - {"num_ranks"} <= result.metrics.keys()
    assert result.metrics["evaluation"] == result.metrics["evaluation/episode_length"] > 5
    episodes = evaluate(*load_policy(result.artefacts["policy"]), tool.simulations[0])
    assert sum(episode["reward"] for episode in episodes) / 20 == result.metrics["evaluation"]


def test_the_command_that_is_printed_evaluates_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    args = [f"env_id={LEVERS.env_id}", 'options={"shown": "flag"}', "run_name=mine"]
    quick = ["trainer.total_timesteps=512", "trainer.num_ranks=1"]
    assert run_tool(["experiments.gymnasium.train", "--args", *args, "--overrides", *quick]) == 0
    printed = capsys.readouterr().out.splitlines()
    words = shlex.split(printed[printed.index("to evaluate it again:") + 1])
    assert run_tool(words[words.index("experiments.gymnasium.evaluate") :]) == 0
    assert "over 100 episodes of 5 steps" in capsys.readouterr().out


def test_a_simulation_that_the_policy_cannot_play_is_refused(tmp_path: Path) -> None:
    tool = experiment.train("CartPole-v1").update({"simulations": [GymnasiumSimulation(env=LEVERS)]})
    with pytest.raises(UserError, match="simulation evaluation: its observations are"):
        tool.run(lambda progress: True, tmp_path)


def test_it_is_swept_and_retrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    tool = sweep_gymnasium.sweep("cartpole", num_trials=2, total_timesteps=256).update({"seed": 0, "num_workers": 1})
    trials = tool.run().trials
    assert [trial.error for trial in trials] == [None, None]
    assert all(trial.score == trial.metrics["evaluation"] > 5 for trial in trials)
    assert all(trial.metrics["agent_steps"] == 256 for trial in trials)
    again = retrain("cartpole", trial=1)
    assert isinstance(again, GymnasiumTool)
    assert again.trainer.ppo.gamma == trials[1].params["trainer.ppo.gamma"]


def test_a_sweep_for_a_metric_that_is_not_measured_is_refused() -> None:
    with pytest.raises(UserError, match=r"no run measures the metric 'evaluaton'.*evaluation"):
        sweep_gymnasium.sweep("x", metric="evaluaton").definition()
