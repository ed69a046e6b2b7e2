"""Trials that are stopped early by their learning curves, and configurations that are repeated."""

from __future__ import annotations

import math
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metta.common.errors import UserError
from metta.sweep import RunningTrial, SweepResult, load_sweep, optimize
from metta.sweep.curve import learning_curve, watched_curve, whole_curve
from metta.sweep.definition import SweepDefinition
from metta.sweep.observations import Learner
from metta.sweep.report.findings import findings
from metta.sweep.retention import Retention
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import CurvePoint
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import TrialState
from tests.support.functions import curved, slowly_curved

SPACE = {
    "lr": {"min": 1e-4, "max": 1.0, "distribution": "log_normal"},
    "width": {"min": 0, "max": 1, "distribution": "uniform"},
}
STEPS = 25


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))


def sweep(num_trials: int, function: Any = curved, space: Any = SPACE, **fields: Any) -> SweepResult:
    given: dict[str, Any] = {"early_stopping": "protein", "seed": 3, "name": "s", "write_report": False} | fields
    return optimize(function, space, "accuracy", num_trials, **given)


def test_what_is_expected_of_a_trial_is_what_is_believed_of_its_configuration() -> None:
    state = sweep(12).state.analysed()
    for trial in state.ranked:
        belief, expected, interval = (
            getattr(state.conclusions, name)(trial) for name in ("belief", "expected", "interval_of")
        )
        assert (expected.score, expected.score_std) == (belief.score, belief.score_std)
        assert interval[0] < belief.score < interval[1]


@pytest.mark.parametrize(
    ("rule", "workers"), [("protein", None), ("asha", None), ("median", None), ("hyperband", None), ("protein", 2)]
)
def test_losers_are_stopped_and_winners_are_not(rule: str, workers: int | None) -> None:
    result = sweep(30, slowly_curved if workers else curved, early_stopping=rule, num_workers=workers)
    pruned = [trial for trial in result.trials if trial.state is TrialState.PRUNED]
    assert 3 < len(pruned) < 30
    for trial in pruned:
        assert trial.score is None
        assert trial.share is not None
        assert trial.share <= 1, "on a busy machine a stop may arrive with the last report"
        assert trial.stopped
        curve = load_sweep(result.store, "s").curve(trial.number)
        assert curve[-1].step == round(trial.share * STEPS)
    shares = sum(trial.share or 0 for trial in pruned)
    savings = findings(result.state)[-1]
    assert savings.answer.startswith(
        f"{len(pruned)} trials were stopped early, so 30 trials took {30 - len(pruned) + shares:.1f} whole runs"
    )
    assert (str(pruned[-1].number), f"{pruned[-1].share:.0%}", pruned[-1].stopped) == savings.table[1]
    assert result.best_trial.state is TrialState.COMPLETED
    assert result.top_trial.state is TrialState.COMPLETED


def test_what_is_kept_is_the_trial_that_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[SweepState] = []
    monkeypatch.setattr(Retention, "sweep_ended", lambda self, state: judged.append(state))
    for num_trials in (15, 30):  # the second goes on with the first
        stored = sweep(num_trials, keep_policies="best").state
        (state,) = judged
        judged.clear()
        assert {number: list(curve) for number, curve in state.all_curves.items()} == stored.all_curves
        assert state.policies_kept("best") == stored.policies_kept("best")


def test_off_stops_nothing() -> None:
    assert {trial.state for trial in sweep(12, early_stopping="off").trials} == {TrialState.COMPLETED}


def test_a_function_that_goes_on_all_the_same_is_completed() -> None:
    def stubborn(config: dict[str, Any], trial: RunningTrial) -> float:
        for step in range(1, STEPS + 1):
            trial.report(step, {"accuracy": config["width"]}, total=STEPS)
        return float(config["width"])

    assert {trial.state for trial in sweep(12, stubborn).trials} == {TrialState.COMPLETED}


def test_a_sweep_that_is_resumed_decides_as_one_that_was_not() -> None:
    def counted(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        return curved(config, trial) | {"steps": 25.0}  # seconds would differ

    given: dict[str, Any] = {"seeds_per_trial": "auto", "cost_metric": "steps"}
    whole = sweep(24, counted, name="whole", **given)
    for num_trials in (7, 15, 24):
        parts = sweep(num_trials, counted, name="parts", **given)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]
    assert [trial.stopped for trial in parts.trials] == [trial.stopped for trial in whole.trials]


def test_decisions_are_kept_with_what_they_saw_and_can_be_made_again() -> None:
    result = sweep(24)
    with closing(open_store(result.store)) as store:
        decisions, curves, trials = store.decisions("s"), store.curves("s"), store.trials("s")
    stops = [decision for decision in decisions if decision.kind == "stop"]
    assert [decision.number for decision in stops] == [t.number for t in trials if t.state is TrialState.PRUNED]
    assert [decision.reason for decision in stops] == [t.stopped for t in trials if t.stopped]
    last = stops[-1]
    learner = Learner(result.definition)
    for trial in trials[: last.number]:
        learner.tell(trial, whole_curve(curves[trial.number], "accuracy", "seconds"))
    learner.protein.suggested(last.number, trials[last.number].params)
    points = whole_curve(curves[last.number], "accuracy", "seconds")
    answers = [learner.protein.decide(last.number, points[:seen], STEPS) for seen in range(1, len(points) + 1)]
    assert answers[-1].reason == last.reason
    assert not answers[-1].go_on


def test_promising_configurations_are_repeated_with_other_seeds() -> None:
    seeds: dict[int, int] = {}
    truth = {f"arm {i}": random.Random(i).gauss(0, 1) for i in range(12)}

    def noisy(config: dict[str, Any], trial: RunningTrial) -> float:
        seeds[trial.number] = trial.seed
        end = float(truth[config["model"]["arm"]] + random.Random(trial.seed).gauss(0, 0.5))
        trial.report(STEPS, {"accuracy": end}, total=STEPS)
        return end

    space = {"model": {"arm": {"choices": list(truth)}, "fixed": 1}}
    result = sweep(40, noisy, space, early_stopping="off", seeds_per_trial="auto")
    state = result.state
    assert state.repeats
    for number, first in state.repeats.items():
        assert state.by_number[number].params == state.by_number[first].params
        assert seeds[number] != seeds[first]
    assert not set(state.repeats) & {trial.number for trial in state.ranked}, "configurations are ranked, not runs"
    assert " repeated " in findings(state)[-1].answer
    assert len(findings(state)[-1].details) == len(set(state.repeats.values()))
    first = next(iter(state.repeats.values()))
    scores = [state.by_number[n].score or 0.0 for n in [first, *(n for n, f in state.repeats.items() if f == first)]]
    (ranked,) = [trial for trial in state.ranked if trial.number == first]
    assert ranked.score == pytest.approx(sum(scores) / len(scores))


def test_several_seeds_in_one_trial_do_not_go_with_stopping() -> None:
    with pytest.raises(UserError, match="seeds_per_trial=auto"):
        sweep(3, seeds_per_trial=2)


def test_a_curve_goes_on_over_attempts() -> None:
    points = [
        CurvePoint(1, 10, 1.0, {"m": 0.1}),
        CurvePoint(1, 20, 2.0, {"m": 0.2}),
        CurvePoint(1, 30, 3.0, {"m": 0.3}),
        CurvePoint(2, 30, 1.5, {"m": 0.35}),
        CurvePoint(2, 40, 2.5, {"other": 1.0}),
        CurvePoint(2, 50, 3.5, {"m": math.nan}),
        CurvePoint(2, 60, 4.5, {"m": 0.5}),
    ]
    assert whole_curve(points, "m", "seconds") == [(10, 1.0, 0.1), (20, 2.0, 0.2), (30, 3.5, 0.35), (60, 6.5, 0.5)]


def test_a_budget_of_whole_runs_goes_into_more_trials() -> None:
    state = sweep(200, max_runs=8.0).state
    assert 8.0 - 1e-6 <= state.whole_runs < 9.0
    assert state.counted > 12
    assert sweep(200, max_runs=10.0).state.whole_runs >= 10.0 - 1e-6, "a larger budget extends the sweep"


def with_loss(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
    """Reports a loss that falls towards the end of a run with a good score."""
    for step in range(1, STEPS + 1):
        if not trial.report(step, {"loss": 1.0 - config["width"] * step / STEPS}, total=STEPS):
            break
    return {"accuracy": config["width"]}


def stopped_widths(result: SweepResult) -> list[float]:
    return [trial.params["width"] for trial in result.trials if trial.state is TrialState.PRUNED]


def test_a_metric_that_falls_stands_for_a_score_that_rises(capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"early_stopping": "asha", "progress_metric": "loss", "space": {"width": SPACE["width"]}}
    right = sweep(20, with_loss, progress_goal="minimize", **given)
    assert "early stopping: asha, by loss (minimized)" in capsys.readouterr().out
    wrong = sweep(40, with_loss, name="wrong", **given)
    assert "progress_metric=loss progress_goal=minimize turns it around" in capsys.readouterr().out
    assert min(stopped_widths(right)) < 0.4 < right.best_trial.params["width"]
    assert max(stopped_widths(wrong)) > 0.95, "the best widths have the lowest loss"
    # What the optimiser learns from curves has their direction, too, and so does a sweep that is resumed.
    assert right.best_trial.params["width"] > wrong.best_trial.params["width"]
    assert sweep(30, with_loss, progress_goal="minimize", **given).best_trial.params["width"] > 0.9


def test_a_sweep_says_that_nothing_can_be_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    sweep(3, with_loss, space={"width": SPACE["width"]})
    said = capsys.readouterr().out
    assert said.count("trial 0 reported no accuracy while it ran, only loss, so early_stopping=protein can stop") == 1
    sweep(3, lambda config, trial: config["width"], name="silent", space={"width": SPACE["width"]})
    assert "trial 0 reported no accuracy while it ran, nothing, so" in capsys.readouterr().out


def test_a_direction_without_a_metric_is_refused() -> None:
    with pytest.raises(UserError, match="progress_goal=minimize is the direction of progress_metric, which is not set"):
        sweep(3, progress_goal="minimize")


@pytest.mark.parametrize(
    ("metric", "goal", "progress_metric", "progress_goal", "expected"),
    [
        ("score", "maximize", None, None, "maximize"),
        ("time", "minimize", None, None, "maximize"),
        ("time", "minimize", "reward", None, "maximize"),
        ("time", "minimize", "reward", "minimize", "minimize"),
        ("time", "minimize", "other", None, "minimize"),
        ("reward", "minimize", None, None, "minimize"),
    ],
)
def test_a_tools_reward_is_better_if_it_is_higher_unless_it_is_the_score(
    metric: str, goal: str, progress_metric: str | None, progress_goal: str | None, expected: str
) -> None:
    definition = SweepDefinition.model_validate(
        {
            "protein": {"metric": metric, "goal": goal, "parameters": SPACE},
            "num_trials": 1,
            "tool_class": "a:B",
            "tool": {},
            "traits": ToolTraits(progress="reward", progress_goal="maximize"),
            "progress_metric": progress_metric,
            "progress_goal": progress_goal,
        }
    )
    assert definition.watched_goal == expected
    assert definition.watched_sign == (1.0 if expected == goal else -1.0)


def test_a_value_that_is_reported_now_and_then_leaves_runs_as_long_as_they_are() -> None:
    points = [
        CurvePoint(1, step, step / 10, {"other": 1.0} | ({"m": 0.1} if step == 20 else {})) for step in (10, 20, 30)
    ]
    definition = sweep(1).definition.model_copy(update={"progress_metric": "m"})
    curve = watched_curve(points, definition)
    assert curve[:1] == [(20, 2.0, 0.1)]
    whole, half = learning_curve(curve, 1.0, 1.0), learning_curve(curve, 0.5, 1.0)
    assert whole is not None
    assert half is not None
    assert (whole.total, half.total) == (30, 60)
    assert whole.values.tolist() == [0.1]
    assert watched_curve([CurvePoint(1, 10, 1.0, {"other": 1.0})], definition) == []


def test_a_score_of_another_metric_is_not_taken_for_a_contradiction(capsys: pytest.CaptureFixture[str]) -> None:
    def both(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        result = {"accuracy": config["width"], "loss": 1.0 - config["width"], "reward": config["width"]}
        trial.report(STEPS, result, total=STEPS)
        return result

    given: dict[str, Any] = {"name": "s", "early_stopping": "asha", "seed": 3, "progress_metric": "reward"}
    given["progress_goal"] = "maximize"
    space = {"width": SPACE["width"]}
    optimize(both, space, "loss", 8, goal="minimize", **given)
    optimize(both, space, "accuracy", 12, on_change="extend", **given)
    assert "turns it around" not in capsys.readouterr().out


@pytest.mark.parametrize("again", ["another metric at the same step", "the last values once more"])
def test_a_stopped_trial_that_reports_once_more_is_pruned(again: str) -> None:
    def function(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        for step in range(1, STEPS + 1):
            value = {"accuracy": config["width"] * step / STEPS}
            goes_on = trial.report(step, value, total=STEPS)
            if again == "another metric at the same step":
                trial.report(step, {"loss": 1.0}, total=STEPS)
            if not goes_on:
                trial.report(step, value, total=STEPS)
                break
        return value

    trials = sweep(12, function, early_stopping="asha", space={"width": SPACE["width"]}).trials
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert pruned
    assert all(trial.share is not None and trial.share < 1 for trial in pruned)
    whole = [trial for trial in trials if trial.state is TrialState.COMPLETED]
    assert [trial.score for trial in whole] == pytest.approx([trial.params["width"] for trial in whole])


def test_a_trial_that_ends_by_an_exception_where_it_is_stopped_is_pruned() -> None:
    def raising(config: dict[str, Any], trial: RunningTrial) -> float:
        for step in range(1, STEPS + 1):
            if not trial.report(step, {"accuracy": config["width"] * step / STEPS}, total=STEPS):
                raise RuntimeError("pruned")
        return float(config["width"])

    trials = sweep(14, raising, early_stopping="asha", space={"width": SPACE["width"]}).trials
    states = [trial.state for trial in trials]
    assert TrialState.FAILED not in states
    assert TrialState.PRUNED in states


def test_a_trial_is_not_stopped_by_its_last_report() -> None:
    def once(config: dict[str, Any], trial: RunningTrial) -> float:
        trial.report(STEPS, {"accuracy": config["width"]}, total=STEPS)
        return float(config["width"])

    states = {trial.state for trial in sweep(12, once, early_stopping="asha", space={"width": SPACE["width"]}).trials}
    assert states == {TrialState.COMPLETED}


def test_steps_that_begin_again_are_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    def batches(config: dict[str, Any], trial: RunningTrial) -> float:
        for epoch in range(1, 6):
            for batch in range(1, 5):
                trial.report(batch, {"accuracy": config["width"] * epoch}, total=4)
        return float(config["width"])

    trials = sweep(8, batches, early_stopping="asha", space={"width": SPACE["width"]}).trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    said = capsys.readouterr().out
    assert said.count("trial 0 reported step 1 after step 4, so early_stopping=asha does not judge it") == 1
    sweep(12, batches, early_stopping="asha", space={"width": SPACE["width"]})  # it is resumed


@pytest.mark.parametrize(
    ("reported", "fields", "message"),
    [
        ({"total": 3}, {}, "trial 0 ended at step 25 with total=3, so early_stopping=asha cannot judge it"),
        ({"total": 100_000}, {}, "trial 0 ended at step 25 with total=100000, so"),
        ({"total": 25}, {"rungs": [100, 200]}, "trial 0 ended at step 25, before the first of rungs=[100, 200], so"),
    ],
)
def test_a_sweep_says_that_no_trial_comes_to_a_rung(
    reported: dict[str, int], fields: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def function(config: dict[str, Any], trial: RunningTrial) -> float:
        for step in range(1, STEPS + 1):
            trial.report(step, {"accuracy": config["width"]}, **reported)
        return float(config["width"])

    sweep(2, function, early_stopping="asha", space={"width": SPACE["width"]}, **fields)
    assert message in capsys.readouterr().out


def test_other_metrics_at_a_step_remove_nothing_from_a_curve() -> None:
    values = [(1, {"m": 0.1}), (1, {"other": 1.0}), (2, {"m": 0.2})]
    points = [CurvePoint(1, step, 1.0 * step, metrics) for step, metrics in values]
    assert whole_curve(points, "m", "seconds") == [(1, 1.0, 0.1), (2, 2.0, 0.2)]
