"""Every command that is printed can be typed: each is collected from what a person sees, and run."""

from __future__ import annotations

import html
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from metta.common.data_dir import default_store_url
from metta.common.entry_point import EntryPoint
from metta.common.runner import main as metta_run
from metta.common.tool import Tool
from metta.sweep.cli import main as metta_sweep
from metta.sweep.function import optimize
from metta.sweep.store import open_store
from metta.sweep.sweep import SweepLoop
from metta.sweep.trial import TrialState

QUICK_SWEEP = Path(__file__).parents[2] / "support" / "quick_sweep.py"

PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {"metta-sweep": metta_sweep, "metta-run": metta_run}

TRAINING = """
def train(config, trial):
    if trial.number == 1:
        raise RuntimeError("once")
    return {"score": config["x"]}
"""

FILE = """
command: sh train.sh ${x} ${trial}
metric: score
num_trials: 6
parameters: {x: {min: 0, max: 1, distribution: uniform}}
"""

PROGRAM = """
[ "$2" = 1 ] && exit 1
echo "{\\"score\\": $1}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder where somebody works: with a module, a program and its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METTA_DATA_DIR", raising=False)
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "swept_training.py").write_text(TRAINING)
    (tmp_path / "sweep.yaml").write_text(FILE)
    (tmp_path / "train.sh").write_text(PROGRAM)
    shutil.copy(QUICK_SWEEP, tmp_path / "swept_tool.py")  # a module here, because only such ones are trusted
    yield tmp_path
    for module in ("swept_training", "swept_tool"):
        sys.modules.pop(module, None)


def commands(text: str) -> list[str]:
    """The commands in what is printed, or in a page, in order."""
    starts = "|".join(PROGRAMS)
    found = re.findall(rf"(?m)(?:^  |resume with: |>)((?:uv run )?(?:{starts}) [^\n<]+)", html.unescape(text))
    return list(dict.fromkeys(each.strip() for each in found))


def typed(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command as a shell would, and return what it prints."""
    program, *words = shlex.split(command)
    try:
        status: object = PROGRAMS[program](words)
    except SystemExit as error:
        status = error.code
    shown = capsys.readouterr()
    assert status == 0, f"{command}: {shown.out}{shown.err}"
    return shown.out + shown.err


def quick_sweep() -> Tool:
    arguments = {"sweep_name": "s", "num_trials": "6", "seconds": "0.001", "fail_above": "0.6"}
    return EntryPoint(path="swept_tool.quick_sweep", args=arguments).build()


def start(kind: str) -> None:
    if kind == "function":
        space = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}
        optimize("swept_training:train", space, "score", 6, name="s", seed=2)
    elif kind == "program":
        assert metta_sweep(["run", "sweep.yaml", "--name", "s"]) == 0
    else:
        assert quick_sweep().invoke() == 0


@pytest.mark.parametrize("kind", ["function", "program", "tool"])
def test_each_printed_command_can_be_typed(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(kind)
    store = open_store(default_store_url(), create=False)
    (failed, *_) = [str(trial.number) for trial in store.trials("s", states=[TrialState.FAILED])]
    store.close()
    printed = capsys.readouterr().out
    shutil.copytree("train_dir", "as_printed")
    for words in (
        ["show", "s"],
        ["trial", "s", "0"],
        ["trial", "s", failed],
        ["best", "s"],
        ["pause", "s"],
        ["stop", "s"],
    ):
        assert metta_sweep(words) == 0
        printed += capsys.readouterr().out
    (page,) = folder.glob("train_dir/sweeps/s/*/report.html")
    printed += page.read_text()
    found = commands(printed)
    for purpose in ("confirm", "retry", "show", "resume"):
        assert any(f" {purpose} " in command for command in found), purpose
    for command in found:
        shutil.rmtree("train_dir")
        shutil.copytree("as_printed", "train_dir")
        typed(command.replace("NUMBER", "0"), capsys)


@pytest.mark.parametrize("kind", ["program", "tool"])
def test_the_command_of_a_sweep_that_was_stopped_resumes_it(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(loop: SweepLoop) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SweepLoop, "run", interrupted)
        words = ["run", "sweep.yaml", "--name", "s"]
        assert (metta_sweep(words) if kind == "program" else quick_sweep().invoke()) == 130
    (command,) = commands(capsys.readouterr().out)
    assert "completed, " in typed(command, capsys)
    store = open_store(default_store_url(), create=False)
    assert len(store.trials("s")) == 6
    store.close()


def test_the_command_of_a_sweep_that_failed_queues_its_trials_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (folder / "train.sh").read_text()
    (folder / "train.sh").write_text("exit 1\n")
    assert metta_sweep(["run", "sweep.yaml", "--name", "s"]) == 1
    retry, resume = commands(capsys.readouterr().out)
    assert "are queued again" in typed(retry, capsys)
    (folder / "train.sh").write_text(program)
    assert "best trial" in typed(resume, capsys)
