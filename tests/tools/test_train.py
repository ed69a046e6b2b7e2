import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metta.common.config import ConfigError
from metta.common.errors import UserError
from metta.rl.policy import Policy
from metta.rl.trainer_config import TrainerConfig
from metta.sim.simulation_config import SimulationConfig
from metta.sweep.trial import Progress, TrialSpec
from metta.tools.sim import SimTool
from metta.tools.train import TrainTool
from tests.rl.small import small_env


def tool(**overrides: object) -> TrainTool:
    trainer = TrainerConfig(total_timesteps=3_000, batch_size=1_024, num_workers=0)
    simulations = [SimulationConfig(name="small/room", env=small_env(), num_episodes=2)]
    return TrainTool(run_name="mine", trainer=trainer, env=small_env(), simulations=simulations).update(overrides)


def spec(run_dir: Path, swept: TrainTool, simulations: list[SimulationConfig] | None = None) -> TrialSpec:
    dumped = [simulation.model_dump(mode="json") for simulation in simulations or []]
    return TrialSpec(0, 1, "metta.tools.train:TrainTool", swept.model_dump(mode="json"), dumped, str(run_dir))


def test_a_trial_measures_every_metric_that_a_sweep_may_optimise(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def report(progress: Progress) -> bool:
        seen.append(progress)
        return True

    result = TrainTool.run_trial(spec(tmp_path, tool()), report)
    assert set(tool().metric_names()) <= set(result.metrics)
    assert result.metrics["updates"] == 3
    assert result.metrics["small"] == result.metrics["small/room"] == result.metrics["small/room/heart.gained"]
    assert result.metrics["train/heart.lost"] == 0
    assert 0 < result.cost == pytest.approx(result.metrics["seconds"], abs=1.0)
    assert seen[-1].step == seen[-1].total == result.metrics["agent_steps"]
    assert Path(result.artefacts["policy"].removeprefix("file://")).is_relative_to(tmp_path)
    assert "reward_per_step" in (tmp_path / "train.log").read_text()


def test_a_trial_is_evaluated_on_what_the_sweep_says(tmp_path: Path) -> None:
    chosen = SimulationConfig(name="other/room", env=small_env(num_agents=3), num_episodes=1)
    result = TrainTool.run_trial(spec(tmp_path, tool(), [chosen]), lambda progress: True)
    assert "other/room" in result.metrics
    assert "small/room" not in result.metrics


def test_a_second_attempt_at_a_trial_resumes(tmp_path: Path) -> None:
    first = TrainTool.run_trial(spec(tmp_path, tool()), lambda progress: False)
    assert first.stopped
    assert "small" not in first.metrics
    second = TrainTool.run_trial(spec(tmp_path, tool()), lambda progress: True)
    assert not second.stopped
    assert second.metrics["updates"] == 3
    assert second.metrics["seconds"] > first.cost


@pytest.mark.parametrize("where", ["memory://policies/of runs", "file"])
def test_a_policy_is_shared_and_played_from_there(where: str, tmp_path: Path) -> None:
    url = (tmp_path / "shared").as_uri() if where == "file" else where
    swept = tool(policies=url)
    simulations = swept.simulations
    result = TrainTool.run_trial(spec(tmp_path / "run", swept), lambda progress: True)
    shared = result.artefacts["policy"]
    assert shared.startswith(f"{url}/mine/000003-")

    again = TrainTool.run_trial(spec(tmp_path / "run", swept), lambda progress: True)
    assert again.artefacts["policy"] == shared
    shutil.rmtree(tmp_path / "run")
    assert SimTool(policy_uri=shared, simulations=simulations).evaluate().metrics()["small"] == result.metrics["small"]


def test_the_url_for_policies_is_checked_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Protocol not known: s4"):
        tool(policies="s4://bucket")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/shared"):
        tool(policies=str(tmp_path / "file" / "shared")).run(lambda progress: True, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    for known in ("small", "small/room", "avg_category_score", "small/room/heart.gained", "reward", "train/heart.lost"):
        tool().check_metric(known)
    with pytest.raises(UserError, match=r"'small/romm'; did you mean .*'small/room'"):
        tool().check_metric("small/romm")
    other = SimulationConfig(name="other/room", env=small_env())
    tool().check_metric("other", [other])
    with pytest.raises(UserError, match="'small'"):
        tool().check_metric("small", [other])


def test_an_environment_that_json_changes_is_refused() -> None:
    from mettagrid.config.reward_config import inventoryReward

    broken = small_env()
    broken.game.agent.rewards["heart"] = inventoryReward("heart", max=3)
    with pytest.raises(UserError, match="does not survive JSON"):
        TrainTool(run_name="mine", env=broken)


def test_a_simulation_of_another_game_is_refused_before_training(tmp_path: Path) -> None:
    other = SimulationConfig(name="small/vibes", env=small_env(num_vibes=2))
    with pytest.raises(UserError, match="simulation small/vibes: its actions"):
        tool().model_copy(update={"simulations": [other]}).run(lambda progress: True, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_it_prints_what_was_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    assert tool().invoke() == 0
    output = capsys.readouterr().out
    assert "small/room: heart.gained" in output
    assert f"file://{tmp_path}/runs/mine/checkpoints/000003" in output.replace("\n", "")


def test_ctrl_c_ends_it_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metta.rl.ppo.update", interrupt)
    assert tool().invoke() == 130


DRIVER = """
import sys
from experiments import sweep_arena
import metta.sweep.report.html.html_export
sweep_arena.GPU_DEVICES = ()
sweep_arena.sweep_optimizer("s").definition()
assert not {"torch", "scipy.stats"} & set(sys.modules)
"""


def test_a_sweep_without_a_gpu_starts_and_ends_without_slow_imports() -> None:
    subprocess.run([sys.executable, "-c", DRIVER], check=True, env={**os.environ, "PATH": ""})


def test_the_spec_is_plain_json(tmp_path: Path) -> None:
    again = json.loads(json.dumps(asdict(spec(tmp_path, tool()))))
    assert TrainTool.model_validate(again["tool"]) == tool()


def test_an_episode_is_drawn_where_asked(tmp_path: Path) -> None:
    result = TrainTool.run_trial(spec(tmp_path, tool().override("evaluation.gif", True)), lambda progress: True)
    assert Path(result.artefacts["gif"].removeprefix("file://")).read_bytes().startswith(b"GIF89a")


def test_a_policy_is_evaluated_during_training_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metta.rl.progress.REPORT_SECONDS", 0.0)
    seen: list[Progress] = []

    def report(progress: Progress) -> bool:
        seen.append(progress)
        return True

    trainer = TrainerConfig(total_timesteps=8 * 1_024, batch_size=1_024, num_workers=0)
    swept = tool(trainer=trainer, evaluation={"during_training": 3, "episodes_during_training": 1})
    result = TrainTool.run_trial(spec(tmp_path, swept), report)
    evaluated = [progress for progress in seen if "small/room" in progress.metrics]
    assert [round(progress.step / progress.total, 2) for progress in evaluated if progress.total] == [0.25, 0.5, 0.75]
    assert {progress.metrics["small/room.episodes"] for progress in evaluated} == {1}
    assert result.metrics["small/room.episodes"] == 2, "the trained policy plays as many as the simulation says"
    without = TrainTool.run_trial(spec(tmp_path / "without", tool(trainer=trainer)), lambda progress: True)
    assert result.metrics["loss"] == without.metrics["loss"], "it changes nothing of the training"


class Forgetful(Policy):
    """A policy with dropout, which draws random numbers in training only."""

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return super().heads(functional.dropout(features, training=self.training))


def test_an_evaluation_during_training_drops_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metta.rl.progress.REPORT_SECONDS", 0.0)
    policy = {"hidden_size": 8, "type": f"{__name__}:Forgetful"}
    trainer = TrainerConfig.model_validate(
        {"total_timesteps": 4_096, "batch_size": 1_024, "num_workers": 0, "policy": policy}
    )
    losses = []
    for times in (0, 3):
        torch.manual_seed(0)
        swept = tool(trainer=trainer, evaluation={"during_training": times, "episodes_during_training": 1})
        losses.append(TrainTool.run_trial(spec(tmp_path / str(times), swept), lambda progress: True).metrics["loss"])
    assert losses[0] == losses[1]


def test_a_sweep_watches_only_what_a_run_reports_while_it_trains() -> None:
    tool().check_progress_metric("train/heart.gained")
    tool().override("evaluation.during_training", 5).check_progress_metric("small/room")
    with pytest.raises(UserError, match=r"small/room: it is measured when training has ended.*during_training=10"):
        tool().check_progress_metric("small/room")
    with pytest.raises(UserError, match="rewad: no run reports this metric while it trains; did you mean 'reward'"):
        tool().check_progress_metric("rewad")


def test_metrics_are_written_as_json_lines(tmp_path: Path) -> None:
    result = TrainTool.run_trial(spec(tmp_path, tool(log="jsonl")), lambda progress: True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["step"] < lines[-1]["step"] == result.metrics["agent_steps"]
    assert "loss" in lines[0]
    assert lines[-1]["small/room"] == result.metrics["small/room"]


def test_metrics_are_written_for_tensorboard(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    result = TrainTool.run_trial(spec(tmp_path, tool(log="tensorboard")), lambda progress: True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, written, start = path.read_bytes(), dict[str, tuple[int, float]](), 0
    while start < len(data):  # records of length (8 bytes), checksum (4), event, checksum (4)
        length = int.from_bytes(data[start : start + 8], "little")
        event = Event.FromString(data[start + 12 : start + 12 + length])
        written |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        start += length + 16
    assert written["small/room"] == pytest.approx((result.metrics["agent_steps"], result.metrics["small/room"]))
    assert "loss" in written


def test_a_profile_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    assert tool().override("trainer.profile", True).invoke() == 0
    assert re.search(r"stepping \d.*acting \d.*learning \d.*checkpoints \d.*other \d", capsys.readouterr().out)
