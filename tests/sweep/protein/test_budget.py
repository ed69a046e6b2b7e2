"""What trials cost in all, where some costs are unknown."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from metta.sweep.protein.budget import Budget, planned_trials, spent
from metta.sweep.protein_config import ProteinSettings

NAN = math.nan


@pytest.mark.parametrize(
    ("costs", "failed", "total"),
    [
        ([], [], 0.0),
        ([1.0, 2.0, 4.0], [False, True, False], 7.0),
        ([1.0, 2.0, 9.0, NAN], [False, False, False, False], 14.0),
        ([1.0, 2.0, NAN, NAN], [False, True, False, False], 6.0),
        ([1.0, 2.0, 9.0, NAN], [False, False, False, True], 12.0),
        ([NAN, NAN], [False, False], 0.0),
        ([1e308, 1e308, NAN], [False, False, False], sys.float_info.max),
    ],
)
def test_an_unknown_cost_counts_as_the_median_unless_the_trial_failed(
    costs: list[float], failed: list[bool], total: float
) -> None:
    assert spent(np.array(costs, dtype=float), np.array(failed, dtype=bool)) == total


def test_what_is_left_is_for_all_trials_that_have_not_finished() -> None:
    assert Budget(100.0, 20, 40.0, 10, 8).each_left == 5.0
    assert Budget(100.0, 20, 120.0, 10, 8).each_left == 0.0
    assert Budget(100.0, None, 40.0, 10, 8).each_left == Budget(None, 20, 40.0, 10, 8).each_left == 0.0


def test_trials_are_scarce_where_they_end_before_the_budget() -> None:
    assert not Budget(None, None, 5.0, 5, 5).trials_are_scarce
    assert Budget(None, 20, 5.0, 5, 5).trials_are_scarce
    assert not Budget(100.0, None, 5.0, 5, 5).trials_are_scarce
    assert Budget(100.0, 20, 5.0, 5, 5).trials_are_scarce, "1 for each so far, and 6.3 for each that is left"
    assert not Budget(100.0, 20, 50.0, 5, 5).trials_are_scarce, "10 for each so far, and 3.3 for each that is left"


def test_the_last_trials_may_use_what_both_limits_leave_them() -> None:
    def limit(num_trials: int | None, spent: float, finished: int) -> float:
        budget = Budget(100.0, num_trials, spent, finished, finished)
        return math.exp(budget.log_cost_limit(np.array([1.0]), ProteinSettings()))

    assert limit(20, 20.0, 10) == pytest.approx(20.0), "a quarter of what is left"
    assert limit(20, 76.0, 18) == pytest.approx(24.0), "twice 12 for each, which is all that is left"
    assert limit(None, 76.0, 18) == pytest.approx(10.0), "a tenth of the budget"


def test_a_budget_is_divided_among_as_many_trials_as_it_is_expected_to_pay_for() -> None:
    assert planned_trials(0, 1.0) == planned_trials(20, 0.5) == 30
    assert planned_trials(29, 0.1) == 33, "the end is spent on a few"
    assert planned_trials(45, 0.5) == 53, "it was doubled after 45 trials: eight more, not four"
