"""What a sweep found, in words."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metta.common.command_line import split_pairs
from metta.common.entry_point import EntryPoint
from metta.sweep import optimize
from metta.sweep.analysis.failures import failure_reasons
from metta.sweep.analysis.model import Slice
from metta.sweep.analysis.ranges import End, wider_end, wider_ranges
from metta.sweep.definition import differences
from metta.sweep.function import FunctionSweep, RunningTrial, function_sweep
from metta.sweep.protein.types import Importance
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.commands import widen_command
from metta.sweep.report.findings import findings, in_short, standing_sentences
from metta.sweep.state import SweepState
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import Trial, TrialState
from tests.support.made_sweep import LEARNING_RATE
from tests.sweep.report.conftest import EVIL, MADE

Take = Callable[[str], SweepState]


def _text(sweep: SweepState) -> str:
    return "\n".join(
        line
        for finding in findings(sweep)
        for line in (
            finding.answer,
            *finding.details,
            *(" ".join(row) for row in (*finding.table, *finding.commands, *finding.others)),
        )
    )


PARAMETERS = {
    "x": ParameterConfig(min=0.01, max=1.0, distribution="log_normal"),
    "nested": {"y": ParameterConfig(min=0.5, max=1.0, distribution="uniform")},
}


def swept(sweep_name: str, num_trials: int = 100) -> FunctionSweep:
    return function_sweep(score, PARAMETERS, metric="arena", num_trials=num_trials, name=sweep_name)


def score(config: dict[str, Any], trial: RunningTrial) -> float:
    return float(config["x"])


def _over(sweep: SweepState, num_trials: int = MADE) -> SweepState:
    """The same sweep with no trial left to run."""
    return replace(sweep, definition=sweep.definition.model_copy(update={"num_trials": num_trials}))


def _with_noise(sweep: SweepState, noise: float) -> SweepState:
    assert sweep.analysis
    expected = {number: replace(each, noise_std=noise) for number, each in sweep.analysis.expected.items()}
    return replace(sweep, analysis=replace(sweep.analysis, expected=expected))


def test_the_four_questions_are_answered(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    best, sure, matters, after = findings(sweep)
    assert f"Trial {sweep.analysis.recommended}" in best.answer
    winner = sweep.trials[sweep.analysis.recommended]
    assert [path for path, _, _ in best.table[1:]] == list(winner.params)
    expected = sweep.analysis.expected[winner.number]
    low, high = sweep.analysis.interval(expected)
    assert f"arena about {expected.score:.3g}" in best.answer
    assert f"about {expected.score:.3g}" in in_short(sweep)
    assert f"{low:.3g} to {high:.3g} (95% sure)" in sure.answer
    assert "Its order of them was good" in sure.details[-1]
    assert matters.answer.startswith("learning_rate")
    assert "80 of 100" in after.answer
    assert any("sweep_name=made" in command for _, command in after.commands)


def test_a_sweep_that_is_over_is_to_be_confirmed(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    after = findings(_over(replace(sweep, analysis=replace(sweep.analysis, at_the_edge={}))))[-1]
    assert after.answer == "Confirm the best on fresh seeds, before trusting or extending it"
    ((reason, command),) = after.commands
    best, rivals = sweep.best, sweep.contenders
    assert best is not None
    numbers = " ".join(str(trial.number) for trial in [best, *rivals])
    assert f"metta-sweep confirm made --trials {numbers} --seeds 5" in command
    assert f"{5 * (len(rivals) + 1)} runs, about" in reason
    extended = dict(after.others)["extend the sweep to 160 trials in total"]
    assert "num_trials=160" in extended


def test_no_more_is_confirmed_than_the_sweep_itself_cost(snapshot: Take) -> None:
    """Of the first 20 trials four may be confirmed on five seeds, and those are the ones that promise most."""
    sweep = snapshot("made")
    assert sweep.analysis
    few = _over(replace(sweep, trials=sweep.trials[:20], analysis=None).analysed(), 20)
    noisy = _with_noise(few, 99.0)
    rivals = noisy.contenders
    assert len(rivals) > 3
    ((reason, command),) = [each for each in findings(noisy)[-1].commands if " confirm " in each[1]]
    assert f"the 4 most promising of the {len(rivals) + 1} settings that may be best on 5 fresh seeds each" in reason
    best = noisy.best
    assert best is not None
    assert f"--trials {best.number} {' '.join(str(trial.number) for trial in rivals[:3])} --seeds 5" in command


def test_a_sweep_that_fixes_the_seed_is_not_to_be_confirmed(snapshot: Take) -> None:
    sweep = _over(snapshot("made"))
    fixed = sweep.definition.model_copy(update={"train_overrides": {"trainer.seed": 1}})
    assert "metta-sweep confirm" not in _text(replace(sweep, definition=fixed))


def test_what_fresh_seeds_said_is_told(snapshot: Take) -> None:
    sweep = snapshot("made")
    first, second = sweep.ranked[:2]
    runs = [
        replace(trial, number=2 * seed + i, score=mean + 0.1 * seed, suggestion={"trial": trial.number})
        for seed in range(3)
        for i, (trial, mean) in enumerate([(first, 1.0), (second, 3.0)])
    ]
    confirmed = replace(sweep, confirmations=runs)
    text = _text(confirmed)
    assert f"Trial {second.number} on 3 fresh seeds: 3.1 on average" in text
    assert f"Trial {second.number} is better than trial {first.number}" in text
    best, sure, *_ = findings(confirmed)
    assert best.answer.startswith(f"Trial {second.number}: ")
    assert sure.answer == f"Trial {second.number} is the best, and not by luck."
    (said,) = standing_sentences(confirmed.conclusions, second)
    assert said.startswith(f"Trial {second.number} on 3 fresh seeds: 3.1"), "not what the model believed before them"
    alone = replace(sweep, confirmations=runs[::2])
    assert findings(alone)[1].answer.startswith(f"Trial {first.number} on 3 fresh seeds: 1.1 on average (95% sure of ")
    assert "about 3.1" in best.answer
    assert "metta-sweep confirm" not in _text(_over(confirmed))


def test_luck_is_called_luck(snapshot: Take) -> None:
    sweep = snapshot("made")
    first, second = sweep.ranked[:2]
    assert sweep.analysis
    doubted = replace(sweep, analysis=replace(sweep.analysis, recommended=second.number, twins=[second.number]))
    assert findings(doubted)[0].answer.startswith(f"Trial {second.number}: ")
    assert f"The top trial, {first.number}, measured more ({first.score:.4g})" in _text(doubted)
    equal = [replace(trial, score=first.score) if trial.number == second.number else trial for trial in sweep.trials]
    tied = replace(sweep, trials=equal)
    _, other = tied.ranked[:2]
    tied = replace(tied, analysis=replace(sweep.analysis, recommended=other.number, twins=[other.number]))
    assert f"measured as much ({first.score:.4g})" in _text(tied)
    trusted = replace(sweep, analysis=replace(sweep.analysis, recommended=first.number, twins=[first.number]))
    assert "the top score of the 75 trials" in _text(trusted)


@pytest.mark.parametrize("deviations", [1.0, 3.0])
def test_a_lucky_best_is_called_so_and_counts_for_what_is_expected_of_it(snapshot: Take, deviations: float) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    best = sweep.trials[sweep.analysis.recommended]
    expected = sweep.analysis.expected[best.number]
    measured = replace(best, score=expected.score + deviations * expected.noise_std)
    trials = [measured if trial.number == best.number else trial for trial in sweep.trials]
    card = findings(replace(sweep, trials=trials))[0]
    assert f"arena about {expected.score:.3g}, for" in card.answer
    assert card.details[0].startswith(f"It measured {measured.score:.4g}, the top score of the 75 trials")
    assert ("probably a lucky run: 3.0 standard deviations of the noise above" in card.details[0]) == (
        deviations == 3.0
    )
    centre = sweep.analysis.expected[0].score
    assert f"about {expected.score:.3g} (the middle of the search space: {centre:.3g})" in in_short(sweep)


def test_repeats_are_told(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    winner = sweep.trials[sweep.analysis.recommended]
    trials = [*sweep.trials, replace(winner, number=80)]
    changed = replace(sweep, trials=trials, analysis=None).analysed()
    assert f"run 2 times and scored {winner.score:.4g}, {winner.score:.4g}" in _text(changed)


def test_another_seed_is_told_with_its_own_score_and_noise_that_fits_the_interval(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    winner = sweep.trials[sweep.analysis.recommended]
    assert winner.score is not None
    score, repeat = winner.score - 0.01, {"source": "repeat", "repeat_of": winner.number}
    metrics = {**winner.metrics, sweep.definition.protein.metric: score}
    again = replace(winner, number=80, score=score, metrics=metrics, suggestion=repeat)
    definition = sweep.definition.model_copy(update={"seeds_per_trial": "auto"})
    changed = replace(sweep, definition=definition, trials=[*sweep.trials, again], analysis=None).analysed()
    assert changed.analysis
    assert changed.analysis.recommended == winner.number
    assert f"run 2 times and scored {winner.score:.4g}, {score:.4g}" in _text(changed)
    belief, expected = changed.analysis.beliefs[winner.number], changed.analysis.expected[winner.number]
    width = math.hypot(expected.score_std, expected.noise_std)
    assert expected.noise_std > 0
    assert (belief.high - belief.low) / 3.92 == pytest.approx(width)


def test_settings_that_may_be_as_good_are_told(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    expected, winner = sweep.analysis.expected, sweep.analysis.recommended
    level = expected[winner].score - expected[winner].noise_std
    rivals = [trial for trial, each in expected.items() if trial != winner and each.score >= level]
    rivals.sort(key=lambda number: -expected[number].score)
    assert rivals
    assert f"{len(rivals)} other" in findings(sweep)[1].details[0]
    assert f"(trials {', '.join(map(str, rivals))}; the most promising first)" in findings(sweep)[1].details[0], (
        "every one is named"
    )
    assert f"{len(rivals)} others may be as good" in in_short(sweep)


def test_the_values_that_are_as_good_hold_the_recommended_one(snapshot: Take) -> None:
    sweep = snapshot("made")
    (told,) = [good for name, _, good in findings(sweep)[2].table if name == "learning_rate"]
    low, high = told.split(" to ")
    assert sweep.analysis
    recommended = sweep.trials[sweep.analysis.recommended].params[LEARNING_RATE]
    assert 1e-5 < float(low) <= recommended <= float(high) < 1e-2


def test_ranges_that_are_too_narrow_are_named(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    edges: dict[str, End] = {LEARNING_RATE: "max", "trainer.batch_size": "min"}
    narrow = _over(replace(sweep, analysis=replace(sweep.analysis, at_the_edge=edges)))
    ends = "learning_rate (0.01; try up to 0.04) and batch_size (4096; try down to 2048)."
    assert f"Best at an end of its range, where the score still improves: {ends}" in findings(narrow)[-1].details
    assert findings(narrow)[-1].answer.startswith("Widen the search")
    assert "the ranges of learning_rate and batch_size may be too narrow" in in_short(narrow)


def test_the_command_that_widens_ranges_does(snapshot: Take) -> None:
    """It is built as the runner would, and asks the same question but for the ranges."""
    sweep = snapshot("made")
    assert sweep.analysis
    edges: dict[str, End] = {"x": "max", "nested.y": "min"}
    entry_point = {"path": f"{__name__}.swept", "args": {"sweep_name": "s"}, "overrides": {"sweep.max_cost": "9"}}
    before = EntryPoint.model_validate(entry_point).build()
    assert isinstance(before, FunctionSweep)
    protein = sweep.definition.protein.model_copy(update={"parameters": PARAMETERS})
    narrow = replace(
        sweep,
        definition=sweep.definition.model_copy(update={"protein": protein}),
        record=replace(sweep.record, entry_point=entry_point),
        analysis=replace(sweep.analysis, at_the_edge=edges),
    )
    told = widen_command(narrow.conclusions)
    assert told
    reason, command = told
    assert "100 more trials (200 in total)" in reason
    runner, path, *words = shlex.split(command)[2:]
    assert (runner, words.pop(0)) == ("./tools/run.py", "--args")
    here = words.index("--overrides")
    args, overrides = split_pairs(words[:here], "--args"), split_pairs(words[here + 1 :], "--overrides")
    tool = EntryPoint(path=path, args=args, overrides=overrides).build()
    assert isinstance(tool, FunctionSweep)
    assert (tool.on_change, tool.sweep.num_trials, tool.sweep.max_cost) == ("extend", 200, 9)
    assert differences(before.definition(), tool.definition()) == [
        "parameters.x.max: 1.0 -> 2.5",
        "parameters.nested.y.min: 0.5 -> 0.4",
    ]


@pytest.mark.parametrize(
    ("parameter", "end", "wider"),
    [
        (ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal"), "max", 0.04),
        (ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal"), "min", 2.5e-6),
        (ParameterConfig(min=0.8, max=0.99, distribution="uniform"), "max", 0.995),
        (ParameterConfig(min=0.8, max=0.99, distribution="uniform"), "min", 0.76),
        (ParameterConfig(min=0.05, max=0.3, distribution="uniform"), "min", 0.025),
        (ParameterConfig(min=-1.0, max=1.5, distribution="uniform"), "min", -1.5),
        (ParameterConfig(min=1, max=4, distribution="int_uniform"), "max", 5),
        (ParameterConfig(min=1, max=4, distribution="int_uniform"), "min", 1),
        (ParameterConfig(min=1, max=99, distribution="int_log_normal"), "min", 1),
        (ParameterConfig(min=0, max=1, distribution="uniform"), "max", 1),
        (ParameterConfig(min=1, max=512, distribution="uniform_pow2"), "min", 1),
        (ParameterConfig(min=64, max=512, distribution="uniform_pow2"), "min", 32),
        (ParameterConfig(min=0.9, max=0.999, distribution="logit_normal"), "max", 0.99961),
    ],
)
def test_a_wider_end_stays_where_the_parameter_makes_sense(parameter: ParameterConfig, end: End, wider: float) -> None:
    assert wider_end(parameter, end) == wider


def test_a_range_that_ends_where_sense_does_is_not_to_be_widened(snapshot: Take) -> None:
    sweep = snapshot("made")
    assert sweep.analysis
    share = ParameterConfig(min=0.0, max=1.0, distribution="uniform")
    protein = sweep.definition.protein.model_copy(update={"parameters": {"share": share}})
    definition = sweep.definition.model_copy(update={"protein": protein})
    at_its_end = replace(sweep.analysis, at_the_edge={"share": "min"})
    assert wider_ranges(replace(sweep, definition=definition, analysis=at_its_end)) == {}


def test_good_values_of_choices_that_are_not_equal_to_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))

    def score(config: dict[str, Any], trial: RunningTrial) -> float:
        return 3.0 if config["limit"] != config["limit"] else float(config["limit"])

    space = {"limit": {"choices": [1, True, math.nan]}, "x": {"min": 0, "max": 1, "distribution": "uniform"}}
    state = optimize(score, space, "score", 12, seed=0, write_report=False).state.analysed()
    assert state.best is not None
    assert state.best.score == 3.0
    assert any("limit" in line for line in [findings(state)[2].answer, *findings(state)[2].details])


def test_every_parameter_is_in_one_group(snapshot: Take) -> None:
    """One that matters over the whole space, one only near the best setting, one hardly."""
    sweep = snapshot("made")
    assert sweep.analysis
    clip, ent = "trainer.ppo.clip_coef", "trainer.ppo.ent_coef"
    flat = [replace(each, score=99.0) for each in sweep.analysis.slices[clip].predictions]
    values, best = sweep.analysis.slices[ent].values, sweep.by_number[sweep.analysis.recommended].params[ent]
    far = 0.25 * (values[-1] - values[0])
    steep = [replace(each, score=99.0 * (abs(x - best) < far)) for x, each in zip(values, flat, strict=True)]
    slices = {**sweep.analysis.slices, clip: Slice(sweep.analysis.slices[clip].values, flat)}
    slices[ent] = Slice(values, steep)
    shares = {path: Importance(0.01 if path in (clip, ent) else 0.3, 0.1) for path in sweep.analysis.importance}
    card = findings(replace(sweep, analysis=replace(sweep.analysis, slices=slices, importance=shares)))[2]
    assert "clip_coef hardly matters within the range searched." in card.details
    assert "ent_coef matters near the best setting only." in card.details
    listed = [name for name, _, _ in card.table[1:]]
    assert sorted([*listed, "clip_coef"]) == sorted(sweep.parameter_names.values())
    for name in listed:
        assert name in card.answer
    assert "clip_coef" not in card.answer


def test_the_cost_s_direction_and_size_are_told(snapshot: Take) -> None:
    """A trial of the made sweep costs 84 s with the smallest batch and 32 s with the largest, unless it fails early."""
    sweep = snapshot("made")
    completed = sweep.ranked
    known = replace(sweep, trials=completed, analysis=None).analysed()
    (told,) = [detail for detail in findings(known)[2].details if detail.startswith("The cost")]
    found = re.match(r"The cost depends most on batch_size: larger costs less, from (\S+) s to (\S+) s\.", told)
    assert found
    assert float(found.group(1)) > 1.5 * float(found.group(2))


def test_the_score_and_the_cost_are_explained(snapshot: Take) -> None:
    assert (
        "The score, arena, is the mean of arena/basic and arena/combat; higher is better. The cost is seconds of "
        "training." in findings(snapshot("made"))[0].details
    )


def test_a_tool_says_what_its_scores_measure(snapshot: Take) -> None:
    sweep = snapshot("made")
    simulations = {f"arena/{name}": {"score": "heart.gained"} for name in ("basic", "combat")}
    traits = ToolTraits(score_note="in {score} per agent")

    def terms(**changes: object) -> str:
        definition = sweep.definition.model_copy(update={"traits": traits, "simulations": simulations, **changes})
        return findings(replace(sweep, definition=definition))[0].details[-1]

    measured = "The score, arena, is the mean of arena/basic and arena/combat"
    assert terms().startswith(f"{measured} in heart.gained per agent; higher is better.")
    assert terms(simulations={**simulations, "arena/basic": {"score": "ore.gained"}}).startswith(f"{measured}; higher")
    assert terms(simulations={name: {} for name in simulations}).startswith(f"{measured}; higher")
    assert terms(traits=ToolTraits()).startswith(f"{measured}; higher")


def test_a_few_trials_say_next_to_nothing(snapshot: Take) -> None:
    sweep = snapshot("made")
    trials = sweep.ranked[:1]
    best, sure, matters, after = findings(replace(sweep, trials=trials, analysis=None).analysed())
    assert best.answer.startswith(f"Trial {trials[0].number}: ")
    assert sure.answer == "Not sure at all: only 1 trial completed"
    assert matters.answer == "Too early to say: only 1 trial completed"
    assert after.answer == "Continue: 1 of 100 trials have ended"


def test_less_is_better_where_the_goal_is_to_minimize(snapshot: Take) -> None:
    """Its scores fall from trial to trial, and the trial before the last failed."""
    sweep = snapshot(EVIL)
    assert sweep.ranked[0].number == 11
    assert findings(sweep)[0].answer.startswith("Trial 11: ")


def test_failures_that_differ_in_numbers_are_one_reason(snapshot: Take) -> None:
    sweep = snapshot("failing")
    often, seldom = failure_reasons(sweep)
    assert often.reason == "RuntimeError: out of memory: 3000000000.0 GiB"
    assert [trial.number for trial in often.trials] == [0, 1, 2]
    assert (seldom.reason, [trial.number for trial in seldom.trials]) == ("ValueError: no", [3])
    assert findings(sweep)[-1].answer.startswith("Fix the cause of the failures")


def test_a_sweep_that_has_not_begun_says_so(snapshot: Take) -> None:
    assert findings(snapshot("empty"))[0].answer == "Nothing yet: no trial has been started."
    sweep = snapshot("empty")
    queued = replace(sweep, trials=[Trial(0, TrialState.QUEUED, {})])
    assert "no trial has a score" in findings(queued)[0].answer
