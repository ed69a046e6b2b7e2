"""SweepTool with small, real training, and what it refuses before training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from metta.common.errors import UserError
from metta.sweep.cli import main as metta_sweep
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.store import open_store
from metta.sweep.trial import TrialState
from metta.tools.sweep import SweepTool, retrain
from tests.support.small_sweep import small_sweep

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300.0


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))


def refusal(tool: SweepTool) -> str:
    with pytest.raises(UserError) as caught:
        tool.definition()
    return str(caught.value)


def searching(path: str) -> ProteinConfig:
    return ProteinConfig(metric="small", parameters={path: ParameterConfig(min=0.1, max=0.5, distribution="uniform")})


def test_a_path_that_the_train_tool_lacks_is_refused_with_the_nearest() -> None:
    tool = small_sweep("s")
    tool.sweep.protein = searching("trainer.ppo.clip_coeff")
    assert "did you mean 'clip_coef'" in refusal(tool)


def test_a_range_that_the_train_tool_does_not_take_is_refused() -> None:
    tool = small_sweep("s")
    tool.sweep.protein = searching("trainer.batch_size")
    assert "trainer.batch_size" in refusal(tool)


@pytest.mark.parametrize("field", ["sweep.protein.metric", "cost_metric"])
def test_an_unknown_metric_is_refused_with_the_nearest(field: str) -> None:
    assert "did you mean 'small/room'" in refusal(small_sweep("s").override(field, "small/rom"))


def test_a_game_stat_is_a_metric() -> None:
    assert small_sweep("s").override("sweep.protein.metric", "small/room/heart.gained").definition()


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "a/b"])
def test_a_name_that_is_not_a_folder_name_is_refused(name: str) -> None:
    assert "sweep_name" in refusal(small_sweep(name))


def test_overrides_are_put_on_every_train_tool() -> None:
    tool = small_sweep("s").override("train_overrides.trainer.total_timesteps", 2_000)
    assert tool.definition().tool["trainer"]["total_timesteps"] == 2_000
    assert "did you mean 'total_timesteps'" in refusal(tool.override("train_overrides.trainer.total_timestep", 1))


def test_a_sweep_trains_evaluates_resumes_extends_and_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small_sweep("s", num_trials=2).invoke() == 0
    assert small_sweep("s", num_trials=3).invoke() == 0
    output = capsys.readouterr().out
    assert "resuming: 2 of 3 trials have ended" in output
    assert "best trial:" in output

    assert metta_sweep(["show", "s", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in shown["trials"]] == [0, 1, 2]
    for trial in shown["trials"]:
        assert trial["state"] == "completed"
        assert trial["score"] == trial["metrics"]["small"] == trial["metrics"]["small/room/heart.gained"]
        assert trial["cost"] > 0
        assert Path(trial["policy_uri"].removeprefix("file://")).exists()
    assert len({json.dumps(trial["params"]) for trial in shown["trials"]}) == 3, "no suggestion comes twice"

    assert metta_sweep(["list"]) == 0
    assert "3/3" in capsys.readouterr().out
    assert metta_sweep(["show", "t"]) == 2
    assert "no sweep is named 't'; valid: s" in capsys.readouterr().err


def test_a_trial_can_be_retrained(capsys: pytest.CaptureFixture[str]) -> None:
    assert small_sweep("s", num_trials=1).invoke() == 0
    with closing(open_store(f"sqlite:///{os.environ['METTA_DATA_DIR']}/sweeps.db")) as store:
        (trial,) = store.trials("s")

    tool = retrain("s", trial=0, seed=7)
    assert tool.trainer.seed == 7
    assert tool.trainer.optimizer.learning_rate == trial.params["trainer.optimizer.learning_rate"]
    repeated = retrain("s", trial=0).run(lambda progress: True)
    assert repeated.metrics["small"] == trial.score, "with its own seed a trial repeats itself"
    assert retrain("s").run_name == retrain("s", trial=0).run_name, "left out, it is the best trial"
    with pytest.raises(UserError, match="sweep 's' has trial 0, and no trial 3"):
        retrain("s", trial=3)


IN_BACKGROUND = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
"""Runs a command as a script's ``command &`` does: Ctrl-C is ignored."""


def test_an_interrupted_sweep_resumes_from_the_checkpoint_of_its_trial(tmp_path: Path) -> None:
    command = [sys.executable, "tools/run.py", "tests.support.small_sweep.small_sweep"]
    command += ["--args", "sweep_name=k", "num_trials=1", "total_timesteps=24000"]
    runs = tmp_path / "data" / "sweeps" / "k"

    def checkpoints() -> set[Path]:
        return set(runs.glob("*/trial_0000/checkpoints/0*"))

    def outcomes() -> list[tuple[TrialState, int]]:
        with closing(open_store(f"sqlite:///{tmp_path}/data/sweeps.db")) as store:
            return [(trial.state, trial.attempts) for trial in store.trials("k")]

    for attempt, ending in enumerate([signal.SIGINT, signal.SIGTERM, signal.SIGKILL], start=1):
        before = checkpoints()
        started = command if ending is signal.SIGINT else [*IN_BACKGROUND, *command]
        process = subprocess.Popen(started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while checkpoints() <= before:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.02)
        process.send_signal(ending)
        said, errors = process.communicate()
        if ending is not signal.SIGKILL:
            assert process.returncode == 130
            assert "Traceback" not in said + errors
            assert said.splitlines()[-1].strip() == "uv run ./tools/run.py " + " ".join(command[2:])
            assert outcomes() == [(TrialState.QUEUED, attempt)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert outcomes() == [(TrialState.COMPLETED, 4)]
    (log,) = runs.glob("*/trial_0000/train.log")
    assert log.read_text().count("resumed from") == 3


def test_the_sweep_config_of_a_users_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(USERS_FILE)
    command = [sys.executable, str(ROOT / "tools" / "run.py"), "experiments.mine.sweep_optimizer", "--dry-run"]
    command += ["--args", "sweep_name=mine", "--overrides", "sweep.protein.settings.num_random_samples=100"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert "num_random_samples: 100" in done.stdout
    assert "max: 1048576" in done.stdout


USERS_FILE = """
from experiments.arena import train as arena_train_factory
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.sweep_config import SweepConfig
from metta.tools.sweep import SweepTool
from metta.tools.train import TrainTool

def sweep_optimizer(sweep_name: str, num_trials: int = 10) -> SweepTool:
    protein_config = ProteinConfig(
        metric="arena", goal="maximize", method="bayes",
        parameters={"trainer": {
            "optimizer": {"learning_rate": ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal")},
            "ppo": {"clip_coef": ParameterConfig(min=0.05, max=0.3, distribution="uniform")},
            "batch_size": ParameterConfig(min=65536, max=1048576, distribution="int_uniform"),
        }},
    )
    sweep_config = SweepConfig(num_trials=num_trials, protein=protein_config)
    def train_factory(run_name: str) -> TrainTool:
        return arena_train_factory(run_name)
    return SweepTool(sweep=sweep_config, sweep_name=sweep_name, train_tool_factory=train_factory)
"""


def test_trial_0_is_the_train_tool_as_it_is_and_the_store_keeps_that() -> None:
    tool = small_sweep("s", num_trials=1)
    rate = "trainer.optimizer.learning_rate"
    own = tool.train_overrides.root.get(rate, tool.train_tool_factory("s").trainer.optimizer.learning_rate)
    assert tool.definition().own_values[rate] == own
    assert tool.invoke() == 0
    with closing(open_store(f"sqlite:///{os.environ['METTA_DATA_DIR']}/sweeps.db")) as store:
        (trial,) = store.trials("s")
        assert store.sweep("s").config["own_values"][rate] == own
    assert trial.params[rate] == own
    assert trial.suggestion["source"] == "own values"
