"""The commands `dashboard` and `report`, and the report that a sweep leaves."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from metta.sweep import ParameterConfig, SweepResult, optimize
from metta.sweep.cli import main
from metta.sweep.report.dashboard import server
from metta.sweep.report.html import page
from metta.sweep.store.protocol import Store
from tests.support.functions import parabola


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Starlette]:
    """The dashboards that would have been served."""
    apps: list[Starlette] = []

    def serve(app: Starlette, listening: socket.socket) -> None:
        apps.append(app)
        listening.close()

    monkeypatch.setattr(server, "serve", serve)
    return apps


def _run(url: str, *arguments: str) -> int:
    return main(["dashboard", *arguments, "--store", url, "--port", "0", "--no-browser"])


def test_on_loopback_the_address_is_all_that_it_takes(
    url: str, store: Store, served: list[Starlette], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(url, "made") == 0
    assert capsys.readouterr().out.startswith("the dashboard is at http://127.0.0.1:")
    with TestClient(served[0], base_url="http://localhost") as visitor:
        assert visitor.get("/api/sweeps").status_code == 200


def test_elsewhere_the_address_holds_a_token(
    url: str, store: Store, served: list[Starlette], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(url, "--host", "0.0.0.0") == 0
    address = capsys.readouterr().out.split()[4]
    with TestClient(served[0], base_url=address) as visitor:
        assert visitor.get("/api/sweeps").status_code == 401
        assert visitor.get(address).status_code == visitor.get("/api/sweeps").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["mada"], "did you mean 'made'"), (["made", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1")],
)
def test_a_mistake_is_said_before_anything_is_served(
    url: str, store: Store, served: list[Starlette], capsys: pytest.CaptureFixture[str], arguments: Any, message: str
) -> None:
    assert _run(url, *arguments) == 2
    assert message in capsys.readouterr().err
    assert served == []


def _sweep() -> SweepResult:
    space = {"x": ParameterConfig(min=0, max=1, distribution="uniform")}
    return optimize(parabola, parameters=space, metric="accuracy", num_trials=3, seed=1)


def test_a_sweep_leaves_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    result = _sweep()
    (path,) = tmp_path.glob(f"sweeps/{result.name}/*/report.html")
    assert capsys.readouterr().out.endswith(f"report:\n  {path}\n")
    assert f"<title>{result.name}</title>" in path.read_text()


def test_a_sweep_does_not_fail_for_want_of_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("metta.sweep.report.html.html_export.write_report", full)
    assert len(_sweep().trials) == 3
    assert capsys.readouterr().out.endswith("the report could not be written: the disk is full\n")


def test_a_sweep_without_plotly_says_why_it_has_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UV", "/bin/uv")
    monkeypatch.setitem(sys.modules, "plotly", None)
    page.plotly_js.cache_clear()
    assert len(_sweep().trials) == 3
    why = "the report could not be written: plots need plotly: uv sync --extra dashboard"
    assert capsys.readouterr().out.splitlines()[-1] == why
