"""A sweep as one value: what counts, what it cost, which trial is top and which is best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from metta.sweep import RunningTrial, load_sweep, optimize
from metta.sweep.cli import main as metta_sweep
from metta.sweep.trial import Trial, TrialState
from tests.support.parabola import parabola_definition
from tests.support.states import state_of

X = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))


def trial(number: int, score: float | None, cost: float | None = 1.0, x: Any = 0.5, **more: Any) -> Trial:
    state = TrialState.FAILED if score is None else TrialState.COMPLETED
    return Trial(number, state, {"x": x}, score=score, cost=cost, **more)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -5.0, None])
def test_a_trial_without_a_usable_cost_counts_the_median(bad: float | None) -> None:
    trials = [trial(0, 0.5, 2.0), trial(1, 0.9, bad), trial(2, 0.4, 4.0), trial(3, 0.3, 100.0)]
    state = state_of(parabola_definition(9, max_cost=110.0), trials)
    assert state.top is not None
    assert (state.top.number, state.top.cost) == (1, None)
    assert state.spent == 106.0 + 4.0
    assert state.budget_is_spent
    assert state.unpriced == [1]
    (line,) = state.remarks
    assert line.startswith("1 trial is kept without a cost and counted at the median cost: 1 (")
    assert state_of(parabola_definition(9, max_cost=1.0), [trial(0, 0.5, bad)]).spent == 0.0


def test_a_dropped_trial_is_neither_learnt_from_nor_ranked_nor_counted_and_stays_spent() -> None:
    state = state_of(parabola_definition(9), [trial(0, 0.5, 2.0), trial(1, 9.0, 4.0, dropped="broken"), trial(2, 0.4)])
    assert (state.counted, state.spent, [each.number for each in state.dropped]) == (2, 7.0, [1])
    assert [each.number for each in state.ranked] == [0, 2]
    assert [each.number for each in state.learner.protein.observations] == [0, 2]
    assert state.best is state.top is state.by_number[0]
    assert state.remarks == []


def test_what_cannot_be_learnt_from_is_named_with_its_reason() -> None:
    trials = [trial(0, 0.5), trial(1, 9.0, x="0.O1"), trial(2, 9.0, x="0.O1"), Trial(3, TrialState.QUEUED, {})]
    state = state_of(parabola_definition(9).model_copy(update={"tool": {}}), trials)
    assert [each.number for each in state.ranked] == [0]
    (line,) = state.remarks
    assert line == (
        "3 trials are not learnt from: 1-2 (x: '0.O1' is not a number; it is searched in 0 to 1); "
        "3 (x: missing, and the parameter has no default)"
    )


def test_another_metric_decides_everything_anew() -> None:
    """What the stored score was once measured in no longer matters."""
    small, big = {"small": 999.9, "score": 0.1}, {"small": 0.1, "score": 1.0}
    trials = [
        trial(0, 999.9, 5.0, metrics=small, cost_metric="tokens"),
        trial(1, 0.1, 7.0, metrics={**big, "seconds": 3.0}, cost_metric="tokens"),
        trial(2, 0.2, 1.0, metrics={"small": 0.2}, cost_metric="seconds"),
    ]
    state = state_of(parabola_definition(9, keep_policies="best"), trials)
    assert [(each.number, each.score, each.cost) for each in state.ranked] == [(1, 1.0, 3.0), (0, 0.1, None)]
    assert state.on_front == {1}
    assert state.policies_kept("best") == {1, 2}, "what was not measured is not judged"
    assert state.problems == {2: "the run did not measure 'score'"}


def test_policies_stay_while_the_sweep_runs_and_the_best_one_stays_after_it(tmp_path: Path) -> None:
    seen: list[int] = []

    def train(config: dict[str, Any], running: RunningTrial) -> float:
        policy = running.run_dir / "policy"
        policy.write_text("1")
        running.artefacts["policy"] = policy.as_uri()
        seen.append(sum(1 for _ in running.run_dir.parent.glob("trial_*/policy")))
        return 1 - float(config["x"] - 0.3) ** 2

    result = optimize(train, X, "score", 6, name="kept", keep_policies="best")
    assert seen == [1, 2, 3, 4, 5, 6], "until its end nothing is deleted"
    left = [path.parent.name for path in tmp_path.glob("sweeps/kept/*/trial_*/policy")]
    assert left == [f"trial_{result.best_trial.number:04d}"]


def test_what_python_gets_is_the_best_and_the_top_trial() -> None:
    scores = iter([0.5, 0.9, 0.1])
    result = optimize(lambda config, trial: next(scores), X, "score", 3, name="two", goal="minimize")
    assert result.top_trial.number == 2
    state = load_sweep(result.store, "two").state()
    assert state.best is not None
    assert result.best_trial == state.best
    assert result.best_params == {"x": state.best.params["x"]}


def test_trials_are_dropped_and_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    result = optimize(lambda config, trial: config["x"], X, "score", 4, name="s")
    top = str(result.top_trial.number)
    assert metta_sweep(["drop", "s", top, "--reason", "wrong data"]) == 0
    capsys.readouterr()
    assert metta_sweep(["show", "s"]) == 0
    shown = capsys.readouterr().out
    assert "3 completed, 1 dropped of 4" in shown
    again = optimize(lambda config, trial: config["x"], X, "score", 4, name="s")
    assert len(again.trials) == 5, "another trial takes its place"
    assert again.state.by_number[int(top)].dropped == "wrong data"
    assert metta_sweep(["drop", "s", top, "--undo"]) == 0
    assert load_sweep(result.store, "s").state().counted == 5
    assert metta_sweep(["drop", "s", "99"]) == 2
    assert "trial 99 is not in the sweep" in capsys.readouterr().err
