"""A sweep that runs, on the lines of a terminal and of a log file; and as another process follows it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from metta.sweep.analysis.progress import sweep_progress
from metta.sweep.cli import main as metta_sweep
from metta.sweep.definition import SweepDefinition
from metta.sweep.report.format import current_metric, duration_text, suggestion_text
from metta.sweep.report.terminal import console as console_module
from metta.sweep.report.terminal import live_display as live_display_module
from metta.sweep.report.terminal.console import ConsoleView
from metta.sweep.report.terminal.live_view import RunningSweep, live_lines, plain_lines
from metta.sweep.report.terminal.watch import WatchedSweep
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Attempt, Outcome, Store
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import Progress, Trial, TrialState
from tests.support.parabola import parabola_definition
from tests.support.states import state_of

START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = {"source": "model", "pareto_point": 1, "score": 0.9, "score_std": 0.05, "cost": 3.0, "success": 0.5}


def completed(number: int, score: float, cost: float, seconds: float = 10.0) -> Trial:
    return Trial(
        number,
        TrialState.COMPLETED,
        {"x": 0.5},
        score=score,
        cost=cost,
        attempts=1,
        started_at=START,
        ended_at=START + timedelta(seconds=seconds),
    )


def failed(number: int, error: str) -> Trial:
    return replace(completed(number, 0.0, 1.0), state=TrialState.FAILED, score=None, error=error)


def state(trials: list[Trial], **settings: object) -> SweepState:
    settings |= {"traits": ToolTraits(progress="reward")}
    return state_of(parabola_definition(10).model_copy(update=settings), trials)


# ---- what is left


def test_a_sweep_adds_up() -> None:
    told = state([completed(0, 0.5, 2.0), completed(1, 0.9, 4.0), failed(2, "no"), completed(3, 0.4, 9.0)])
    assert (told.counted, told.counts[TrialState.FAILED], told.spent) == (4, 1, 16.0)
    assert told.top is not None
    assert told.top.number == 1
    assert [trial.number for trial in told.front] == [1, 0]
    assert told.recent_cost == 4.0
    assert told.recent_seconds == 10.0


def test_the_rest_is_expected_to_take_what_the_last_trials_took() -> None:
    told = state([completed(0, 0.5, 2.0, 10.0), completed(1, 0.9, 4.0, 20.0)])
    expected = sweep_progress(told, {})
    assert expected.seconds_left == pytest.approx(8 * 15.0)
    assert expected.expected_cost == pytest.approx(6.0 + 8 * 3.0)
    half, none = Progress(5, 10, 7.0), None
    expected = sweep_progress(told, {2: half, 3: none})
    assert expected.seconds_left == pytest.approx((6 + 0.5 + 1) * 15.0 / 2), "two at once"
    assert expected.expected_cost == pytest.approx(30.0)


def test_a_budget_ends_it_sooner() -> None:
    told = state([completed(0, 0.5, 3.0)], max_cost=9.0)
    expected = sweep_progress(told, {})
    assert expected.expected_cost == 9.0
    assert expected.seconds_left == pytest.approx(2 * 10.0)


def test_the_hours_that_are_left_end_it_sooner() -> None:
    told = state([completed(0, 0.5, 3.0)])
    expected = sweep_progress(told, {1: None}, seconds_allowed=35.0)
    assert expected.seconds_left == pytest.approx(40.0), "what runs then is ended"
    assert expected.expected_cost == pytest.approx(3.0 + 4 * 3.0)


def test_before_any_trial_ended_its_own_pace_says_what_is_left() -> None:
    assert sweep_progress(state([]), {}).seconds_left is None
    assert sweep_progress(state([]), {0: None}).seconds_left is None
    expected = sweep_progress(state([]), {0: Progress(20, 100, 4.0)})
    assert expected.seconds_left == pytest.approx(16.0 + 9 * 20.0)
    assert expected.expected_cost == pytest.approx(10 * 20.0)


def test_a_budget_counts_before_any_trial_ended() -> None:
    running = {0: Progress(20, 100, 4.0)}
    assert sweep_progress(state([], max_cost=50.0), running).seconds_left == pytest.approx(16.0 + 2 * 20.0)
    of_money = sweep_progress(state([], max_cost=50.0, cost_metric="dollars"), running)
    assert (of_money.seconds_left, of_money.expected_cost) == (None, None), "nobody knows what a trial costs"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (65, "1 min 05 s"), (3599, "60 min"), (7500, "2 h 05 min"), (200_000, "2 d 7 h")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# ---- what it looks like


def sweep() -> RunningSweep:
    trials = [
        completed(0, 0.5, 2.0),
        completed(1, 0.9, 4.0),
        failed(2, "Traceback\n  x\na.b.Boom: [bold]it[/bold] " * 9),
    ]
    running: dict[int, Progress | None] = {3: Progress(300_000, 1_000_000, 2.0, {"reward": 1.5}), 4: None}
    return RunningSweep(state(trials), running, (4, MODEL), "paused; continue with: x" * 9)


def test_the_view_says_everything_that_one_asks() -> None:
    told = live_lines(sweep(), 80, 24).plain
    assert "3 of 10" in told
    assert "about 34 s left" in told
    assert "7 s spent, about 23 s in total" in told
    assert "trial 1  score 0.9  4.0 s  x=0.5" in told
    assert "1: 0.9 for 4.0 s  0: 0.5 for 2.0 s" in told
    assert "1 trial; trial 2: Boom: [bold]it" in told
    assert "4: model, near trial 1: expects score 0.9 +/- 0.05 for 3.0 s, 50%" in told
    assert " 30%  step 300,000  150,000 steps/s  reward 1.5  5 s left" in told
    assert "starting" in told
    assert "paused" in told
    plain = plain_lines(sweep())
    assert plain[0] == "3 of 10 trials, 1 failed, about 34 s left; 7 s spent, about 23 s in total"
    assert plain[1] == "  top trial 1  score 0.9  4.0 s; 2 on the Pareto front"


@given(st.integers(20, 200), st.integers(1, 40), st.integers(0, 60), st.booleans())
def test_the_view_never_outgrows_the_terminal(width: int, height: int, running: int, ascii_only: bool) -> None:
    crowded = replace(sweep(), running={number: Progress(1, 9, 1.0, {"score": 0.1}) for number in range(running)})
    lines = live_lines(crowded, width, height, ascii_only).plain.split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if ascii_only:
        assert all(line.isascii() for line in lines)
    shown = sum(line.startswith("trial ") for line in lines)
    if height >= 7 + running:
        assert shown == running
    elif height > 8 and width >= 40:
        assert f"and {running - shown} more running" in lines[-1]


def test_a_running_trial_shows_the_metric_or_the_one_that_stands_for_it() -> None:
    definition = parabola_definition(3).model_copy(update={"traits": ToolTraits(progress="reward")})
    assert current_metric(Progress(1, 2, 1.0, {"learning_rate": 0.5, "reward": 2.0}), definition) == ("reward", 2.0)
    assert current_metric(Progress(1, 2, 1.0, {"reward": 2.0, "score": 0.1}), definition) == ("score", 0.1)
    assert current_metric(Progress(1, 2, 1.0, {"score": math.nan, "learning_rate": 0.5}), definition) is None


def test_where_a_suggestion_comes_from() -> None:
    definition = parabola_definition(3)
    assert suggestion_text({}, definition) == "given by hand"
    assert suggestion_text({"source": "random", "fallback": "no score"}, definition).endswith("space (no score)")
    assert suggestion_text({"source": "confirmation", "trial": 7}, definition).startswith("trial 7 of the sweep again")


# ---- as the driver shows it


def run_view(console: Console) -> str:
    definition = parabola_definition(2)
    with ConsoleView(console, lambda metrics: "3 hearts", state_of(definition, [])) as view:
        view.started(Attempt("s", 0, 1, "t", {"x": 0.5}, MODEL))
        view.progressed(0, Progress(1, 2, 1.0, {"score": 0.25}))
        first = completed(0, 0.5, 2.0)
        view.ended(first, state_of(definition, [first]))
        view.notice("[a notice]")
        view.started(Attempt("s", 1, 1, "t", {"x": 0.5}))
        second = failed(1, "ValueError: [bold]")
        view.ended(second, state_of(definition, [first, second]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_log_file_each_trial_is_a_line_and_nothing_is_written_over() -> None:
    told = run_view(Console(file=io.StringIO(), width=80))
    assert told.splitlines() == [
        "1/2  trial 0    score 0.5  2.0 s  top so far  3 hearts",
        "[a notice]",
        "2/2  trial 1   failed: ValueError: [bold]",
    ]


def test_in_a_log_file_it_is_said_now_and_then_how_the_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "PLAIN_SECONDS", 0.0)
    told = run_view(Console(file=io.StringIO(), width=80))
    assert "0 of 2 trials, about 3 s left; 0 s spent" in told
    assert "  trial 0  50%  step 1  1 steps/s  score 0.25" in told
    assert "1 of 2 trials" in told


def test_in_a_terminal_the_foot_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_display_module, "REDRAW_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    told = run_view(console)
    assert "suggested  0: model, near trial 1" in told
    assert "step 1  1 steps/s  score 0.25" in told
    assert "\x1b[1A\x1b[2K" in told, "up, and clear the line"
    assert told.count("1/2  trial 0    score 0.5  2.0 s  top so far") == 1
    assert told.rindex("2/2  trial 1   failed") > told.index("1/2  trial 0")


def test_redraws_are_rare_however_often_there_is_progress() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    with ConsoleView(console, lambda metrics: "", state_of(parabola_definition(2), [])) as view:
        view.started(Attempt("s", 0, 1, "t", {"x": 0.5}))
        assert isinstance(console.file, io.StringIO)
        console.file.truncate(0)
        for step in range(2_000):
            view.progressed(0, Progress(step, 2_000, 1.0))
        drawn = console.file.getvalue().count("trials ")
    assert drawn < 200


# ---- as another process follows it


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    store = open_store(f"sqlite:///{tmp_path}/sweeps.db")
    store.create_sweep("s", parabola_definition(2).model_dump(mode="json"))
    yield store
    store.close()


def test_a_sweep_is_followed_through_its_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV", raising=False)
    other = open_store(store.url)
    followed = WatchedSweep(other, "s")
    assert (followed.state.trials, followed.drivers, followed.over) == ([], 0, False)
    assert followed.live.remark == "no driver is running"

    driver = store.join("s")
    attempt = store.start(driver, 0, {"x": 0.5}, MODEL)
    assert followed.read() == []
    assert followed.live.running == {0: None}
    assert followed.live.suggested == (0, MODEL)
    store.record_progress(attempt, [Progress(3, 9, 1.0, {"score": 0.1})])
    followed.read()
    assert followed.live.running == {0: Progress(3, 9, 1.0, {"score": 0.1})}
    store.pause("s")
    followed.read()
    assert followed.live.remark == "paused; resume with: metta-sweep resume s"
    store.resume("s")
    store.stop("s")
    followed.read()
    assert "asked to stop" in followed.live.remark

    first = store.end(attempt, Outcome(TrialState.COMPLETED, 0.5, 2.0))
    assert followed.read() == [first]
    assert followed.read() == [], "each end is told once"
    second = store.end(store.start(driver, 1, {"x": 0.7}), Outcome(TrialState.FAILED, error="no"))
    assert followed.read() == [second]
    assert not followed.over, "a driver is still there"
    store.leave(driver)
    followed.read()
    assert followed.over
    told = followed.as_json()
    assert (told["best"], told["states"]["failed"], told["running"]) == (0, 1, [])

    longer: SweepDefinition = parabola_definition(3)
    store.update_sweep("s", longer.model_dump(mode="json"))
    followed.read()
    assert not followed.over
    store.retry("s", 1)
    assert followed.read() == []
    assert followed.state.counted == 1
    other.close()


def test_watching_ends_with_the_sweep(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for x in (0.2, 0.7):
        store.add("s", {"x": x}, Outcome(TrialState.COMPLETED, 1 - (x - 0.7) ** 2, 1.0))
    assert metta_sweep(["watch", "s"]) == 0
    assert "best trial: 1" in capsys.readouterr().out
    assert metta_sweep(["watch", "s", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["best_score"] == 1.0
