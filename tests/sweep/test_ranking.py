"""Best trial and Pareto front."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from metta.sweep.ranking import pareto_front, ranked
from metta.sweep.trial import Trial, TrialState

scores = st.one_of(st.none(), st.floats(allow_nan=True, width=16), st.integers(-3, 3).map(float))
costs = st.one_of(st.integers(0, 4).map(float), st.floats(0, 1e6))


@st.composite
def trials_lists(draw: st.DrawFn) -> list[Trial]:
    states = st.sampled_from([TrialState.COMPLETED, TrialState.COMPLETED, TrialState.FAILED, TrialState.RUNNING])
    rows = draw(st.lists(st.tuples(states, scores, costs), max_size=12))
    return [Trial(number, state, {}, score=score, cost=cost) for number, (state, score, cost) in enumerate(rows)]


def counts(trial: Trial) -> bool:
    return trial.state is TrialState.COMPLETED and trial.score is not None and math.isfinite(trial.score)


@given(trials_lists())
def test_the_front_holds_just_what_no_other_trial_beats_at_no_more_cost(trials: list[Trial]) -> None:
    front = {trial.number for trial in pareto_front(ranked(trials, "maximize"))}
    valid = [trial for trial in trials if counts(trial)]
    for trial in valid:
        beaten = any(
            (other.score > trial.score and other.cost <= trial.cost)  # type: ignore[operator]
            or (other.score == trial.score and other.cost < trial.cost)  # type: ignore[operator]
            for other in valid
        )
        twin = any(other.number in front and (other.score, other.cost) == (trial.score, trial.cost) for other in valid)
        assert not beaten if trial.number in front else beaten or twin
    assert front <= {trial.number for trial in valid}


@given(trials_lists())
def test_the_best_trial_is_on_the_front_and_has_the_best_score(trials: list[Trial]) -> None:
    order = ranked(trials, "maximize")
    assert {trial.number for trial in order} == {trial.number for trial in trials if counts(trial)}
    if order:
        assert order[0].score == max(trial.score or 0.0 for trial in order)
        assert pareto_front(order)[0] is order[0]


@given(trials_lists())
def test_minimising_mirrors_maximising(trials: list[Trial]) -> None:
    mirrored = [
        Trial(trial.number, trial.state, {}, score=None if trial.score is None else -trial.score, cost=trial.cost)
        for trial in trials
    ]
    assert [t.number for t in ranked(trials, "maximize")] == [t.number for t in ranked(mirrored, "minimize")]
    fronts = pareto_front(ranked(trials, "maximize")), pareto_front(ranked(mirrored, "minimize"))
    assert [t.number for t in fronts[0]] == [t.number for t in fronts[1]]
