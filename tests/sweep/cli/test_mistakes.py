"""What a new user types wrong, or leaves out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metta.sweep.cli import main as metta_sweep
from metta.sweep.function import RunningTrial, optimize
from metta.sweep.store import open_store

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that is refused with status 2, and returns what it says."""

    def run(*words: str) -> str:
        try:
            status: object = metta_sweep(words)
        except SystemExit as error:
            status = error.code
        assert status == 2
        return capsys.readouterr().err

    return run


def _sometimes_broken(config: dict[str, float], trial: RunningTrial) -> float:
    return config["x"] if trial.number % 2 else float("nan")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three sweeps that are complete."""
    folder = tmp_path_factory.mktemp("data")
    store = f"sqlite:///{folder}/sweeps.db"
    for name in ("broken", "first", "second"):
        optimize(
            _sometimes_broken if name == "broken" else lambda config, trial: {"score": config["x"], "seconds": 1000},
            {"x": {"min": 0, "max": 1, "distribution": "uniform"}},
            "score",
            3,
            name=name,
            store=store,
            write_report=False,
        )
        time.sleep(0.01)
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bset"], "command 'bset' does not exist; did you mean 'best'"),
        (["best", "--stor", "x"], "metta-sweep best has no option '--stor'; did you mean '--store'"),
        (["best", "--stor=x"], "metta-sweep best has no option '--stor'; did you mean '--store'"),
        (["show", "--state", "faild"], "--state 'faild' does not exist; did you mean 'failed'"),
        (["init", "fucntion"], "kind 'fucntion' does not exist; did you mean 'function'"),
        (["show", "a", "b"], "metta-sweep show takes no further argument 'b'"),
        (["trial", "my"], "'my' is not the number of a trial"),
    ],
)
def test_a_wrong_word_gets_the_nearest_one(refused: Refused, words: list[str], message: str) -> None:
    said = refused(*words)
    assert message in said
    assert "usage:" not in said
    assert len(said.splitlines()) == 2


def test_without_a_store_it_is_said_where_it_was_looked_for(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    said = refused("best", "--store", f"sqlite:///{tmp_path}/sweeps.db")
    assert f"{tmp_path}/sweeps.db: there is no such file" in said
    assert all(word in said for word in ("Run a sweep", "--store URL", "METTA_DATA_DIR"))
    open_store(f"sqlite:///{tmp_path}/empty.db").close()
    said = refused("best", "--store", f"sqlite:///{tmp_path}/empty.db")
    assert "has no sweep yet; run a sweep first" in said


@pytest.mark.parametrize("words", [["show"], ["best"], ["trial", "1"], ["watch"], ["best", "--yaml"]])
def test_the_latest_sweep_is_taken_and_named(data: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    store = ["--store", f"sqlite:///{data}/sweeps.db"]
    assert metta_sweep([*words, *store]) == 0
    shown, said = capsys.readouterr()
    assert said == "the latest sweep: second\n"
    assert shown
    named = [words[0], "second", *words[1:]]
    assert metta_sweep([*named, *store]) == 0
    assert capsys.readouterr() == (shown, "")


def test_a_report_of_the_latest_sweep(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert metta_sweep(["report", "--store", f"sqlite:///{data}/sweeps.db"]) == 0
    assert (tmp_path / "second.html").exists()


def test_a_report_is_no_folder_and_a_port_is_a_number_of_one(data: Path, refused: Refused) -> None:
    store = f"sqlite:///{data}/sweeps.db"
    assert "Is a directory" in refused("report", "first", "--to", "/", "--store", store)
    assert "99999 is not in 0 to 65535" in refused("dashboard", "first", "--port", "99999", "--store", store)


def test_trials_that_are_named_twice_are_dropped_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", f"sqlite:///{data}/sweeps.db"]
    assert metta_sweep(["drop", "first", "1", "1", *store]) == 0
    assert "trial 1 is dropped" in capsys.readouterr().out
    assert metta_sweep(["drop", "first", "1", "--undo", *store]) == 0


def test_an_unknown_sweep_gets_the_nearest_one(data: Path, refused: Refused) -> None:
    assert "did you mean 'first'" in refused("show", "frist", "--store", f"sqlite:///{data}/sweeps.db")


def test_watching_what_nobody_runs_ends(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/copy.db"
    assert metta_sweep(["copy", "first", "--from", f"sqlite:///{data}/sweeps.db", "--to", store]) == 0
    assert metta_sweep(["enqueue", "first", "x=0.5", "--store", store]) == 0
    opened = open_store(store)
    opened.append("first", [({"x": 0.25}, None)])
    opened.close()
    assert metta_sweep(["drop", "first", "0", "--store", store]) == 0
    capsys.readouterr()
    assert metta_sweep(["watch", "first", "--store", store]) == 0
    shown, said = capsys.readouterr()
    assert "no driver runs first now" in said
    assert "of 3" in shown
    assert metta_sweep(["watch", "first", "--json", "--store", store]) == 0
    assert json.loads(capsys.readouterr().out)["drivers"] == 0


def test_best_warns_of_no_trial_that_is_read_again(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metta_sweep(["best", "broken", "--store", f"sqlite:///{data}/sweeps.db"]) == 0
    shown, said = capsys.readouterr()
    assert "trial 1" in shown
    assert said == ""


def test_a_sweep_of_a_function_of_a_script_says_how_it_can_be_confirmed(data: Path, refused: Refused) -> None:
    said = refused("confirm", "first", "--store", f"sqlite:///{data}/sweeps.db")
    assert "optimize('training:train', ..., name='first'" in said


def test_a_metric_called_seconds_is_the_users_own(data: Path) -> None:
    store = open_store(f"sqlite:///{data}/sweeps.db")
    trial = store.trials("first")[0]
    store.close()
    assert trial.metrics["seconds"] >= 1000
    assert trial.cost is not None
    assert trial.cost < 100
