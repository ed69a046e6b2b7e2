"""What learning curves say of the end of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metta.sweep.protein.curves import Curve, NormalScores, Standardised, extrapolation


def line(points: int, total: float = 10.0) -> Curve:
    return Curve.of([(float(i + 1), 2.0 * (i + 1), float(i)) for i in range(points)], total)


def test_a_curve_knows_its_share_and_values_between_points() -> None:
    curve = line(4)
    assert curve.share == pytest.approx(0.4)
    assert curve.reaches(0.4)
    assert not curve.reaches(0.41)
    assert curve.at(0.25) == pytest.approx(1.5)
    assert curve.at(0.41) is None


def test_values_before_the_first_point_are_those_of_the_first_point() -> None:
    assert line(4).at(0.01) == 0.0


def test_a_minimised_metric_is_turned_round_and_points_without_a_value_are_left_out() -> None:
    curve = Curve.of([(1, 1, 5.0), (2, 2, math.nan), (3, 3, 4.0)], None, sign=-1.0)
    assert curve.values.tolist() == [-5.0, -4.0]
    assert curve.total == 3.0


@pytest.mark.parametrize("points", [[(1, 0, 0.0), (1, 1, 0.0)], [(2, 0, 0.0), (1, 1, 0.0)], [(math.inf, 0, 0.0)]])
def test_steps_must_increase(points: list[tuple[float, float, float]]) -> None:
    with pytest.raises(ValueError, match="steps"):
        Curve.of(points, 10.0)


def test_a_whole_run_must_have_steps() -> None:
    with pytest.raises(ValueError, match="whole run"):
        Curve.of([(1, 1, 0.0)], 0.0)


def test_the_end_is_the_mean_of_the_last_values() -> None:
    assert line(10).end(9.0) == pytest.approx(8.0)


def test_the_end_is_the_score_alone_where_the_curve_is_of_another_metric() -> None:
    assert line(10).end(42.0) == 42.0


def test_normal_scores_keep_order_and_nothing_else() -> None:
    values = np.array([-1e9, 1.0, 2.0, 3.0, 1e9])
    scores = NormalScores(values)(values)
    assert (np.diff(scores) > 0).all()
    assert scores[0] == pytest.approx(-scores[-1])
    assert NormalScores(values).inverse(scores) == pytest.approx(values)


def test_equal_values_have_equal_normal_scores() -> None:
    scores = NormalScores(np.array([0.0, 0.0, 0.0, 1.0]))(np.array([0.0, 1.0]))
    assert scores[0] < 0 < scores[1]


def test_standardised_scores_lead_back_to_scores() -> None:
    values = np.array([1.0, 5.0, 7.0, 30.0])
    normal = NormalScores(values)
    scale = Standardised(normal, normal(values))
    assert scale.inverse(scale(normal(values))) == pytest.approx(values)


def test_a_line_is_learnt_where_early_values_tell_the_end() -> None:
    rng = np.random.default_rng(0)
    early = rng.standard_normal(100)
    related = extrapolation(0.1, early, early, early)
    unrelated = extrapolation(0.1, early, rng.standard_normal(100), early)
    assert related.r2 > 0.9
    assert unrelated.r2 < 0.1
    assert related(1.0) == pytest.approx(1.0, abs=0.1)


def test_runs_chosen_by_their_early_values_do_not_bias_r2() -> None:
    rng = np.random.default_rng(0)
    early = rng.standard_normal(4000)
    end = 0.7 * early + math.sqrt(0.51) * rng.standard_normal(4000)
    chosen = early > 0.5
    assert np.corrcoef(early[chosen], end[chosen])[0, 1] ** 2 < 0.3
    assert extrapolation(0.1, early[chosen], end[chosen], early).r2 == pytest.approx(0.49, abs=0.05)


def test_few_runs_are_believed_less() -> None:
    early = np.array([-1.0, 1.0])
    assert extrapolation(0.1, early, early, early).r2 < 0.6
