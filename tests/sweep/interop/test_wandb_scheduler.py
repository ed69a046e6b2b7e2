"""W&B's own Optuna engine with Protein in it, without its server."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metta.common.errors import UserError
from metta.sweep.interop.optuna import ProteinSampler
from metta.sweep.interop.wandb_scheduler import protein_study
from metta.sweep.program.yaml_file import read_yaml

engine: Any = pytest.importorskip("wandb.sdk.sweeps.scheduler.optuna")
optimizer: Any = pytest.importorskip("wandb.sdk.sweeps.scheduler.optimizer")
info: Any = pytest.importorskip("wandb.sdk.sweeps.sweep_info")
states: Any = pytest.importorskip("wandb.sdk.sweeps.run_state")

PAGE = Path(__file__).parents[3] / "docs" / "wandb_scheduler.md"


def start(folder: Path) -> Any:
    """W&B's engine for the files on the page, as its scheduler makes it."""
    blocks = PAGE.read_text().split("```")
    yaml_file, source = folder / "sweep.yaml", folder / "protein.py"
    yaml_file.write_text(blocks[1].removeprefix("yaml"))
    source.write_text(blocks[3].removeprefix("python"))
    config = read_yaml(yaml_file)
    config["scheduler"]["source"] = str(source)
    sweep = info.SweepInfo("abc", "name", "entity", "project", config, "controller")
    return optimizer.make_optimizer(sweep)


def finished(suggestion: Any, loss: float) -> Any:
    return optimizer.RunWithMetrics(
        config=suggestion.config,
        state=states.RunState.FINISHED,
        wandb_run_id=suggestion.run_id,
        summary_metrics={"val_loss": loss},
        history_metrics=[{"_step": 0, "val_loss": loss + 1.0}],
    )


def loss(params: dict[str, Any]) -> float:
    return float((math.log10(params["lr"]) + 3.0) ** 2 + (params["layers"] - 2) ** 2)


def test_protein_searches_in_the_engine_of_wandb_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    first, runs = start(tmp_path), []
    assert isinstance(first.study.sampler, ProteinSampler)
    for _ in range(8):
        for suggestion in first.ask_n_runs(2):
            runs.append(finished(suggestion, loss(suggestion.config.flat_dict())))
            first.tell_run(suggestion.run_id, runs[-1])

    assert len({str(run.config.flat_dict()) for run in runs}) == 16
    assert all(1e-5 <= run.config.flat_dict()["lr"] <= 0.1 for run in runs)
    assert min(run.summary_metrics["val_loss"] for run in runs) < 0.5

    again = start(tmp_path)
    for run in runs:
        again.tell_existing_finished_run(run)
    again.ask_n_runs(1)
    assert len(again.study.trials) == 17
    assert '"source": "model"' in json.dumps(again.study.trials[-1].system_attrs)  # so it knows the old runs


def test_runs_that_log_poor_values_are_stopped(tmp_path: Path) -> None:
    wandb_engine, pruned, whole = start(tmp_path), [], []
    for _ in range(25):
        (suggestion,) = wandb_engine.ask_n_runs(1)
        end, history = loss(suggestion.config.flat_dict()), []
        for step in range(10):
            history.append({"_step": step, "val_loss": end + 9.0 - step})
            run = replace(finished(suggestion, end), state=states.RunState.RUNNING, history_metrics=list(history))
            wandb_engine.tell_run(suggestion.run_id, run)
            if wandb_engine.prune_run(suggestion.run_id, run):
                pruned.append(end)
                break
        else:
            whole.append(end)
            wandb_engine.tell_run(suggestion.run_id, replace(finished(suggestion, end), history_metrics=history))

    assert pruned
    assert min(whole) < min(pruned)
    assert len(whole) >= 5
    counted = [trial.state.name for trial in wandb_engine.study.trials]
    assert (counted.count("PRUNED"), counted.count("COMPLETE")) == (len(pruned), len(whole))


def test_several_metrics_are_refused() -> None:
    with pytest.raises(UserError, match="one score"):
        protein_study(SimpleNamespace(id="a", config={"metrics": [{"name": "a"}, {"name": "b"}]}))
    with pytest.raises(UserError, match="give minimize or maximize"):
        protein_study(SimpleNamespace(id="a", config={"metric": {"name": "a", "goal": "up"}}))
