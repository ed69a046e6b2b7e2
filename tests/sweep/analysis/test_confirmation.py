"""Do settings really differ? The statistics against SciPy's, and the whole command on real runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError
from metta.sweep.analysis.confirmation import SURE, choose, confirmation_result, missing
from metta.sweep.cli import main as metta_sweep
from metta.sweep.definition import SweepDefinition
from metta.sweep.report.confirmation import sentences
from metta.sweep.state import read_state
from metta.sweep.store import open_store
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import Trial, TrialState
from tests.support.parabola import parabola_definition
from tests.support.states import state_of


def trial(number: int, score: float | None, x: float, of: int | None = None) -> Trial:
    state = TrialState.FAILED if score is None else TrialState.COMPLETED
    suggestion = {} if of is None else {"source": "confirmation", "trial": of}
    return Trial(number, state, {"x": x}, suggestion, score=score, cost=1.0)


def confirmations(scores: dict[int, list[float]]) -> list[Trial]:
    pairs = [(of, score) for of, each in scores.items() for score in each]
    return [trial(number, score, 0.0, of) for number, (of, score) in enumerate(pairs)]


def test_intervals_are_those_of_students_t_and_welchs_test() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(1.0, 0.1, 5).tolist(), generator.normal(0.8, 0.3, 7).tolist()
    chosen = [trial(3, 1.0, 0.1), trial(4, 0.9, 0.2)]
    result = confirmation_result("maximize", chosen, confirmations({3: a, 4: b}))

    by_trial = {setting.trial: setting for setting in result.settings}
    for number, scores in ((3, a), (4, b)):
        low, high = stats.t.interval(SURE, len(scores) - 1, np.mean(scores), stats.sem(scores))
        assert by_trial[number].low == pytest.approx(low)
        assert by_trial[number].high == pytest.approx(high)
    (difference,) = result.differences
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(SURE)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.better == 3


def test_several_comparisons_are_sure_together() -> None:
    scores = {number: np.random.default_rng(number).normal(0, 1, 6).tolist() for number in range(3)}
    chosen = [trial(number, 0.0, number / 10) for number in scores]
    result = confirmation_result("maximize", chosen, confirmations(scores))
    assert len(result.differences) == 3
    for difference in result.differences:
        pair = [scores[difference.better], scores[difference.worse]]
        expected = stats.ttest_ind(*pair, equal_var=False).confidence_interval(1 - (1 - SURE) / 3)
        assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_where_less_is_better_the_lower_mean_wins() -> None:
    chosen = [trial(0, 1.0, 0.1), trial(1, 2.0, 0.2)]
    result = confirmation_result("minimize", chosen, confirmations({0: [1.0, 1.1, 0.9], 1: [0.2, 0.1, 0.3]}))
    assert [setting.trial for setting in result.settings] == [1, 0]
    (difference,) = result.differences
    assert (difference.better, difference.worse, difference.real) == (1, 0, True)
    assert difference.mean == pytest.approx(0.8)


def test_the_words_say_what_the_numbers_do() -> None:
    chosen = [trial(number, 1.0, number / 10) for number in range(3)]
    scores = {0: [1.0, 1.02, 0.98, 1.01], 1: [1.0, 1.03, 0.95, 1.0], 2: [0.1, 0.12, 0.09, 0.1]}
    result = confirmation_result("maximize", chosen, confirmations(scores))
    told = sentences(result)
    assert told[0] == "Trial 0 did best, but trial 1 may be as good."
    assert any(sentence.startswith("Trials 0 and 1 cannot be distinguished") for sentence in told)
    assert any(sentence.startswith("Trial 0 is better than trial 2: by 0.9") for sentence in told)
    assert any(sentence.startswith("Trial 1 is better than trial 2") for sentence in told)
    assert (
        "is the best, and not by luck"
        in sentences(confirmation_result("maximize", chosen[1:], confirmations(scores)))[0]
    )


def test_as_many_seeds_as_advised_mostly_tell() -> None:
    """A difference that does not show yet is found by at least half the experiments of the advised size."""
    generator = np.random.default_rng(1)
    chosen = [trial(0, 1.0, 0.1), trial(1, 1.0, 0.2)]
    scores = {0: [0.3, 1.7, 0.9, 1.5, 0.6], 1: [0.1, 1.3, 0.5, 1.2, 0.4]}
    (difference,) = confirmation_result("maximize", chosen, confirmations(scores)).differences
    assert not difference.real
    assert difference.seeds_needed
    spread = math.sqrt((np.var(scores[0], ddof=1) + np.var(scores[1], ddof=1)) / 2)
    found = 0
    for _ in range(40):
        more = {
            n: generator.normal(difference.mean * (n == 0), spread, difference.seeds_needed).tolist() for n in (0, 1)
        }
        found += confirmation_result("maximize", chosen, confirmations(more)).differences[0].real
    assert found >= 14


def test_failures_and_single_scores_are_no_evidence() -> None:
    runs = [
        trial(0, None, 0.1, of=7),
        trial(1, 0.5, 0.1, of=7),
        trial(2, math.nan, 0.1, of=7),
        trial(3, 0.4, 0.2, of=8),
    ]
    result = confirmation_result("maximize", [trial(7, 1.0, 0.1), trial(8, 0.9, 0.2), trial(9, 0.8, 0.3)], runs)
    assert [(s.trial, list(s.scores), s.failures, s.low) for s in result.settings] == [
        (7, [0.5], 2, None),
        (8, [0.4], 0, None),
        (9, [], 0, None),
    ]
    assert result.differences == []


def test_the_best_that_differ_in_their_settings_are_chosen() -> None:
    trials = [trial(0, 0.9, 0.1), trial(1, 1.0, 0.2), trial(2, 0.95, 0.2), trial(3, None, 0.4), trial(4, 0.8, 0.5)]
    definition = parabola_definition(9)
    state = state_of(definition, trials)
    assert [each.number for each in choose(state, 3)] == [1, 0, 4]
    assert [each.number for each in choose(state, 3, [4, 2, 4])] == [4, 2]
    with pytest.raises(UserError, match="trial 3 has no score"):
        choose(state, 3, [3])
    with pytest.raises(UserError, match="no trial has a score yet"):
        choose(state_of(definition, trials[3:4]), 3)
    fixed = SweepDefinition(
        **dict(definition) | {"train_overrides": {"seed": 1}, "traits": ToolTraits(seed_path="seed")}
    )
    with pytest.raises(UserError, match="fixes seed"):
        choose(state_of(fixed, trials), 3)


def test_only_what_is_missing_is_run_and_in_turns() -> None:
    chosen = [trial(5, 1.0, 0.1), trial(6, 0.9, 0.2)]
    before = [trial(0, 0.5, 0.1, of=5), trial(1, None, 0.1, of=5), trial(2, 0.5, 0.3, of=9)]
    assert [each.number for each in missing([], chosen, 2)] == [5, 6, 5, 6]
    assert [each.number for each in missing(before, chosen, 3)] == [6, 6, 5, 6]
    assert missing(before, chosen[:1], 2) == []


def test_the_best_are_run_again_on_fresh_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    args = {"sweep_name": "q", "num_trials": "4", "seconds": "0"}
    assert EntryPoint(path="tests.support.quick_sweep.quick_sweep", args=args).build().invoke() == 0
    store = open_store(f"sqlite:///{tmp_path}/sweeps.db")
    swept = store.trials("q")
    best, second = [each.number for each in choose(read_state(store, "q"), 2)]

    def confirm(*words: str) -> list[Trial]:
        assert metta_sweep(["confirm", "q", *words]) == 0
        return store.trials("q.confirm")

    first = confirm("--top", "2", "--seeds", "2")
    assert [each.suggestion["trial"] for each in first] == [best, second] * 2
    for run in first:
        assert run.state is TrialState.COMPLETED
        assert run.params == swept[run.suggestion["trial"]].params
    assert len({run.score for run in first} | {each.score for each in swept}) == 8, "every run has a seed of its own"

    capsys.readouterr()
    more = confirm("--top", "2", "--seeds", "3", "--json")
    assert more[:4] == first
    assert [each.suggestion["trial"] for each in more[4:]] == [best, second]
    result = json.loads(capsys.readouterr().out)
    assert result["sweep"] == "q.confirm"
    means = {setting["trial"]: setting["mean"] for setting in result["settings"]}
    for number in (best, second):
        scores = [run.score for run in more if run.suggestion["trial"] == number]
        assert means[number] == pytest.approx(np.mean(np.array(scores, dtype=float)))
    assert confirm("--top", "2", "--seeds", "3") == more, "nothing is missing, so nothing runs"
    assert store.trials("q") == swept
    store.close()
