"""What trials cost in all, where some costs are unknown."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from metta.sweep.protein.budget import Budget, spent

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
