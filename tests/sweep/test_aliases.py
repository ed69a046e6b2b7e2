"""Old paths that a stored sweep, a command line or a user's code may hold go on working."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from metta.common.config import ConfigError
from metta.common.entry_point import EntryPoint, load_target
from metta.sweep.cli import main as metta_sweep
from metta.sweep.definition import open_sweep
from metta.sweep.executor import RayOptions
from metta.sweep.executor.attempt import load_run_trial
from metta.sweep.function import FunctionSweep, function_sweep
from metta.sweep.program import call, command_sweep, trial
from metta.sweep.store import open_store
from metta.sweep.trial import TrialState
from tests.support.quick_sweep import quick_sweep

SWEEP: dict[str, Any] = {
    "command": ["sh", "-c", 'echo "{\\"score\\": $0}"', "${x}"],
    "metric": "score",
    "num_trials": 2,
    "parameters": {"x": {"min": 0, "max": 1, "distribution": "uniform"}},
    "seed": 1,
    "write_report": False,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))


def test_the_command_rooms_old_paths_give_the_same_objects() -> None:
    assert load_target("metta.sweep.command.sweep.from_file") is command_sweep.from_file
    assert load_target("metta.sweep.command.sweep.CommandSweep") is command_sweep.CommandSweep
    assert load_run_trial("metta.sweep.command.trial:CommandTrial") == trial.CommandTrial.run_trial
    from metta.sweep.command.program import Call, Program

    assert (Call, Program) == (call.Call, call.Program)


def test_an_entry_point_with_the_old_path_builds_the_sweep() -> None:
    sweep = EntryPoint(path="metta.sweep.command.sweep.from_file", args={"file": "sweep.yaml"}).build()
    assert isinstance(sweep, command_sweep.CommandSweep)
    assert sweep.sweep_name == "sweep"


def test_a_stored_sweep_with_the_old_paths_is_worked_on() -> None:
    sweep = command_sweep.from_file("sweep.yaml")
    definition = sweep.definition().model_copy(update={"tool_class": "metta.sweep.command.trial:CommandTrial"})
    entry_point = sweep.rebuilt_by().model_copy(update={"path": "metta.sweep.command.sweep.CommandSweep"})
    with closing(open_store(sweep.store)) as store:
        open_sweep(store, "sweep", definition, entry_point.model_dump())
        os.remove("sweep.yaml")
        assert metta_sweep(["work", "sweep"]) == 0
        assert [each.state for each in store.trials("sweep")] == [TrialState.COMPLETED] * 2


def test_options_of_ray_are_read_under_their_old_names() -> None:
    ray = RayOptions(address="auto", ranks_per_trial=2)
    old: dict[str, Any] = {"ray_address": "auto", "ranks_per_trial": 2}
    given = quick_sweep("s")
    assert FunctionSweep(sweep=given.sweep, sweep_name="s", function=given.function, **old).ray == ray
    assert function_sweep(given.function, {"x": SWEEP["parameters"]["x"]}, "score", 3, **old).ray == ray
    assert quick_sweep("s").override("ray_address", "auto").override("ranks_per_trial", 2).ray == ray
    with pytest.raises(ValueError, match="ray is given under its old name as well"):
        FunctionSweep(sweep=given.sweep, sweep_name="s", function=given.function, ray=ray, **old)
    with pytest.raises(ConfigError, match="must be at least 1"):
        quick_sweep("s").override("ranks_per_trial", 0)


def test_entry_points_with_the_old_names_of_rays_options_build_the_sweep() -> None:
    typed = EntryPoint(
        path="tests.support.quick_sweep.quick_sweep",
        args={"sweep_name": "s"},
        overrides={"ray_address": "auto", "ranks_per_trial": "2"},
    ).build()
    assert isinstance(typed, FunctionSweep)
    assert typed.ray == RayOptions(address="auto", ranks_per_trial=2)
    made = command_sweep.from_file("sweep.yaml").rebuilt_by()
    older = made.model_copy(update={"args": {**made.args, "ray_address": "auto", "ranks_per_trial": "2"}}).build()
    assert isinstance(older, command_sweep.CommandSweep)
    assert older.ray == typed.ray
    again = older.rebuilt_by().build()
    assert isinstance(again, command_sweep.CommandSweep)
    assert again.ray == typed.ray
