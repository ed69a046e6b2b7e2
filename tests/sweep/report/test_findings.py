"""What a sweep found, in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from metta.sweep.report.analysis import analyse
from metta.sweep.report.findings import failure_reasons, findings
from metta.sweep.report.snapshot import Snapshot
from metta.sweep.report.standing import ranked
from metta.sweep.trial import Trial, TrialState
from tests.support.made_sweep import LEARNING_RATE
from tests.sweep.report.conftest import EVIL

Take = Callable[[str], Snapshot]


def _text(sweep: Snapshot) -> str:
    return "\n".join(
        line
        for finding in findings(sweep)
        for line in (finding.answer, *finding.details, *(" ".join(row) for row in finding.settings + finding.commands))
    )


def test_the_four_questions_are_answered(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    best, sure, matters, after = findings(sweep)
    assert f"Trial {sweep.analysis.recommended}" in best.answer
    winner = sweep.trials[sweep.analysis.recommended]
    assert [path for path, _, _ in best.settings] == list(winner.params)
    expected = sweep.analysis.expected[winner.number]
    assert f"{expected.score:.3g}" in sure.answer
    assert f"{expected.score - 1.96 * expected.score_std:.3g}" in sure.answer
    assert "The model's forecasts have been good" in sure.details[-1]
    assert matters.answer.startswith("learning_rate")
    assert "80 of 100" in after.answer
    assert any("sweep_name=made" in command for _, command in after.commands)


def test_a_sweep_that_is_over_is_to_be_confirmed(snapshot: Take) -> None:
    sweep = snapshot("made")
    over = replace(sweep, definition=sweep.definition.model_copy(update={"num_trials": 80}))
    commands = [command for _, command in findings(over)[-1].commands]
    assert any("metta-sweep confirm made --top 3 --seeds 5" in command for command in commands)
    assert any("num_trials=160" in command for command in commands)


def test_what_fresh_seeds_said_is_told(snapshot: Take) -> None:
    sweep = snapshot("made")
    first, second = ranked(sweep.trials, "maximize")[:2]
    runs = [
        replace(trial, number=2 * seed + i, score=mean + 0.1 * seed, suggestion={"trial": trial.number})
        for seed in range(3)
        for i, (trial, mean) in enumerate([(first, 1.0), (second, 3.0)])
    ]
    confirmed = replace(sweep, confirmations=runs)
    text = _text(confirmed)
    assert f"Trial {second.number} on 3 fresh seeds: 3.1 on average" in text
    assert f"Trial {second.number} really is better than trial {first.number}" in text
    best, sure, *_ = findings(confirmed)
    assert best.answer.startswith(f"Trial {second.number}: ")
    assert sure.answer == f"Trial {second.number} is best, and that is no luck."
    alone = replace(sweep, confirmations=runs[::2])
    assert findings(alone)[1].answer.startswith(f"Trial {first.number} on 3 fresh seeds: 1.1 on average (95% sure of ")
    over = replace(confirmed, definition=sweep.definition.model_copy(update={"num_trials": 80}))
    assert "metta-sweep confirm" not in _text(over)


def test_luck_is_called_luck(snapshot: Take) -> None:
    sweep = snapshot("made")
    first, second = ranked(sweep.trials, "maximize")[:2]
    assert sweep.analysis
    doubted = replace(sweep, analysis=replace(sweep.analysis, recommended=second.number, twins=[second.number]))
    assert findings(doubted)[0].answer.startswith(f"Trial {second.number}: ")
    assert f"Trial {first.number} measured more ({first.score:.4g})" in _text(doubted)
    trusted = replace(sweep, analysis=replace(sweep.analysis, recommended=first.number, twins=[first.number]))
    assert "recommends it too" in _text(trusted)


def test_repeats_are_told(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    winner = sweep.trials[sweep.analysis.recommended]
    trials = [*sweep.trials, replace(winner, number=80)]
    changed = replace(sweep, trials=trials, analysis=analyse(sweep.definition, trials))
    assert f"run 2 times and scored {winner.score:.4g}, {winner.score:.4g}" in _text(changed)


def test_settings_that_may_be_as_good_are_told(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    expected, winner = sweep.analysis.expected, sweep.analysis.recommended
    level = expected[winner].score - expected[winner].noise_std
    rivals = [trial for trial, each in expected.items() if trial != winner and each.score >= level]
    assert rivals
    assert any(f"{len(rivals)} other" in detail for detail in findings(sweep)[1].details)


def test_the_values_that_are_as_good_hold_the_recommended_one(snapshot: Take) -> None:
    sweep = snapshot("made")
    (told,) = [detail for detail in findings(sweep)[2].details if "if all else stays" in detail]
    low, high = re.search(r"learning_rate from (\S+) to ([\d.e-]+)", told).groups()  # type: ignore[union-attr]
    assert sweep.analysis
    recommended = sweep.trials[sweep.analysis.recommended].params[LEARNING_RATE]
    assert 1e-5 < float(low) <= recommended <= float(high) < 1e-2


def test_ranges_that_are_too_narrow_are_named(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    edges = {LEARNING_RATE: "max", "trainer.ppo.clip_coef": "min"}
    told = _text(replace(sweep, analysis=replace(sweep.analysis, at_the_edge=edges)))
    assert "a wider one may hold something better: learning_rate (highest)." in told, "clip_coef hardly matters"


def test_a_few_trials_say_next_to_nothing(snapshot: Take) -> None:
    sweep = snapshot("made")
    trials = ranked(sweep.trials, "maximize")[:1]
    best, sure, matters, after = findings(replace(sweep, trials=trials, analysis=analyse(sweep.definition, trials)))
    assert best.answer.startswith(f"Trial {trials[0].number}: ")
    assert sure.answer == "Not sure at all: only 1 trial completed"
    assert matters.answer == "Too early to say: only 1 trial completed"
    assert after.answer == "Go on: 1 of 100 trials have ended"


def test_less_is_better_where_the_goal_is_to_minimize(snapshot: Take) -> None:
    """Its scores fall from trial to trial, and the trial before the last failed."""
    sweep = snapshot(EVIL)
    assert ranked(sweep.trials, "minimize")[0].number == 11
    assert findings(sweep)[0].answer.startswith("Trial 11: ")


def test_failures_that_differ_in_numbers_are_one_reason(snapshot: Take) -> None:
    sweep = snapshot("failing")
    (often, three), (seldom, one) = failure_reasons(sweep)
    assert often == "RuntimeError: out of memory: 3000000000.0 GiB"
    assert [trial.number for trial in three] == [0, 1, 2]
    assert (seldom, [trial.number for trial in one]) == ("ValueError: no", [3])
    assert findings(sweep)[-1].answer.startswith("Mend what makes the trials fail")


def test_a_sweep_that_has_not_begun_says_so(snapshot: Take) -> None:
    assert findings(snapshot("empty"))[0].answer == "Nothing yet: no trial has been started."
    sweep = snapshot("empty")
    queued = replace(sweep, trials=[Trial(0, TrialState.QUEUED, {})])
    assert "no trial has a score" in findings(queued)[0].answer
