"""What Protein is told of a sweep's trials."""

from __future__ import annotations

import math

import pytest

from metta.sweep.observations import Learner
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
