"""What whole runs, repeats and stopped runs say together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metta.sweep.protein.curves import Curve, Rung
from metta.sweep.protein.evidence import Evidence, Known, Run

SHARES = [0.1, 0.3]


def evidence_of(runs: list[Run], own: int | None = None) -> Evidence:
    return Evidence(runs, SHARES, np.arange(2), own)


def run(number: int, values: list[float], total: int = 10, configuration: int | None = None) -> Run:
    """A trial that reported these values, whole if they are as many as the steps."""
    curve = Curve.of([(i + 1, i + 1, value) for i, value in enumerate(values)], total)
    end = values[-1] if len(values) == total else None
    root = number if configuration is None else configuration
    return Run(number, root, np.full(2, 0.01 * number), curve, end, end, None, float(len(values)), False, True)


def whole(number: int, end: float, **options: int) -> Run:
    return run(number, [end * (i + 1) / 10 for i in range(10)], **options)


def known(evidence: Evidence) -> Known:
    found = evidence.known
    assert found is not None
    return found


def test_nothing_is_known_before_a_whole_run() -> None:
    assert evidence_of([run(0, [1.0, 2.0])]).known is None


def test_a_stopped_run_counts_with_what_its_curve_says_and_how_unsure_that_is() -> None:
    runs = [whole(i, float(i)) for i in range(8)] + [run(8, [0.65]), run(9, [0.05])]
    found = known(evidence_of(runs))
    assert found.numbers.tolist() == list(range(10))
    assert found.wholes.tolist() == [1] * 8 + [0, 0]
    assert found.data.scores[8] > found.data.scores[9]
    assert found.data.errors[8] > 0


def test_a_run_that_was_stopped_later_is_surer() -> None:
    rng = np.random.default_rng(0)
    ends = rng.standard_normal(20)
    runs = []
    for number, end in enumerate(ends):
        values = [end + (1.0 - i / 9) * 2.0 * rng.standard_normal() for i in range(10)]
        runs.append(run(number, values))
    evidence = evidence_of([*runs, run(20, [0.0]), run(21, [0.0] * 3)])
    assert evidence.r2(Rung(0.3)) > evidence.r2(Rung(0.1))  # type: ignore[operator]
    assert known(evidence).data.errors[21] < known(evidence).data.errors[20]


def test_the_cost_of_a_stopped_run_is_that_of_a_whole_one() -> None:
    found = known(evidence_of([whole(0, 1.0), whole(1, 2.0), run(2, [0.1, 0.2])]))
    assert found.data.costs.tolist() == pytest.approx([10.0, 10.0, 10.0])


def test_repeats_are_one_configuration_and_show_the_noise() -> None:
    runs = [whole(i, float(i)) for i in range(6)]
    quiet = known(evidence_of([*runs, whole(6, 5.0, configuration=5), whole(7, 5.01, configuration=5)]))
    loud = known(evidence_of([*runs, whole(6, 0.0, configuration=5), whole(7, 2.0, configuration=5)]))
    assert quiet.wholes.tolist() == [1, 1, 1, 1, 1, 3]
    assert quiet.noise.variance < loud.noise.variance
    assert quiet.data.errors[5] == pytest.approx(quiet.data.errors[0] / math.sqrt(3))


def test_repeats_among_many_good_runs_show_little_noise() -> None:
    """Differences of half a heart, as in a sweep of the arena; among so many good runs they are large ones in ranks."""
    runs = [whole(i, end) for i, end in enumerate([0.8, 2.1, 3.1, 6.0, 18.5, 19.4, 22.7, 25.7, 25.8, 30.6, 30.8])]
    again = [whole(11, 26.4, configuration=7), whole(12, 31.1, configuration=9)]
    noise = known(evidence_of([*runs, *again])).noise
    assert noise.variance < 0.05
    assert noise.weights[1] > 0.8


def test_equal_repeats_show_that_there_is_no_noise() -> None:
    runs = [whole(i, float(i)) for i in range(6)]
    assert evidence_of([*runs, whole(6, 5.0, configuration=5)]).noiseless
    assert not evidence_of([*runs, whole(6, 5.1, configuration=5)]).noiseless
    assert not evidence_of(runs).noiseless


def test_a_plateau_does_not_show_that_there_is_no_noise() -> None:
    runs = [whole(0, 0.0), whole(1, 0.0), whole(2, 1.0)]
    assert not evidence_of([*runs, whole(3, 0.0, configuration=1)]).noiseless


def test_without_noise_scores_count_as_measured() -> None:
    """The mean of the last values would prefer another run."""
    late = replace(whole(0, 5.0), end=1.0)
    early = replace(whole(1, 4.0), end=3.0)
    noisy = known(evidence_of([late, early])).data.scores
    assert noisy[0] < noisy[1]
    exact = known(evidence_of([late, early, whole(2, 4.0, configuration=1)])).data.scores
    assert exact[0] > exact[1]


def test_a_measured_error_makes_a_score_less_sure() -> None:
    runs = [whole(i, float(i)) for i in range(9)]
    runs[4] = replace(runs[4], noise=3.0)
    errors = known(evidence_of(runs)).data.errors
    assert errors[4] > 1.5 * errors[3]


def test_a_failure_has_no_score() -> None:
    failed = replace(run(2, [0.1]), failed=True)
    found = known(evidence_of([whole(0, 1.0), whole(1, 2.0), failed]))
    assert math.isnan(found.data.scores[2])
    assert found.data.failed.tolist() == [False, False, True]


def test_repeats_are_not_compared_at_rungs() -> None:
    evidence = evidence_of([whole(0, 1.0), whole(1, 2.0), whole(2, 2.0, configuration=1)])
    assert len(evidence.readings(Rung(0.1)).firsts) == 2
    assert evidence.averages(Rung(0.3)) == pytest.approx([0.2, 0.4])
    assert evidence.whole_runs == 3.0
    assert evidence.repeat_runs == 1.0


def test_intervals_narrow_as_repeats_show_the_noise() -> None:
    runs = [whole(i, float(i)) for i in range(6)]
    few = known(evidence_of(runs))
    many = known(evidence_of([*runs, *(whole(6 + i, 4.0 + i, configuration=5) for i in range(5))]))
    assert few.noise.half_width > many.noise.half_width > 1.96


def test_the_tools_own_values_are_believed_to_be_good_until_runs_show_otherwise() -> None:
    runs = [whole(i, float(i)) for i in range(8)]
    plain, trusted = known(evidence_of(runs)).data, known(evidence_of(runs, own=1)).data
    assert plain.scores[1] < trusted.scores[1] < plain.scores[7]
    assert trusted.errors[1] < plain.errors[1]
    assert np.delete(trusted.scores, 1).tolist() == np.delete(plain.scores, 1).tolist()
    again = [*runs, *(whole(8 + i, 1.0 + 0.1 * i, configuration=1) for i in range(6))]
    assert known(evidence_of(again, own=1)).data.scores[1] < trusted.scores[1]


def test_own_values_that_measure_better_than_believed_are_not_raised() -> None:
    runs = [whole(i, float(i)) for i in range(30)]
    assert known(evidence_of(runs, own=29)).data.scores[29] < known(evidence_of(runs)).data.scores[29]


def test_own_values_are_not_trusted_with_another_length_of_runs() -> None:
    runs = runs_of_three_lengths()
    assert known(evidence_of(runs, own=0)).data.scores.tolist() == known(evidence_of(runs)).data.scores.tolist()


def test_own_values_are_not_trusted_where_runs_do_not_show_their_length() -> None:
    runs = [replace(whole(i, float(i)), curve=Curve.of([], None)) for i in range(8)]
    assert known(evidence_of(runs, own=1)).data.scores.tolist() == known(evidence_of(runs)).data.scores.tolist()


def test_exact_scores_of_own_values_count_as_measured() -> None:
    runs = [*(whole(i, float(i)) for i in range(6)), whole(6, 5.0, configuration=5)]
    assert known(evidence_of(runs, own=1)).data.scores.tolist() == known(evidence_of(runs)).data.scores.tolist()


def slow_and_long(number: int, slope: float, total: int, steps: int | None = None) -> Run:
    """A run whose score grows with its steps, whatever its length."""
    curve = Curve.of([(i + 1, i + 1, slope * (i + 1)) for i in range(steps or total)], total)
    end = slope * total if steps is None else None
    return Run(number, number, np.full(2, 0.01 * number), curve, end, end, None, float(steps or total), False, True)


def runs_of_three_lengths() -> list[Run]:
    rng = np.random.default_rng(0)
    slopes = 1.0 + rng.random(18)
    return [slow_and_long(i, float(slope), (10, 40, 160)[i % 3]) for i, slope in enumerate(slopes)]


def test_runs_of_different_lengths_are_compared_after_equal_steps() -> None:
    runs = runs_of_three_lengths()
    evidence = evidence_of([*runs, slow_and_long(18, 5.0, 10, steps=3)])
    assert not evidence.one_length
    readings = evidence.readings(Rung.at_steps(3))
    assert len(readings.firsts) == 19
    assert readings.by_number[18] == max(readings.firsts)  # the steepest, though the longest end far higher


def test_runs_of_one_length_are_compared_at_equal_shares() -> None:
    assert evidence_of([whole(0, 1.0), whole(1, 2.0)]).rung(0.3, 10) == Rung(share=0.3)


def test_what_a_stopped_run_promises_depends_on_its_length() -> None:
    stopped = [slow_and_long(18, 1.5, 10, steps=3), slow_and_long(19, 1.5, 160, steps=48)]
    found = known(evidence_of([*runs_of_three_lengths(), *stopped]))
    scores = dict(zip(found.numbers.tolist(), found.data.scores.tolist(), strict=True))
    short = [scores[i] for i in range(0, 18, 3)]
    long = [scores[i] for i in range(2, 18, 3)]
    assert min(short) - 0.5 < scores[18] < max(short) + 0.5
    assert min(long) - 0.5 < scores[19] < max(long) + 0.5
