"""What follows from a sweep is decided once, and every view says the same."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from metta.sweep.analysis import conclusions as module
from metta.sweep.analysis.conclusions import BestReason, Certainty, Evidence, NextStep, Quality
from metta.sweep.cli import main as metta_sweep
from metta.sweep.report.findings import best_reason, findings
from metta.sweep.report.format import ranking_text
from metta.sweep.report.html import page
from metta.sweep.report.html.html_export import report_html
from metta.sweep.report.json_data import sweep_as_json
from metta.sweep.report.terminal.outcome import print_outcome
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState
from tests.sweep.report.conftest import MADE

Take = Callable[[str], SweepState]


def _first(sweep: SweepState, count: int) -> SweepState:
    """The sweep with only its first scored trials, as the model sees them."""
    numbers = sorted(trial.number for trial in sweep.ranked)[:count]
    return replace(sweep, trials=[sweep.by_number[number] for number in numbers], analysis=None).analysed()


def _recommending(sweep: SweepState, trial: Trial) -> SweepState:
    assert sweep.analysis
    return replace(sweep, analysis=replace(sweep.analysis, recommended=trial.number))


def _confirmed(sweep: SweepState, means: Sequence[tuple[Trial, float]]) -> SweepState:
    runs = [
        replace(trial, number=10 * seed + i, score=mean + 0.1 * seed, suggestion={"trial": trial.number})
        for seed in range(3)
        for i, (trial, mean) in enumerate(means)
    ]
    return replace(sweep, confirmations=runs)


def _over(sweep: SweepState) -> SweepState:
    return replace(sweep, definition=sweep.definition.model_copy(update={"num_trials": len(sweep.trials)}))


def test_why_a_trial_is_best(snapshot: Take) -> None:
    sweep = snapshot("made")
    first, second = sweep.ranked[:2]
    assert snapshot("empty").conclusions.reason is None
    assert best_reason(snapshot("empty")) == "No trial has a score yet."
    assert _first(sweep, 1).conclusions.reason is BestReason.ONLY
    assert _recommending(sweep, first).conclusions.reason is BestReason.TOP
    assert _recommending(sweep, second).conclusions.reason is BestReason.MODEL
    assert replace(sweep, analysis=None, asking=True).conclusions.reason is BestReason.MEASURED
    confirmed = _confirmed(sweep, [(first, 1.0), (second, 3.0)])
    assert confirmed.conclusions.reason is BestReason.CONFIRMED
    assert best_reason(confirmed) == "It did best of the 2 settings that were run again on fresh seeds."
    assert best_reason(_confirmed(sweep, [(first, 1.0)])) == (
        "It is the only setting that was run again on fresh seeds."
    )


def test_a_model_that_was_not_asked_does_not_agree(snapshot: Take) -> None:
    sweep = snapshot("made")
    trusted = best_reason(_recommending(sweep, sweep.ranked[0]))
    assert "the model" in trusted
    assert "the model" not in best_reason(replace(sweep, analysis=None, asking=True))


def test_with_few_trials_the_wording_hedges(snapshot: Take) -> None:
    sweep = snapshot("made")
    few, many = _first(sweep, 8), _first(sweep, 20)
    assert (few.conclusions.evidence, many.conclusions.evidence) == (Evidence.LITTLE, Evidence.ENOUGH)
    doubted = best_reason(_recommending(few, few.ranked[1]))
    assert doubted.endswith("; after only 8 scored trials that is a guess, so compare both on fresh seeds.")
    assert "guess" not in best_reason(_recommending(many, many.ranked[1]))
    three = _first(sweep, 3)
    assert three.conclusions.evidence is Evidence.ALMOST_NONE
    assert three.conclusions.certainty is Certainty.TOO_FEW
    agreed = _recommending(three, three.ranked[0])
    if not agreed.conclusions.was_lucky:
        assert best_reason(agreed).endswith("the model agrees; a few trials say little, so confirm it.")


@pytest.mark.parametrize("doubted", [False, True])
def test_terminal_page_and_json_agree(snapshot: Take, doubted: bool) -> None:
    sweep = snapshot("made")
    sweep = _recommending(sweep, sweep.ranked[1 if doubted else 0])
    best, top = sweep.conclusions.best, sweep.conclusions.top
    assert best is not None
    assert top is not None
    assert (best.number == top.number) == (not doubted)

    console = Console(file=io.StringIO(), width=200)
    print_outcome(console, sweep, {})
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert f"best trial: {best.number} " in printed
    assert (f"top trial (highest measured score): {top.number} " in printed) == doubted
    assert best_reason(sweep) in printed
    card = findings(sweep)[0]
    assert card.answer.startswith(f"Trial {best.number}: ")
    assert card.details[0] == best_reason(sweep)
    assert page.ranking(sweep)["best"] == best.number
    assert page.ranking(sweep)["top"] == top.number
    data = sweep_as_json(sweep)
    assert (data["best"], data["top"]) == (best.number, top.number)
    assert ranking_text(sweep, best) == ("best" if doubted else "best, top")


def test_the_command_says_the_same(snapshot: Take, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = replace(snapshot("made"), analysis=None)
    assert sweep.best is not None
    assert metta_sweep(["best", "made", "--store", url]) == 0
    assert best_reason(sweep) in capsys.readouterr().out
    assert metta_sweep(["best", "made", "--store", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trial"] == sweep.best.number


def test_a_page_decides_everything_once(snapshot: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str, decide: Callable[[SweepState], Any]) -> Callable[[SweepState], Any]:
        def count(state: SweepState) -> Any:
            calls.append(name)
            return decide(state)

        return count

    for name in ("failure_reasons", "wider_ranges"):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    sweep = replace(snapshot("made"))
    assert sweep.conclusions is sweep.conclusions
    report_html(sweep)
    assert sorted(calls) == ["failure_reasons", "wider_ranges"]


def test_how_good_the_model_is(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    forecasts = sweep.analysis.forecasts

    def quality(predicted: NDArray[np.float64], numbers: list[int] = forecasts.numbers) -> Quality:
        changed = replace(forecasts, predicted=predicted, numbers=numbers)
        assert sweep.analysis
        found = replace(sweep, analysis=replace(sweep.analysis, forecasts=changed)).conclusions.model_quality
        assert found is not None
        return found.quality

    assert quality(forecasts.measured) is Quality.GOOD
    assert quality(-forecasts.measured) is Quality.POOR
    assert quality(forecasts.measured, forecasts.numbers[:2]) is Quality.UNKNOWN
    assert replace(sweep, analysis=None).conclusions.model_quality is None
    loud = replace(forecasts, noises=10.0 * np.ptp(forecasts.measured) * np.ones(len(forecasts.numbers)))
    hidden = replace(sweep, analysis=replace(sweep.analysis, forecasts=loud)).conclusions.model_quality
    assert hidden is not None
    assert hidden.quality is Quality.HIDDEN


def test_what_to_do_next(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    assert snapshot("empty").conclusions.next_step is NextStep.START
    assert snapshot("failing").conclusions.next_step is NextStep.FIX
    queued = replace(sweep, trials=[replace(sweep.trials[0], state=TrialState.QUEUED, score=None)], analysis=None)
    assert queued.conclusions.next_step is NextStep.CONTINUE_UNTIL_SCORED
    assert sweep.conclusions.next_step is NextStep.CONTINUE
    inside = _over(replace(sweep, analysis=replace(sweep.analysis, at_the_edge={})))
    assert inside.conclusions.next_step is NextStep.CONFIRM
    path = next(path for path, each in sweep.searched.items() if each.choices is None)
    edge = _over(replace(sweep, analysis=replace(sweep.analysis, at_the_edge={path: "max"})))
    assert edge.conclusions.next_step is NextStep.WIDEN_THEN_CONFIRM
    confirmed = _confirmed(inside, [(sweep.ranked[0], 1.0), (sweep.ranked[1], 3.0)])
    assert confirmed.conclusions.to_confirm == []
    assert confirmed.conclusions.next_step is NextStep.EXTEND


def test_contenders_are_not_the_best_and_the_cheaper_one_is_cheaper(snapshot: Take) -> None:
    found = snapshot("made").conclusions
    assert found.best is not None
    assert found.best.number not in {trial.number for trial in found.contenders}
    cheaper = found.cheaper_contender
    if cheaper is not None:
        assert cheaper in found.contenders
        assert (cheaper.cost or 0) < (found.best.cost or 0)
    assert len(snapshot("made").trials) == MADE
