"""What the model says of a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from metta.sweep.analysis.model import Forecasts, analyse
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState
from tests.support.made_sweep import LEARNING_RATE, made_definition
from tests.support.states import state_of


def test_many_predictions_are_those_of_each_alone() -> None:
    space = {"x": ParameterConfig(min=0.0, max=1.0, distribution="uniform")}
    protein = Protein(ProteinConfig(metric="score", goal="minimize", parameters=space), seed=0)
    for x in (0.1, 0.4, 0.6, 0.9):
        protein.observe({"x": x}, score=(x - 0.5) ** 2, cost=1.0 + x)
    asked = [{"x": 0.2}, {"x": 0.5}]
    together = protein.predict_all(asked)
    for one, params in zip(together, asked, strict=True):
        assert vars(one) == pytest.approx(vars(protein.predict(params)))
    assert all(each.noise_std > 0 for each in together)
    assert protein.predict_all([]) == []


def test_the_noise_of_measurements_shows(snapshot: Callable[[str], SweepState]) -> None:
    """The made sweep's scores have a standard deviation of 0.15."""
    analysis = snapshot("made").analysis
    assert analysis
    assert 0.05 < analysis.expected[analysis.recommended].noise_std < 0.4


def test_a_model_that_foretold_well_is_told_from_one_that_did_not(snapshot: Callable[[str], SweepState]) -> None:
    made = snapshot("made")
    assert made.analysis
    forecasts = made.analysis.forecasts
    known = {t.number for t in made.trials if t.state is TrialState.COMPLETED and "score" in t.suggestion}
    assert set(forecasts.numbers) == known
    assert (forecasts.rank_correlation or 0) > 0.8
    turned = replace(forecasts, predicted=-forecasts.predicted)
    assert turned.rank_correlation == pytest.approx(-(forecasts.rank_correlation or 0))
    assert (turned.misses or 0) > (forecasts.misses or 0)
    expensive = replace(forecasts, costs_predicted=forecasts.costs_measured * 1.5)
    assert expensive.cost_error == pytest.approx(0.5)
    few = replace(forecasts, numbers=[1], predicted=forecasts.predicted[:1], measured=forecasts.measured[:1])
    assert few.rank_correlation is None
    assert few.misses is None


def test_a_model_that_was_too_sure_gets_wider_ranges(snapshot: Callable[[str], SweepState]) -> None:
    analysis = snapshot("made").analysis
    assert analysis
    prediction = analysis.expected[analysis.recommended]
    forecasts = replace(
        analysis.forecasts, deviations=np.abs(analysis.forecasts.measured - analysis.forecasts.predicted)
    )
    right = replace(analysis, forecasts=forecasts)
    low, high = right.interval(prediction)
    assert high - low == pytest.approx(2 * 1.96 * prediction.score_std)
    too_sure = replace(analysis, forecasts=replace(forecasts, deviations=forecasts.deviations / 3))
    assert too_sure.forecasts.misses == pytest.approx(3.0)
    wide_low, wide_high = too_sure.interval(prediction)
    assert wide_high - wide_low == pytest.approx(3 * (high - low))
    modest = replace(analysis, forecasts=replace(forecasts, deviations=forecasts.deviations * 3))
    assert modest.interval(prediction) == pytest.approx((low, high)), "never narrower than the model says"


def test_equal_scores_share_a_rank() -> None:
    predicted, measured = np.array([1.0, 2.0, 2.0, 4.0, 5.0]), np.array([2.0, 1.0, 3.0, 3.0, 5.0])
    forecasts = Forecasts(list(range(5)), predicted, np.ones(5), np.zeros(5), measured, np.ones(5), np.ones(5))
    assert forecasts.rank_correlation == pytest.approx(
        7.25 / 9.5
    )  # of the ranks 0, 1.5, 1.5, 3, 4 and 1, 0, 2.5, 2.5, 4


def test_noise_limits_the_order_that_a_perfect_model_can_give() -> None:
    rng = np.random.default_rng(0)
    true = rng.standard_normal(400)
    measured = true + 2.0 * rng.standard_normal(400)
    columns = (np.ones(400), np.full(400, 2.0), measured, np.ones(400), np.ones(400))
    perfect = Forecasts(list(range(400)), true, *columns)
    assert perfect.attainable_correlation == pytest.approx(1 / math.sqrt(5), abs=0.08)
    assert perfect.rank_correlation == pytest.approx(perfect.attainable_correlation, abs=0.08)
    without_signal = replace(perfect, noises=np.full(400, 9.0))
    assert without_signal.attainable_correlation == 0.0


def test_the_probabilities_of_being_the_best_add_up(snapshot: Callable[[str], SweepState]) -> None:
    analysis = snapshot("made").analysis
    assert analysis
    assert sum(each.probability for each in analysis.beliefs.values()) == pytest.approx(1.0)
    for number, belief in analysis.beliefs.items():
        assert belief.score == analysis.expected[number].score
        low, high = analysis.interval(analysis.expected[number])
        assert belief.low <= low <= high <= belief.high, "one run varies more than the mean of many"
    likely = max(analysis.beliefs.values(), key=lambda each: each.probability)
    assert likely.number in {analysis.recommended, *analysis.twins}


def test_what_moves_the_score_is_found(snapshot: Callable[[str], SweepState]) -> None:
    analysis = snapshot("made").analysis
    assert analysis
    shares = {path: share.score for path, share in analysis.importance.items()}
    assert max(shares, key=lambda path: shares[path]) == LEARNING_RATE
    completed = [trial for trial in snapshot("made").trials if trial.state is TrialState.COMPLETED]
    without_failures = analyse(state_of(made_definition(100), completed))
    assert without_failures
    costs = {path: share.cost for path, share in without_failures.importance.items()}
    assert costs["trainer.batch_size"] > 3 * max(costs["trainer.ppo.clip_coef"], costs["trainer.ppo.ent_coef"])
    cut = analysis.slices[LEARNING_RATE]
    assert cut.values == sorted(cut.values)
    best = max(zip(cut.predictions, cut.values, strict=True), key=lambda pair: pair[0].score)[1]
    assert 5e-4 < best < 5e-3


def _trial(number: int, score: float, cost: float, **changes: float) -> Trial:
    params = {
        LEARNING_RATE: 1e-3,
        "trainer.ppo.clip_coef": 0.2,
        "trainer.ppo.ent_coef": 1e-3,
        "trainer.ppo.gae_lambda": 0.9,
        "trainer.batch_size": 8192,
        "trainer.optimizer.type": "adam",
    }
    return Trial(number, TrialState.COMPLETED, {**params, **changes}, score=score, cost=cost)


def test_repeats_and_neighbours_and_edges_are_found() -> None:
    trials = [
        _trial(0, 1.0, 10.0),
        _trial(1, 3.0, 10.0, **{LEARNING_RATE: 1e-2}),
        _trial(2, 3.1, 10.0, **{LEARNING_RATE: 1e-2}),
        _trial(3, 2.8, 10.0, **{LEARNING_RATE: 9e-3}),
        _trial(4, 0.0, 10.0, **{LEARNING_RATE: 1e-5}),
    ]
    analysis = analyse(state_of(made_definition(9), trials))
    assert analysis
    assert analysis.twins == [1, 2]
    assert analysis.neighbours == [3, 0, 4]
    assert analysis.at_the_edge == {LEARNING_RATE: "max"}


def test_before_any_score_there_is_nothing_to_say() -> None:
    failed = Trial(0, TrialState.FAILED, _trial(0, 0.0, 1.0).params, cost=1.0)
    assert analyse(state_of(made_definition(9), [])) is None
    assert analyse(state_of(made_definition(9), [failed])) is None
