"""What describing a sweep imports, each checked in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded(statement: str, packages: set[str]) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{packages!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["metta.tools.sweep", "metta.tools.training", "metta.tools.gymnasium", "metta.tools.ranked_sweep"]
)
def test_a_sweep_is_described_without_training_code(module: str) -> None:
    assert loaded(f"import {module}", {"torch", "mettagrid", "gymnasium", "safetensors"}) == set()


@pytest.mark.parametrize("module", ["metta.tools.train", "metta.tools.sim", "metta.tools.watch"])
def test_a_tool_for_mettagrid_is_described_without_torch(module: str) -> None:
    assert loaded(f"import {module}", {"torch", "safetensors", "PIL"}) == set()
