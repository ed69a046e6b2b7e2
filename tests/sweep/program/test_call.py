"""How a program is called: what each macro becomes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from metta.common.errors import UserError
from metta.sweep.program.call import Call, Program

PARAMS = {"lr": 0.001, "optimizer.name": "adam w", "nesterov": True, "amsgrad": False, "warmup": None}


def words(tmp_path: Path, command: str, style: str = "plain", **fields: Any) -> list[str]:
    program = Program.model_validate({"command": command, "style": style, **fields})
    return Call(program, PARAMS, seed=7, trial=3, run_dir=tmp_path).command()


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("args", "--lr=0.001|--optimizer.name=adam w|--nesterov=true|--amsgrad=false|--warmup=null"),
        ("args_no_equals", "--lr|0.001|--optimizer.name|adam w|--nesterov|true|--amsgrad|false|--warmup|null"),
        ("args_no_hyphens", "lr=0.001|optimizer.name=adam w|nesterov=true|amsgrad=false|warmup=null"),
        ("args_no_boolean_flags", "--lr=0.001|--optimizer.name=adam w|--nesterov|--warmup=null"),
        ("args_append_hydra", "+lr=0.001|+optimizer.name=adam w|+nesterov=true|+amsgrad=false|+warmup=null"),
        ("args_override_hydra", "++lr=0.001|++optimizer.name=adam w|++nesterov=true|++amsgrad=false|++warmup=null"),
    ],
)
def test_macros_that_stand_for_all_hyperparameters(macro: str, expected: str, tmp_path: Path) -> None:
    assert words(tmp_path, f"./train ${{{macro}}} last") == ["./train", *expected.split("|"), "last"]


def test_wandb_style_is_that_of_its_agent(tmp_path: Path) -> None:
    expected = ["--lr=0.001", "--optimizer={'name': 'adam w'}", "--nesterov=True", "--amsgrad=False", "--warmup=None"]
    assert words(tmp_path, "${args}", "wandb") == expected
    command = "${env} ${interpreter} ${program}"
    assert words(tmp_path, command, program="train.py") == ["/usr/bin/env", "python", "train.py"]


def test_dots_in_the_names_of_wandb_stay_where_they_are(tmp_path: Path) -> None:
    told = words(
        tmp_path, "${args_no_hyphens}", "wandb", names=["lr", "optimizer.name", "nesterov", "amsgrad", "warmup"]
    )
    assert told == ["lr=0.001", "optimizer.name=adam w", "nesterov=True", "amsgrad=False", "warmup=None"]
    told = words(tmp_path, "${args_json}", "wandb", names=["optimizer"])
    assert json.loads(told[0]) == {"optimizer": {"name": "adam w"}}


def test_single_hyperparameters_the_trial_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    told = words(tmp_path, "./train --o='${optimizer.name}' ${seed} t${trial} ${run_dir}/log ${envvar:DATA}/x $HOME")
    assert told == ["./train", "--o=adam w", "7", "t3", f"{tmp_path}/log", "/data/x", "$HOME"]


def test_files_hold_the_nested_hyperparameters(tmp_path: Path) -> None:
    nested = {"lr": 0.001, "optimizer": {"name": "adam w"}, "nesterov": True, "amsgrad": False, "warmup": None}
    _, argument, json_file, yaml_file = words(tmp_path, "t ${args_json} ${args_json_file} --c=${args_yaml_file}")
    assert json.loads(argument) == json.loads(Path(json_file).read_text()) == nested
    assert yaml.safe_load(Path(yaml_file.removeprefix("--c=")).read_text()) == nested
    assert {Path(json_file).parent, Path(yaml_file.removeprefix("--c=")).parent} == {tmp_path}


def test_the_environment_is_the_users_with_what_the_program_wants(tmp_path: Path) -> None:
    program = Program(command=["t"], environment={"LR": "${lr}", "OUT": "${run_dir}/out"})
    call = Call(program, PARAMS, seed=7, trial=3, run_dir=tmp_path)
    inherited = {"HOME": "/h", "PYTHONPATH": "/ours", "METTA_PYTHONPATH": "/users"}
    assert call.environment(inherited) == {
        "HOME": "/h",
        "PYTHONPATH": "/users",
        "METTA_TRIAL": "3",
        "METTA_SEED": "7",
        "METTA_RUN_DIR": str(tmp_path),
        "LR": "0.001",
        "OUT": f"{tmp_path}/out",
    }
    assert "PYTHONPATH" not in call.environment({"PYTHONPATH": "/ours", "METTA_PYTHONPATH": ""})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"command": "t ${arg}"}, r"unknown macro \$\{arg\}; did you mean 'args'"),
        ({"command": "t ${lt}"}, "did you mean 'lr'"),
        ({"command": "t --all=${args}"}, "expands to several arguments"),
        ({"command": "t ${program} ${args}"}, "needs the key 'program'"),
        ({"command": "t ${lr}"}, "nothing passes momentum to the program"),
        ({"command": "t ${args}", "environment": {"X": "${y}"}}, r"unknown macro \$\{y\}"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        Program(**fields).check(["lr", "momentum", "epochs"], ["lr", "momentum"])


def test_hyperparameters_may_go_by_the_environment_alone() -> None:
    Program(command=["t"], environment={"LR": "${lr}", "M": "${momentum}"}).check(
        ["lr", "momentum"], ["lr", "momentum"]
    )
