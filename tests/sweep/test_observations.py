"""What Protein is told of a sweep's trials."""

from __future__ import annotations

import math

import pytest

from metta.sweep.observations import Learner, ObservationReader
from metta.sweep.trial import Trial, TrialState
from tests.support.parabola import parabola_definition


@pytest.mark.parametrize(
    ("seeds", "metrics", "noise"),
    [
        (4, {"score.std": 0.6, "score.stderr": 0.1}, 0.3),
        (1, {"score.std": 0.6, "score.stderr": 0.1}, 0.1),
        (1, {"score.std": 0.6}, None),
        (4, {"score.std": math.nan}, None),
    ],
)
def test_the_standard_error_of_a_score_is_told(seeds: int, metrics: dict[str, float], noise: float | None) -> None:
    learner = Learner(parabola_definition(5, seeds_per_trial=seeds))
    learner.tell(Trial(0, TrialState.COMPLETED, {"x": 0.5}, score=1.0, cost=1.0, metrics={"score": 1.0, **metrics}))
    assert learner.protein.observations[0].noise == pytest.approx(noise)


@pytest.mark.parametrize(
    ("share", "read"), [(0.5, 0.5), (math.nan, None), (math.inf, None), (-1.0, None), (2.0, None), (1e-320, 1e-320)]
)
def test_a_share_that_was_edited_by_hand_is_not_learnt_from(share: float, read: float | None) -> None:
    definition = parabola_definition(5, early_stopping="protein")
    reader = ObservationReader(definition)
    learner = Learner(definition, reader)
    trial = Trial(0, TrialState.PRUNED, {"x": 0.5}, cost=1.0, share=share)
    learner.tell(trial, [(1.0, 0.5, 0.1), (2.0, 1.0, 0.2)])
    assert reader.read(trial).trial.share == read
    assert learner.problems == {}
    assert learner.protein.suggest() is not None


@pytest.mark.parametrize("state", [TrialState.COMPLETED, TrialState.FAILED])
def test_a_trial_that_was_not_stopped_did_the_whole_run(state: TrialState) -> None:
    reader = ObservationReader(parabola_definition(5, early_stopping="protein"))
    shares = (0.5, 1.0, None)
    trials = [Trial(number, state, {"x": 0.5}, share=share) for number, share in enumerate(shares)]
    assert [reader.read(trial).trial.share for trial in trials] == [None, 1.0, None]
