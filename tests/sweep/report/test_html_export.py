"""A sweep as one HTML file."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metta.common.errors import UserError
from metta.sweep.cli import main
from metta.sweep.report.html import page
from metta.sweep.report.html.html_export import report_html, write_report
from metta.sweep.report.plots.images import write_images
from metta.sweep.retention import sweep_folder, trial_folder
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Store
from tests.sweep.report.conftest import EVIL, MADE

Take = Callable[[str], SweepState]


def _packed(html: str, name: str) -> bytes:
    found = re.search(f'<script type="application/octet-stream" id="{name}">([^<]*)</script>', html)
    assert found
    return gzip.decompress(base64.b64decode(found.group(1)))


def _data(html: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_packed(html, "data"))
    return data


def test_a_report_holds_all_it_needs(snapshot: Take) -> None:
    html = report_html(snapshot("made"))
    outside = re.sub(r'<script type="application/octet-stream".*?</script>', "", html, flags=re.S)
    assert not re.search(r'(src|href)="(?!#|data:)', outside)
    assert "http://" not in outside
    assert _packed(html, "plotly").startswith(b"/**\n* plotly.js")
    data = _data(html)
    assert len(data["rows"]) == len(data["details"]) == MADE
    assert {plot["name"] for plot in data["plots"]} == set(data["figures"])
    assert all(figure["data"] for figure in data["figures"].values())


def test_a_report_of_a_thousand_trials_is_small(snapshot: Take) -> None:
    """As if each of the trials of the made sweep were there 13 times, with other digits, for these do not compress."""
    made = snapshot("made")
    trials = [
        replace(
            trial,
            number=number,
            score=None if trial.score is None else trial.score * (1 + 1e-6 * number),
            params={
                path: value * (1 + 1e-6 * number) if isinstance(value, float) else value
                for path, value in trial.params.items()
            },
        )
        for number in range(1040)
        for trial in [made.trials[number % MADE]]
    ]
    assert len(report_html(replace(made, trials=trials))) < 5_000_000


def test_names_and_errors_are_escaped(snapshot: Take) -> None:
    html = report_html(snapshot(EVIL))
    assert "<img" not in html
    assert "&lt;img" in html
    assert EVIL in _data(html)["failures"][0]["reason"]


@pytest.mark.parametrize("name", ["empty", "failing"])
def test_a_sweep_without_scores_has_a_report(snapshot: Take, name: str) -> None:
    html = report_html(snapshot(name))
    assert "Nothing yet" in html
    data = _data(html)
    assert len(data["failures"]) == len({"empty": [], "failing": ["memory", "no"]}[name])
    assert any("--failed" in command for _, command in data["retry"]) == (name == "failing")
    assert all(any("--failed" in command for _, command in trial["commands"]) for trial in data["details"])


def test_the_best_trials_animation_is_in_it(snapshot: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    made = snapshot("made")
    best = made.best
    assert best is not None
    path = trial_folder(sweep_folder(made.record), best.number) / "an episode.gif"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GIF89a, not a real one")
    trials = [replace(t, artefacts={"gif": path.as_uri()}) if t is best else t for t in made.trials]
    assert base64.b64encode(path.read_bytes()).decode() in report_html(replace(made, trials=trials))
    path.rename(tmp_path / "elsewhere.gif")
    assert "data:image/gif" not in report_html(replace(made, trials=trials))
    uri = (tmp_path / "elsewhere.gif").as_uri()
    trials = [replace(t, artefacts={"gif": uri}) if t is best else t for t in made.trials]
    assert "data:image/gif" not in report_html(replace(made, trials=trials)), "its trial did not write it"


def test_the_command_writes_it(url: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "made.html"
    assert main(["report", "made", "--store", url, "--to", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert [each.name for each in path.parent.iterdir()] == ["made.html"]
    assert main(["report", "mad", "--store", url]) == 2
    assert "did you mean 'made'" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said(snapshot: Take, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_report(snapshot("empty"), tmp_path / "file" / "report.html")


def test_without_a_browser_there_is_no_png(snapshot: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from choreographer.browsers.chromium import Chromium

    def nowhere(*arguments: Any, **options: Any) -> None:
        return None

    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    monkeypatch.setattr(Chromium, "find_browser", nowhere)
    with pytest.raises(UserError, match="Chromium or Chrome, and none was found"):
        write_images(snapshot("failing"), tmp_path)


def test_without_plotly_the_error_says_what_to_install(snapshot: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    page.plotly_js.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("UV", "/bin/uv")
    with pytest.raises(UserError, match="plots need plotly: uv sync --extra dashboard"):
        report_html(snapshot("empty"))
