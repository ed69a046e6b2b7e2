"""Time-outs, hours, seeds and what is kept: for every kind of sweep, tried on functions."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from metta.common import shared_files
from metta.common.errors import UserError
from metta.rl.checkpoint import load_policy
from metta.sweep import RunningTrial, SweepResult, load_sweep, optimize
from metta.sweep import sweep as loop
from metta.sweep.cli import main as metta_sweep
from metta.sweep.definition import SweepChangedError
from metta.sweep.retention import Retention
from metta.sweep.trial import Trial, TrialState
from tests.support.functions import hang, parabola
from tests.support.parabola import parabola_definition
from tests.support.small_sweep import small_sweep
from tests.support.states import state_of
from tests.sweep.executor.trials import alive, until

X = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))


def sweep(function: Any, num_trials: int = 3, **fields: Any) -> SweepResult:
    return optimize(
        function, parameters=X, metric="accuracy", num_trials=num_trials, seed=1, write_report=False, **fields
    )


def test_a_trial_that_runs_too_long_is_told_to_stop_and_fails() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float | None:
        if trial.number != 1:
            return 0.5
        step = 0
        while trial.report(step, {"accuracy": 0.1}):
            step += 1
            time.sleep(0.01)
        return None

    trials = sweep(train, 3, trial_timeout=0.1).trials

    assert [trial.state for trial in trials] == [TrialState.COMPLETED, TrialState.FAILED, TrialState.COMPLETED]
    assert trials[1].error == "it ran longer than trial_timeout=0.1 seconds and was stopped"
    assert trials[1].score == 0.1
    assert trials[1].cost is not None
    assert trials[1].cost >= 0.1


def test_a_worker_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 3.0)
    result = sweep(hang, 1, trial_timeout=0.1, executor="local", num_workers=1)

    (trial,) = result.trials
    assert trial.state is TrialState.FAILED
    assert trial.error == "it ran longer than trial_timeout=0.1 seconds and was killed"
    started = [int(path.read_text()) for path in (tmp_path / "data").glob("sweeps/*/*/trial_0000/pid")]
    until(lambda: not any(alive(pid) for pid in started))


def test_no_trial_starts_after_max_hours_and_the_sweep_goes_on_when_run_again() -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        time.sleep(0.3)
        return float(config["x"])

    first = sweep(train, 100, max_hours=1 / 3600, name="mine").trials
    assert len(first) < 100
    assert all(trial.state is TrialState.COMPLETED for trial in first)
    assert sweep(train, len(first) + 1, name="mine").trials[:-1] == first


def seeded(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
    return {"accuracy": trial.seed % 1000, "x": config["x"]}


def test_the_mean_of_several_seeds_is_the_score_and_their_spread_is_recorded() -> None:
    seen: list[tuple[int, int, Path]] = []

    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        seen.append((trial.number, trial.seed, trial.run_dir))
        trial.report(5, {"accuracy": 0.0})
        trial.artefacts["model"] = (trial.run_dir / "model").as_uri()
        return seeded(config, trial)

    result = sweep(train, 2, seeds_per_trial=3)

    assert len({seed for _, seed, _ in seen}) == len({folder for *_, folder in seen}) == 6
    for trial in result.trials:
        scores = [seed % 1000 for number, seed, _ in seen if number == trial.number]
        assert trial.score == pytest.approx(statistics.fmean(scores))
        assert trial.metrics["accuracy.std"] == pytest.approx(statistics.stdev(scores))
        assert "x.std" not in trial.metrics
        assert sorted(trial.artefacts) == ["model", "model.seed_1", "model.seed_2"]
    assert [point.step for point in load_sweep(result.store, result.name).curve(0)] == [5, 10, 15]


def test_a_lost_attempt_does_not_run_its_finished_seeds_again() -> None:
    calls: list[int] = []

    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        calls.append(trial.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return seeded(config, trial)

    with pytest.raises(KeyboardInterrupt):
        sweep(train, 1, seeds_per_trial=2, name="mine")
    (trial,) = sweep(train, 1, seeds_per_trial=2, name="mine").trials

    first, lost, again = calls
    assert lost == again
    assert trial.score == pytest.approx((first % 1000 + again % 1000) / 2)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_seed_without_a_finite_score_fails_the_trial(odd: float) -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        return {"accuracy": odd if trial.run_dir.name == "seed_1" else 1.0}

    (trial,) = sweep(train, 1, seeds_per_trial=3).trials
    assert (trial.state, trial.error) == (TrialState.FAILED, f"the score accuracy is {odd}")


def test_more_seeds_are_another_question() -> None:
    sweep(parabola, 1, name="mine")
    with pytest.raises(SweepChangedError, match="seeds_per_trial: 1 -> 2"):
        sweep(parabola, 2, name="mine", seeds_per_trial=2)


def test_a_train_tool_of_one_seed_has_no_several() -> None:
    tool = small_sweep("s").override("sweep.seeds_per_trial", 2)
    assert tool.definition().seeds_per_trial == 2
    with pytest.raises(UserError, match=r"trainer\.seed is set"):
        tool.override("train_overrides.trainer.seed", 3).definition()


@pytest.mark.parametrize(("keep", "kept"), [("best", {2}), ("pareto", {0, 2}), ("all", {0, 1, 2, 3, 4})])
def test_policies_that_are_not_to_be_kept_are_removed(keep: str, kept: set[int], tmp_path: Path) -> None:
    scores, costs = [0.5, 0.4, 0.9, 0.8, None], [1.0, 2.0, 3.0, 4.0, 5.0]
    outside = tmp_path / "outside"
    outside.touch()
    folders: list[Path] = []

    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        folders.append(trial.run_dir)
        policy = trial.run_dir / "checkpoints" / "7"
        policy.mkdir(parents=True)
        trial.artefacts |= {"policy": policy.as_uri(), "elsewhere": outside.as_uri(), "remote": "s3://bucket/policy"}
        (trial.run_dir / "train.log").touch()
        score = scores[trial.number]
        if score is None:
            raise RuntimeError("after its checkpoint")
        return {"accuracy": score, "price": costs[trial.number]}

    sweep(train, 5, keep_policies=keep, cost_metric="price")

    def has(name: str) -> set[int]:
        return {number for number, folder in enumerate(folders) if (folder / name).exists()}

    assert has("checkpoints") == kept
    assert has("train.log") == {0, 1, 2, 3, 4}
    assert outside.exists()


def test_training_for_real_on_two_seeds_keeps_the_best_policies(tmp_path: Path) -> None:
    tool = small_sweep("s", num_trials=2, total_timesteps=1_024)
    tool.sweep.seeds_per_trial, tool.sweep.keep_policies, tool.sweep.protein.constraints = (
        2,
        "best",
        ["clip_coef > 0.2"],
    )
    result = tool.run()

    best = result.best_trial.number
    for trial in result.trials:
        assert trial.params["trainer.ppo.clip_coef"] > 0.2
        assert trial.metrics["small.std"] >= 0
        assert sorted(trial.artefacts) == ["policy", "policy.seed_1"]
        policies = [Path(uri.removeprefix("file://")) for uri in trial.artefacts.values()]
        assert [policy.exists() for policy in policies] == [trial.number == best] * 2
        assert [policy.parents[1].name for policy in policies] == ["seed_0", "seed_1"]
        assert {policy.parents[1].joinpath("train.log").exists() for policy in policies} == {True}


def test_shared_policies_are_deleted_too(tmp_path: Path) -> None:
    tool = small_sweep("s", num_trials=2, total_timesteps=1_024)
    tool.override("train_overrides.policies", "memory://retention").override("sweep.keep_policies", "best")
    shared_files.write_bytes("memory://retention/s.0000-mine/policy.json", b"of another run")
    result = tool.run()

    best = result.best_trial.number
    for trial in result.trials:
        uri = trial.artefacts["policy"]
        assert uri.startswith(f"memory://retention/s.{trial.number:04d}/")
        if trial.number == best:
            assert load_policy(uri)
        else:
            with pytest.raises(UserError, match=r"there is no policy\.json"):
                load_policy(uri)
    assert shared_files.read_bytes("memory://retention/s.0000-mine/policy.json")


def test_what_cannot_be_deleted_now_is_deleted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"memory://later/{number}/policy" for number in range(3)]
    trials = [
        Trial(
            number,
            TrialState.COMPLETED,
            {"x": 0.5},
            attempts=1,
            score=float(number),
            cost=1.0,
            artefacts={"policy": uri},
        )
        for number, uri in enumerate(uris)
    ]
    for uri in uris:
        shared_files.write_bytes(uri, b"1")
    state = state_of(parabola_definition(3, keep_policies="best"), trials)
    assert state.best is not None
    retention = Retention(tmp_path, lambda number: f"memory://later/{number}")
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "rm", lambda self, path, recursive: 1 / 0)
        with pytest.raises(UserError, match="ZeroDivisionError"):
            retention.sweep_ended(state)
    retention.sweep_ended(state)
    assert shared_files.read_bytes(uris.pop(state.best.number))
    for uri in uris:
        with pytest.raises(FileNotFoundError):
            shared_files.read_bytes(uri)


def test_a_policy_that_was_not_kept_is_not_offered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def train(config: dict[str, Any], trial: RunningTrial) -> float:
        policy = trial.run_dir / "policy"
        policy.touch()
        trial.artefacts["policy"] = policy.as_uri()
        return 1.0

    first = sweep(train, 2, keep_policies="best")
    assert first.best_trial.artefacts["policy"] in capsys.readouterr().out.replace("\n", "")
    Path(first.best_trial.artefacts["policy"].removeprefix("file://")).unlink()
    sweep(train, 2, keep_policies="best", name=first.name)
    assert "not kept, because keep_policies=best" in capsys.readouterr().out


def test_a_queued_point_of_a_function_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    space = {**X, "y": {"min": 0, "max": 1, "distribution": "uniform"}, "z": 3}
    optimize(lambda config, trial: config["x"] * config["z"], space, "m", 1, name="mine", write_report=False)
    assert metta_sweep(["enqueue", "mine", "x=0.25"]) == 2
    assert "these hyperparameters have no default and must be given: y" in capsys.readouterr().err
    assert metta_sweep(["enqueue", "mine", "x=0.25", "y=1"]) == 0
    trials = optimize(
        lambda config, trial: config["x"] * config["z"], space, "m", 2, name="mine", write_report=False
    ).trials
    assert (trials[1].params, trials[1].score) == ({"x": 0.25, "y": 1, "z": 3}, 0.75)
