"""Where the length of a run is searched: it is recognised, curves show shorter runs, the best are tried longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.sweep.protein import Protein
from metta.sweep.protein.curves import Curve
from metta.sweep.protein.evidence import Evidence, Run
from metta.sweep.protein.run_length import RunLength, run_length
from metta.sweep.protein.space import Space
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

PARAMETERS = {
    "optimizer": ParameterConfig(choices=["adam", "sgd"], distribution="categorical"),
    "learning_rate": ParameterConfig(min=1e-5, max=1e-1, distribution="log_normal"),
    "steps": ParameterConfig(min=100, max=10_000, distribution="int_log_normal"),
}
SPACE = Space(PARAMETERS)


def placed(steps: int, learning_rate: float = 1e-3) -> Any:
    return SPACE.encode({"optimizer": "adam", "learning_rate": learning_rate, "steps": steps})


def reported(total: float) -> Curve:
    return Curve.of([(total / 2, 1.0, 0.5)], total)


def test_the_hyperparameter_in_proportion_to_the_steps_is_the_length() -> None:
    lengths = (100, 4_000, 700)
    exact = run_length(SPACE, [(placed(n), reported(32 * n)) for n in lengths])
    assert exact is not None
    assert exact.parameter.path == "steps"
    whole_batches = run_length(SPACE, [(placed(n), reported(64 * math.ceil(n / 64))) for n in (400, 4_000, 700)])
    assert whole_batches == exact


def test_of_two_that_might_be_the_length_it_is_the_one_in_closer_proportion() -> None:
    batch = ParameterConfig(min=16, max=512, distribution="int_log_normal")
    space = Space({"batch": batch, **PARAMETERS})
    params = {"optimizer": "adam", "learning_rate": 1e-3}
    runs = [(space.encode(params | {"steps": n, "batch": b}), reported(n)) for n, b in ((1_000, 100), (2_000, 220))]
    found = run_length(space, runs)
    assert found is not None
    assert found.parameter.path == "steps"


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [(placed(500), Curve.of([], 500))],
        [(placed(500), reported(500)), (placed(600), reported(600))],
        [(placed(n), reported(1_000)) for n in (100, 4_000, 700)],
        [(placed(n), reported(n**2)) for n in (100, 4_000, 700)],
        [(placed(100), reported(100)), (placed(20_000), reported(20_000))],
    ],
    ids=["no runs", "no reports", "about as long", "fixed steps", "not in proportion", "outside the range"],
)
def test_no_hyperparameter_is_the_length_where_runs_do_not_show_it(runs: Any) -> None:
    assert run_length(SPACE, runs) is None


@given(st.integers(100, 10_000), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_other_lengths_change_nothing_else_and_stay_in_the_range(steps: int, share: float, uniform: float) -> None:
    length, point = found_length(), placed(steps)
    shorter = length.shortened(point, share)
    if shorter is None:
        assert share * steps < 100
    else:
        assert SPACE.decode(shorter)["steps"] == pytest.approx(share * steps, abs=1)
        assert np.delete(shorter, length.column).tolist() == np.delete(point, length.column).tolist()
    (longer,) = SPACE.snap(length.lengthened(point[None], np.array([uniform])))
    assert steps <= SPACE.decode(longer)["steps"] <= 10_000
    assert np.delete(longer, length.column) == pytest.approx(np.delete(point, length.column))


def test_the_longest_runs_with_the_same_other_hyperparameters() -> None:
    length = found_length()
    points = np.array([placed(200), placed(900), placed(400), placed(5_000, learning_rate=1e-2)])
    assert length.longest_of(placed(100), points) == pytest.approx(900, rel=1e-6)
    assert length.longest_of(placed(100, learning_rate=1e-4), points) == 0.0


def found_length() -> RunLength:
    length = run_length(SPACE, [(placed(n), reported(n)) for n in (100, 400)])
    assert length is not None
    return length


def whole(number: int, steps: int, height: float) -> Run:
    """A run whose values rise from 0 to this height, in proportion to its steps."""
    values = [(steps * i / 10, float(i), height * i / 10) for i in range(1, 11)]
    end = height
    curve = Curve.of(values, steps)
    return Run(number, number, placed(steps), curve, end, end, None, 10.0, False, True)


def test_values_on_the_way_are_scores_of_shorter_runs() -> None:
    runs = [whole(0, 10_000, 1.0), whole(1, 5_000, 0.5), whole(2, 2_000, 0.2), whole(3, 150, 0.1)]
    shorter = Evidence(runs, [0.1], SPACE.group).shorter(found_length())
    assert shorter is not None
    assert shorter.numbers.tolist() == [0, 0, 1, 1, 2, 2]  # the last one can be no shorter
    assert [SPACE.decode(point)["steps"] for point in shorter.data.points] == [5_000, 2_000, 2_500, 1_000, 1_000, 400]
    assert shorter.data.costs.tolist() == [5.0, 2.0] * 3
    assert (np.diff(shorter.data.scores[:4:2]) < 0).all()
    assert (np.diff(shorter.data.scores[::2]) < 0).all()


def test_nothing_is_said_of_shorter_runs_before_enough_whole_ones() -> None:
    assert Evidence([whole(0, 10_000, 1.0), whole(1, 5_000, 0.5)], [0.1], SPACE.group).shorter(found_length()) is None


def test_the_best_hyperparameters_are_tried_with_longer_runs() -> None:
    """Where the score is a product of how good the learning rate is and how long a run is."""
    lengthened = 0
    for seed in range(3):
        protein = Protein(
            ProteinConfig(metric="score", parameters=PARAMETERS),
            seed=seed,
            num_trials=16,
            max_cost=30_000,
            early_stopping="protein",
            repeats=True,
        )
        tried: list[dict[str, Any]] = []
        for _ in range(16):
            params, info = protein.suggest()
            height = math.exp(-((math.log10(params["learning_rate"]) + 3) ** 2)) * math.log10(params["steps"])
            curve = [(params["steps"] * i / 5, params["steps"] * i / 5, height * (0.6 + 0.08 * i)) for i in range(1, 6)]
            protein.observe(params, height, params["steps"], number=info["number"], info=info, curve=curve)
            for before in tried:
                same = all(params[name] == before[name] for name in ("optimizer", "learning_rate"))
                lengthened += same and params["steps"] > before["steps"]
            tried.append(params)
    assert lengthened >= 3


def height(learning_rate: float, steps: float) -> float:
    return math.exp(-((math.log10(learning_rate) + 3) ** 2)) * math.log10(steps)


def with_trials(*tried: tuple[float, int], early_stopping: Any = "protein") -> Protein:
    """An optimiser that has seen whole runs with these learning rates and steps, whose cost is the steps."""
    config = ProteinConfig(metric="score", parameters=PARAMETERS)
    protein = Protein(config, early_stopping=early_stopping)
    for learning_rate, steps in tried:
        params = {"optimizer": "adam", "learning_rate": learning_rate, "steps": steps}
        ends = [steps * i // 10 for i in range(1, 11)]
        curve = [(end, end, height(learning_rate, max(end, 2))) for end in ends]
        protein.observe(params, height(learning_rate, steps), steps, curve=curve, total_steps=steps)
    return protein


TRIED = ((1e-3, 9_000), (1e-5, 2_000), (1e-1, 5_000), (3e-5, 400), (2e-2, 800), (4e-2, 2_900), (3e-4, 7_000))


def test_within_a_cost_the_best_hyperparameters_are_known_with_a_length_that_was_not_tried() -> None:
    found = with_trials(*TRIED).other_length(3_000)
    assert found is not None
    assert (found.number, found.changed) == (0, "steps")
    assert found.params == {"optimizer": "adam", "learning_rate": pytest.approx(1e-3), "steps": found.value}
    assert 1_500 <= found.value <= 3_500
    assert found.cost <= 3_000
    assert found.low < height(1e-3, found.value) < found.high
    assert found.score > max(height(*each) for each in TRIED if each[1] <= 3_000)


def test_no_other_length_is_recommended_where_what_was_tried_is_as_good() -> None:
    assert with_trials(*TRIED).other_length(9_500) is None


@pytest.mark.parametrize("tried", [(), TRIED[:1], tuple((rate, 1_000) for rate, _ in TRIED)])
def test_no_other_length_is_known_before_runs_show_which_hyperparameter_it_is(tried: Any) -> None:
    assert with_trials(*tried).other_length(3_000) is None


def test_without_curves_no_length_is_known() -> None:
    assert with_trials(*TRIED, early_stopping="off").other_length(3_000) is None


Tried = tuple[dict[str, Any], dict[str, Any]]


def sweep_from(own: dict[str, Any], **options: Any) -> list[Tried]:
    """Hyperparameters and information of each trial of a sweep that begins with these values; its cost is the steps."""
    config = ProteinConfig(metric="score", parameters=PARAMETERS)
    protein = Protein(config, seed=1, own_values=own, early_stopping="protein", repeats=True, **options)
    return [run_whole(protein, *protein.suggest()) for _ in range(12)]


def run_whole(protein: Protein, params: dict[str, Any], info: dict[str, Any]) -> Tried:
    steps, score = params["steps"], height(params["learning_rate"], params["steps"])
    curve = [(steps * i / 5, steps * i / 5, score * (0.6 + 0.08 * i)) for i in range(1, 6)]
    protein.observe(params, score, steps, number=info["number"], info=info, curve=curve, total_steps=steps)
    return params, info


GOOD: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-3, "steps": 500}


def longer_own(tried: list[Tried]) -> list[dict[str, Any]]:
    return [params for params, info in tried if info["source"] == "own values, longer run"]


def test_good_values_of_the_tool_are_tried_once_with_the_longest_run() -> None:
    (longer,) = longer_own(sweep_from(GOOD))
    assert longer == GOOD | {"learning_rate": pytest.approx(1e-3), "steps": 10_000}


def test_the_longest_run_of_own_values_is_one_that_the_budget_can_pay_for() -> None:
    (longer,) = longer_own(sweep_from(GOOD, num_trials=12, max_cost=12 * 1_200.0))
    assert 1_200 <= longer["steps"] <= 3_000  # a trial may take twice what each one that is left has, or a tenth


@pytest.mark.parametrize(
    "own",
    [{}, {"learning_rate": 1e-3, "steps": 500}, GOOD | {"learning_rate": 1e-1}, GOOD | {"steps": 9_000}],
    ids=["unknown", "one unknown", "cheaper ones are better", "as long as can be"],
)
def test_own_values_are_not_tried_longer_without_reason(own: dict[str, Any]) -> None:
    assert longer_own(sweep_from(own)) == []


def test_own_values_are_not_tried_longer_against_a_constraint() -> None:
    constraints = ["steps <= 700 or learning_rate > 0.01"]
    config = ProteinConfig(metric="score", parameters=PARAMETERS, constraints=constraints)
    protein = Protein(config, seed=1, own_values=GOOD, early_stopping="protein")
    assert longer_own([run_whole(protein, *protein.suggest()) for _ in range(10)]) == []


def test_a_longer_run_of_own_values_is_not_stopped() -> None:
    """At equal steps it may look worse than shorter runs whose learning rate has fallen already."""
    protein = Protein(
        ProteinConfig(metric="score", parameters=PARAMETERS), seed=1, own_values=GOOD, early_stopping="asha"
    )
    params, info = protein.suggest()
    while info["source"] != "own values, longer run":
        run_whole(protein, params, info)
        params, info = protein.suggest()
    steps = params["steps"]
    answers = [
        protein.decide(info["number"], [(steps * j / 20, j, -9.0) for j in range(1, i + 1)], steps)
        for i in range(1, 20)
    ]
    assert all(answer.go_on for answer in answers)
    assert any("so it is not stopped" in answer.reason for answer in answers)
