"""A sweep of a program that is described on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from metta.common.errors import UserError
from metta.sweep.cli import main as metta_sweep
from metta.sweep.cli.search import parse_search


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=1e-5..1e-1:log", {"min": 1e-5, "max": 0.1, "distribution": "log_normal"}),
        ("n=1..1000:log", {"min": 1, "max": 1000, "distribution": "int_log_normal"}),
        ("n=1..8", {"min": 1, "max": 8, "distribution": "int_uniform"}),
        ("n=1..8:float", {"min": 1, "max": 8, "distribution": "uniform"}),
        ("p=0.1..0.9:logit", {"min": 0.1, "max": 0.9, "distribution": "logit_normal"}),
        ("x=-1.5..1", {"min": -1.5, "max": 1, "distribution": "uniform"}),
        ("x=-1..-0.5", {"min": -1, "max": -0.5, "distribution": "uniform"}),
        ("b=16..512:pow2", {"min": 16, "max": 512, "distribution": "uniform_pow2"}),
        ("opt=adam,sgd", {"choices": ["adam", "sgd"]}),
        ("k=1,2", {"choices": [1, 2]}),
        ("epochs=10", 10),
    ],
)
def test_a_range_on_the_command_line(text: str, expected: Any) -> None:
    assert parse_search(text) == (text.partition("=")[0], expected)


FOREIGN = ["lr=[1e-4,1.0]", "lr=(1e-4,1)", "lr=loguniform(1e-4,1)", "lr=1e-4-1", "lr=1e-4:1"]


@pytest.mark.parametrize("text", ["lr", "lr=", "=1..2", "lr=a..b", "lr=1..2:lgo", "lr=true..2", *FOREIGN])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--search"):
        parse_search(text)


@pytest.mark.parametrize(("program", "reason"), [("train 'x", "No closing quotation"), ("", "which program?")])
def test_a_command_that_cannot_be_read_is_refused(
    program: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metta_sweep(["run", program, "--search", "x=0..1", "--metric", "loss:min", "--trials", "2"]) == 2
    assert reason in capsys.readouterr().err


def test_no_file_is_needed_and_one_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.sh").write_text('echo "{\\"loss\\": ${1#--x=}}"')
    words = ["run", "train.sh", "--search", "x=0.5..2.5", "--metric", "loss:min", "--overrides", "write_report=false"]
    assert metta_sweep([*words, "--trials", "2"]) == 0
    shown = capsys.readouterr()
    assert "train.sweep.yaml" in shown.err
    assert "train: 2 completed of 2" in shown.out
    assert yaml.safe_load(Path("train.sweep.yaml").read_text())["command"] == "sh train.sh ${args}"
    assert metta_sweep([*words, "--trials", "3"]) == 0
    assert "train: 3 completed of 3" in capsys.readouterr().out
    assert metta_sweep(["run", "train.sweep.yaml", "--overrides", "write_report=false"]) == 0
    words[3] = "y=1..2"
    assert metta_sweep([*words, "--trials", "3"]) == 2
    assert "train.sweep.yaml describes another sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["trian.sh", "--search", "x=1..2", "--metric", "loss:min", "--trials", "2"], "did you mean 'train.sh'"),
        (["no-such-program-anywhere", "--search", "x=1..2", "--metric", "loss:min", "--trials", "2"], "no program"),
        (["train.sh", "--search", "x=2..1", "--metric", "loss:min", "--trials", "2"], "min (2) must be below max (1)"),
        (["train.sh"], "what is searched? add, for example: --search lr="),
        (["train.sh", "--search", "x=1..2"], "add --metric NAME:min or --metric NAME:max"),
        (["train.sh", "--search", "x=1..2", "--metric", "loss"], "loss:max or loss:min"),
        (["train.sh", "--search", "x=1..2", "--metric", "loss:mni"], "expected NAME:min or NAME:max"),
        (["train.sh", "--search", "x=1..2", "--metric", "loss:min"], "how many trials? add --trials N"),
        (["train.sh", "--search", "x=1..2", "--metric", ":min"], "expected NAME:min or NAME:max"),
        (["train.sh", "--search", "x=1..2", "--program", "a.py"], "train.sh is a program itself"),
        (["a.yaml", "--search", "x=1..2"], "a.yaml has its own"),
    ],
)
def test_what_is_missing_is_said(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.sh").write_text("true")
    assert metta_sweep(["run", *words]) == 2
    assert why in capsys.readouterr().err
    assert not list(Path().glob("*.yaml"))


def test_until_something_is_learnt_a_mistake_is_mended_by_the_corrected_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("train.py").write_text(
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--x', type=float)\n"
        "print('the best loss:', parser.parse_args().x)\n"
    )
    words = ["run", "train.py", "--metric", "loss:min", "--trials", "2", "--overrides", "write_report=false"]
    assert metta_sweep([*words, "--search", "y=1..2"]) == 1
    shown = capsys.readouterr().out
    assert "unrecognized arguments: --y=" in shown
    assert "0/2  trial 0" in shown
    assert metta_sweep([*words, "--search", "x=1..2"]) == 1
    said = capsys.readouterr().out
    assert "Write in the sweep's file: metrics: {loss: '\\bloss" in said
    assert "to resume the sweep:\n  " in said
    assert said.rstrip().endswith("run train.sweep.yaml")
    with Path("train.sweep.yaml").open("a") as file:
        file.write("metrics: {loss: 'loss: (.*)'}\n")
    assert metta_sweep([*words, "--search", "x=1..2"]) == 0
    assert "train: 2 completed" in capsys.readouterr().out
    assert metta_sweep([*words, "--search", "x=1..3"]) == 2


def test_a_program_beside_its_sweep_file_is_found_by_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("there")
    folder.mkdir()
    (folder / "train.py").touch()
    (folder / "a.yaml").write_text(
        "command: python train.py ${args}\nmetric: loss\nnum_trials: 1\n"
        "parameters: {x: {min: 0, max: 1, distribution: uniform}}\n"
    )
    assert metta_sweep(["run", "there/a.yaml"]) == 2
    assert "there is no file train.py here, but in there; first: cd there" in capsys.readouterr().err


def test_overrides_are_written_into_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.sh").write_text('echo "best loss: ${1#--x=}"')
    words = ["run", "train.sh", "--search", "x=0.5..2.5", "--metric", "loss:min", "--trials"]
    first = [
        "write_report=false",
        "program.metrics={loss: 'best loss: (.*)'}",
        "sweep.protein.settings.random_suggestions=64",
    ]
    assert metta_sweep([*words, "2", "--overrides", *first]) == 0
    assert "train: 2 completed of 2" in capsys.readouterr().out
    with Path("train.sweep.yaml").open("a") as file:
        file.write("trial_timeout: 60\n")
    assert metta_sweep([*words, "3", "--overrides", "sweep.protein.settings.num_random_samples=2"]) == 0
    written = yaml.safe_load(Path("train.sweep.yaml").read_text())
    assert written["metrics"] == {"loss": "best loss: (.*)"}
    assert written["settings"] == {"random_suggestions": 64, "num_random_samples": 2}
    assert (written["num_trials"], written["trial_timeout"], written["write_report"]) == (3, 60, False)
    assert metta_sweep(["run", "train.sweep.yaml", "--num-trials", "4"]) == 0
    assert "train: 4 completed of 4" in capsys.readouterr().out
    assert metta_sweep([*words, "4", "--overrides", "sweep.protein.metric=y"]) == 2
    assert "use the options of `metta-sweep run`" in capsys.readouterr().err
    assert metta_sweep([*words, "4", "--overrides", "cost_metric=loss"]) == 2
    assert "describes another sweep" in capsys.readouterr().err
    assert yaml.safe_load(Path("train.sweep.yaml").read_text()) == written
