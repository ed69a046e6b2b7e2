"""A session runs a sweep and shows it on the view that it is given, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metta.sweep.session import Opening, Session
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Attempt
from metta.sweep.sweep import SweepView
from metta.sweep.trial import Progress, Trial
from tests.support.quick_sweep import quick_sweep


class Recorder:
    """A view that records the names of what it is asked to show."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def notice(self, message: str) -> None:
        self.shown.append(message)

    def begins(self, opening: Opening) -> None:
        assert opening.state.counted == 0
        assert opening.folder.name
        self.shown.append("begins")

    @contextmanager
    def running(self, state: SweepState) -> Iterator[SweepView]:
        self.shown.append("running")
        yield self
        self.shown.append("over")

    def ends(self, state: SweepState, commands: dict[str, str]) -> None:
        assert state.complete
        self.shown.append("ends")

    def reported(self, message: str) -> None:
        self.shown.append(message.partition("\n")[0])

    def started(self, attempt: Attempt) -> None:
        self.shown.append("started")

    def progressed(self, number: int, progress: Progress) -> None: ...

    def ended(self, trial: Trial, state: SweepState) -> None:
        self.shown.append("ended")


@pytest.mark.parametrize("report", [True, False])
def test_it_shows_what_happens_on_its_view_alone(
    report: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    view = Recorder()
    sweep = quick_sweep("s", num_trials=1, seconds=0.0).override("write_report", report)
    result = Session(sweep, view).run()
    assert len(result.trials) == 1
    assert view.shown == ["begins", "running", "started", "ended", "over", "ends", *(["report:"] if report else [])]
    assert [path.name for path in tmp_path.glob("sweeps/s/*/report.html")] == (["report.html"] if report else [])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
