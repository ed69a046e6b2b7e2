"""The rules that stop a run early."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from metta.sweep.protein import Protein
from metta.sweep.protein.curves import Rung
from metta.sweep.protein.evidence import Readings
from metta.sweep.protein.stopping import Asked, bracket, decide, passed, rungs
from metta.sweep.protein.types import Decision, Rule
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

Array = NDArray[np.float64]


@dataclass
class Fixed:
    """Trials whose values at every rung are these; the first one is asked of."""

    values: list[float]
    r2_at: dict[float, float] = field(default_factory=dict)
    whole_runs: float = 10.0

    def readings(self, rung: Rung) -> Readings:
        count = len(self.values)
        return Readings(np.arange(count), np.array(self.values), np.zeros(count, dtype=bool))

    def averages(self, rung: Rung) -> Array:
        return np.array(self.values)

    def r2(self, rung: Rung) -> float | None:
        return self.r2_at.get(rung.share or 0.0)


def ask(rule: Rule, value: float, peers: Fixed, draw: float = 0.0, before: float | None = None) -> Decision:
    number = peers.values.index(value) if value in peers.values else 0
    former = None if before is None else Rung(before)
    return decide(rule, 0.1, Asked(number, 0.1, Rung(0.1), value, draw, former), peers)


def test_halving_keeps_the_best_third() -> None:
    peers = Fixed([float(i) for i in range(9)])
    kept = [value for value in peers.values if ask("asha", value, peers).go_on]
    assert kept == [6.0, 7.0, 8.0]


def test_the_reason_has_the_numbers() -> None:
    decision = ask("asha", 1.0, Fixed([1.0, 2.0, 3.0]))
    assert not decision.go_on
    assert (decision.rank, decision.compared, decision.kept) == (3, 3, 1)
    assert "3rd of 3 at 10% of a run" in decision.reason


def test_too_few_trials_stop_none() -> None:
    assert ask("asha", 1.0, Fixed([1.0, 2.0])).go_on


def test_of_equal_trials_a_share_goes_on() -> None:
    peers = Fixed([0.0] * 30)
    draws = np.linspace(0.0, 0.999, 30)
    assert sum(ask("asha", 0.0, peers, draw).go_on for draw in draws) == pytest.approx(10, abs=1)


def test_protein_stops_more_the_better_early_values_tell_the_end() -> None:
    values = [float(i) for i in range(60)]
    kept = {}
    for r2 in (0.0, 0.1, 0.5, 0.8):
        peers = Fixed(values, {0.1: r2})
        kept[r2] = sum(ask("protein", value, peers).go_on for value in values)
    assert kept[0.0] == 60
    assert kept[0.0] > kept[0.1] > kept[0.5] > kept[0.8] > 0


def test_protein_stops_nothing_at_a_rung_that_tells_no_more_than_the_last() -> None:
    peers = Fixed([float(i) for i in range(60)], {0.05: 0.5, 0.1: 0.5})
    assert ask("protein", 0.0, peers, before=0.05).go_on
    assert not ask("protein", 0.0, peers).go_on


def test_protein_halves_by_three_before_it_has_learnt() -> None:
    peers = Fixed([float(i) for i in range(9)], {0.1: 0.0}, whole_runs=2.0)
    assert not ask("protein", 0.0, peers).go_on
    assert ask("protein", 8.0, peers).go_on


def test_protein_stops_fewer_where_trials_are_scarce() -> None:
    values = [float(i) for i in range(60)]
    for r2, kept in ((0.1, 60), (0.75, 30)):
        peers = Fixed(values, {0.1: r2})
        asked = [Asked(number, 0.1, Rung(0.1), value, 0.0) for number, value in enumerate(values)]
        runs = [decide("protein", 0.1, each, peers, scarce_trials=True) for each in asked]
        assert sum(run.go_on for run in runs) == kept


def test_the_median_rule_stops_below_the_median() -> None:
    peers = Fixed([1.0, 2.0, 3.0, 4.0, 5.0])
    assert not ask("median", 2.9, peers).go_on
    assert ask("median", 3.0, peers).go_on
    assert ask("median", 0.0, Fixed([1.0, 2.0])).go_on


def test_hyperband_compares_within_a_bracket() -> None:
    numbers = range(200)
    counts = np.bincount([bracket(number, 0.1) for number in numbers])
    assert len(counts) == 3
    assert counts[0] > counts[1] > counts[2] > 0
    assert len(rungs("hyperband", 0.1, int(np.argmax([bracket(n, 0.1) for n in numbers])))) == 1


@pytest.mark.parametrize("rule", ["protein", "asha", "median", "hyperband"])
def test_rungs_lie_between_the_smallest_share_and_the_end(rule: Rule) -> None:
    for number in range(20):
        for min_share in (0.04, 0.25, 0.9):
            shares = rungs(rule, min_share, number)
            assert all(min_share <= share < 1.0 for share in shares)
            assert shares == sorted(set(shares))


def test_off_has_no_rungs() -> None:
    assert rungs("off", 0.1, 0) == []


def test_of_rungs_that_one_report_passes_the_last_counts() -> None:
    assert passed([0.1, 0.3, 0.9], 0.0, 0.35) == 0.3
    assert passed([0.1, 0.3, 0.9], 0.3, 0.35) is None
    assert passed([0.1, 0.3, 0.9], 0.05, 0.1) == 0.1


def test_rungs_in_steps_compare_runs_after_exactly_those_steps() -> None:
    space = {"x": ParameterConfig(min=0, max=1, distribution="uniform")}
    protein = Protein(ProteinConfig(metric="m", parameters=space), seed=0, early_stopping="asha", rungs=[2, 6], eta=2.0)
    scores = [0.5, 0.1, 0.9, 0.2]
    decisions = []
    for number, score in enumerate(scores):
        protein.suggested(number, {"x": score})
        curve = [(float(step), float(step), score if step >= 2 else -score) for step in range(1, 4)]
        asked = [protein.decide(number, curve[: step + 1], 10.0) for step in range(3)]
        decisions.append([(decision.share, decision.go_on) for decision in asked])

    assert decisions[0] == [(None, True), (0.2, True), (None, True)]
    assert [row[1][1] for row in decisions] == [True, False, True, False]
    with_eta_4 = Protein(ProteinConfig(metric="m", parameters=space), early_stopping="asha", rungs=[2], eta=4.0)
    for number, score in enumerate(scores[:3]):
        with_eta_4.suggested(number, {"x": score})
        assert with_eta_4.decide(number, [(1.0, 1.0, score), (2.0, 2.0, score)], 10.0).go_on
