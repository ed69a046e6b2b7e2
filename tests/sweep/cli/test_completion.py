"""Tab in a real bash, after the one command that installs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import open_store

TAB = """
. ~/.bashrc
for line in "$@"; do
    COMP_LINE="$line" COMP_POINT=${#line} COMP_TYPE=9
    _python_argcomplete metta-sweep "${line##* }"
    echo "${COMPREPLY[*]}"
done
"""


def test_tab_completes_commands_options_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    (tmp_path / ".bashrc").write_text("export KEPT=1")
    for _ in range(2):
        assert metta_sweep(["completion", "--install"]) == 0
    lines = (tmp_path / ".bashrc").read_text().splitlines()
    assert lines[0] == "export KEPT=1"
    assert len(lines) == 2, "installing again adds nothing"

    store = open_store(f"sqlite:///{tmp_path}/sweeps.db")
    for name in ("arena-1", "arena-2", "maze"):
        store.create_sweep(name, {})
    store.close()
    script = tmp_path / "bin" / "metta-sweep"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom metta.sweep.cli import main\nraise SystemExit(main())\n")
    script.chmod(0o755)
    typed = ["metta-sweep con", "metta-sweep show arena-", "metta-sweep show --state ", "metta-sweep best x --max"]
    environment = os.environ | {
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", TAB, "bash", *typed], env=environment, capture_output=True, text=True, check=True
    )
    assert [set(line.split()) for line in done.stdout.splitlines()] == [
        {"confirm"},
        {"arena-1", "arena-2"},
        {"queued", "running", "completed", "failed", "pruned"},
        {"--max-cost"},
    ]


def test_the_shell_must_be_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert metta_sweep(["completion"]) == 2
    assert "bash|zsh|fish" in capsys.readouterr().err
    assert metta_sweep(["completion", "fish"]) == 0
    assert "complete" in capsys.readouterr().out
