"""tools/run.py as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "tools" / "run.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's working folder, with an experiment beside those of the repository."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(
        textwrap.dedent("""
        from __future__ import annotations

        import time

        from metta.common.tool import Tool


        class Sleep(Tool):
            seconds: float = 0

            def invoke(self) -> int:
                print("sleeping", flush=True)
                time.sleep(self.seconds)
                return 4


        def sleep(seconds: float = 0) -> Sleep:
            return Sleep(seconds=seconds)
    """)
    )
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(RUN), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )


def test_a_tool_in_the_working_folder_runs_and_gives_the_status(folder: Path) -> None:
    process = start(folder, "experiments.mine.sleep")
    assert process.communicate() == ("sleeping\n", "")
    assert process.returncode == 4


def test_a_mistake_is_one_line_and_status_2(folder: Path) -> None:
    process = start(folder, "experiments.mine.slep")
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 2)
    assert err == "error: experiments.mine has no 'slep'; did you mean 'sleep' or 'Sleep'? valid: Sleep, sleep\n"


def test_the_repositorys_experiments_are_found_from_anywhere(folder: Path) -> None:
    process = start(folder, "experiments.nowhere.train")
    _, err = process.communicate()
    assert "mine" in err
    assert "arena" in err


def test_control_c_leaves_no_traceback(folder: Path) -> None:
    process = start(folder, "experiments.mine.sleep", "--args", "seconds=60")
    assert process.stdout is not None
    assert process.stdout.readline() == "sleeping\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 130


def test_a_reader_may_leave_early(folder: Path) -> None:
    process = start(folder, "--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_it_is_executable() -> None:
    assert os.access(RUN, os.X_OK)
    assert RUN.read_text().startswith("#!/usr/bin/env -S uv run\n")
