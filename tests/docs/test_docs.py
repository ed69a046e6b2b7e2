"""The pages build without a warning, and every block of code in them and in README does what it says.

Blocks marked python or bash are run as they are. Those marked sh hold commands that train for minutes or need a
cluster: they are resolved down to the last setting, but not run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path

import pytest
import yaml

from metta.common.runner import main as run_tool
from metta.sweep.cli import make_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNER = "./tools/run.py"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, in some language."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page.name, line, match.group(1), match.group(2)))
    return [block for block in found if block.language in languages]


def commands(block: Block) -> list[str]:
    """The commands of a block, each on one line and without its comment."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def test_the_pages_build(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").exists()


@pytest.mark.parametrize("block", blocks("python", "bash"), ids=str)
def test_code_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "block").write_text(block.text)
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "METTA_DATA_DIR": str(tmp_path / "data"),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = {"python": [sys.executable], "bash": ["bash", "-eu"]}[block.language]
    run = subprocess.run([*command, "block"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("block", blocks("yaml", "json"), ids=str)
def test_data_can_be_read(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    else:
        assert list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_commands_are_understood(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        next(block.text for block in blocks("python") if "def sweep_optimizer" in block.text)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for command in commands(block):
        words = shlex.split(command.rpartition("&& ")[2].replace("experiments.mine.", "mine."))
        if RUNNER in words:
            assert run_tool([*words[words.index(RUNNER) + 1 :], "--dry-run"]) == 0, capsys.readouterr().err
        elif "metta-sweep" in words:
            arguments = words[words.index("metta-sweep") + 1 :]
            with pytest.raises(SystemExit, match="0") if "--help" in arguments else nullcontext():
                make_parser().parse_args(arguments)


def test_the_tables_of_settings_are_what_the_code_has() -> None:
    """If this fails: python docs/settings_tables.py"""
    tables = run_path(str(ROOT / "docs" / "settings_tables.py"))
    page = (ROOT / "docs" / "settings.md").read_text()
    assert tables["updated"](page) == page
    assert page.count("\n### `") == page.count("\n<!-- end of the table -->\n") >= 10
