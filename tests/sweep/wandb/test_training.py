"""A training run that no sweep records, logged by the real client."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from metta.common.data_dir import data_dir
from metta.sweep.trial import Progress, TrialResult
from metta.sweep.wandb.config import WandbConfig
from metta.sweep.wandb.training import logged_training
from tests.support.wandb_server import ENTITY, Run, WandbServer
from tests.sweep.wandb.conftest import PATIENCE

RESULT = TrialResult({"arena": 1.5, "loss": math.nan}, 2.0, {"policy": "file:///p"})


@pytest.fixture
def config(request: pytest.FixtureRequest) -> WandbConfig:
    return WandbConfig(project=request.node.name[:100])


def only_run(server: WandbServer, config: WandbConfig) -> Run:
    (run,) = [run for run in server.runs.values() if run.project == (ENTITY, config.project)]
    return run


def test_a_run_is_logged(server: WandbServer, config: WandbConfig, tmp_path: Path) -> None:
    notices: list[str] = []
    with logged_training(config, "first", tmp_path, {"trainer": {"lr": 0.1}}, notices.append, PATIENCE) as log:
        log.report(Progress(100, 200, 1.0, {"reward": 0.5}))
        log.report(Progress(200, 200, 2.0, {"reward": 0.75}))
        log.end(RESULT)
    run = only_run(server, config)
    assert (run.state, run.fields["displayName"], run.hyperparameters["trainer"]) == ("finished", "first", {"lr": 0.1})
    assert [(row["progress/step"], row["reward"]) for row in run.history] == [(100, 0.5), (200, 0.75)]
    assert (run.summary["arena"], run.summary["loss"]) == (1.5, "NaN")
    assert notices == [f"Weights & Biases: {server.url}/{ENTITY}/{config.project}/runs/{run.name}"]


def test_a_run_that_is_gone_on_with_is_the_same(server: WandbServer, config: WandbConfig, tmp_path: Path) -> None:
    def interrupted() -> None:
        with logged_training(config, "first", tmp_path, {}, lambda message: None, PATIENCE) as log:
            log.report(Progress(100, 200, 1.0, {"reward": 0.5}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert only_run(server, config).state == "failed"
    with logged_training(config, "first", tmp_path, {}, lambda message: None, PATIENCE) as log:
        log.report(Progress(200, 200, 2.0, {"reward": 0.75}))
        log.end(RESULT)
    run = only_run(server, config)
    assert [row["reward"] for row in run.history] == [0.5, 0.75]
    assert run.state == "finished"


def test_training_goes_on_where_w_and_b_is_away(server: WandbServer, config: WandbConfig, tmp_path: Path) -> None:
    server.stop()
    notices: list[str] = []
    with logged_training(config, "first", tmp_path, {}, notices.append, 1.0) as log:
        log.report(Progress(100, 200, 1.0, {"reward": 0.5}))
        log.end(RESULT)
    assert len(list((data_dir() / "wandb").glob("offline-run-*"))) == 1
    assert "is unreachable" in notices[0]
    assert "wandb sync" in notices[1]


def test_turned_off_it_does_nothing(server: WandbServer, tmp_path: Path) -> None:
    with logged_training(WandbConfig(enabled=False), "first", tmp_path, {}, pytest.fail) as log:
        log.report(Progress(100, 200, 1.0, {"reward": 0.5}))
        log.end(RESULT)
    assert server.requests == []
