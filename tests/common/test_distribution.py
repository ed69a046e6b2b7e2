"""What messages say of how to install and start things."""

from __future__ import annotations

import importlib.metadata
import shlex
from pathlib import Path

import pytest

from metta.common import distribution
from metta.common.distribution import extra_with, install_command, runner


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this copy were an installed wheel."""
    monkeypatch.setattr(distribution, "is_clone", lambda: False)
    monkeypatch.delenv("UV", raising=False)


def test_in_a_clone_uv_installs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", "/bin/uv")
    assert install_command("ray") == "uv sync --extra ray"


@pytest.mark.usefixtures("wheel")
@pytest.mark.parametrize(("has_pip", "begins"), [(True, ["pip", "install"]), (False, ["uv", "pip", "install"])])
def test_without_a_clone_the_packages_are_named_and_not_this_distribution(
    has_pip: bool, begins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if has_pip else None)
    command = shlex.split(install_command("dashboard"))
    assert command[: len(begins)] == begins
    assert {"plotly>=6.1", "uvicorn>=0.30"} <= set(command)
    assert not any("metta" in word for word in command)


@pytest.mark.usefixtures("wheel")
def test_every_extra_can_be_installed() -> None:
    declared = importlib.metadata.metadata("metta-sweep").get_all("Provides-Extra") or []
    assert {"ray", "train", "wandb"} <= set(declared)
    for extra in declared:
        assert install_command(extra)
    with pytest.raises(KeyError):
        install_command("none")


def test_the_extra_of_a_package() -> None:
    assert extra_with("psycopg") == "postgres"
    assert extra_with("mettagrid") == "train"
    assert extra_with("unheard_of") is None


def test_a_tool_is_started_as_it_can_be_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.chdir(distribution.CLONE)
    assert runner() == ["uv", "run", "./tools/run.py"]
    monkeypatch.chdir(tmp_path)
    assert runner() == ["metta-run"]
