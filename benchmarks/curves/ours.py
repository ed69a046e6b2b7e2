"""Protein on recorded curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.curves.tables import Maker, Params, Proposal, Space
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig


class Ours:
    """Protein, called as a sweep calls it.

    Args:
        options: options of `Protein`, by name.
        told: whether it is told the budget, and so weighs costs.
    """

    def __init__(
        self, space: Space, seed: int, points: int, budget: float, options: Mapping[str, Any], told: bool = False
    ) -> None:
        self.points = points
        parameters = {
            name: ParameterConfig(choices=list(found.choices), distribution="categorical")
            if found.choices
            else ParameterConfig(min=found.low, max=found.high, distribution="log_normal" if found.log else "uniform")
            for name, found in space.items()
        }
        config = ProteinConfig(metric="score", goal="maximize", parameters=parameters)
        self.protein = Protein(config, seed=seed, max_cost=budget if told else None, **options)
        self.trials: list[tuple[bool, float, float, int]] = []

    def propose(self) -> Proposal:
        params, self.info = self.protein.suggest()
        self.curve: list[tuple[float, float, float]] = []
        if "repeat_of" in self.info:
            return Proposal("repeat", trial=self.info["repeat_of"])
        return Proposal(params=params)

    def started(self, params: Params) -> None:
        # The table has chosen the nearest configuration, which is running
        number = self.info["number"]
        self.protein.forget(number)
        self.params = dict(params)
        self.protein.suggested(number, self.params, self.info)

    def point(self, index: int, score: float, cost: float) -> bool:
        self.curve.append((index + 1, cost, score))
        return self.protein.decide(self.info["number"], self.curve, self.points).go_on

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        number = self.info["number"]
        if whole and score is not None:
            self.curve.append((self.points, cost, score))
        self.protein.observe(
            self.params,
            score,
            cost,
            is_failure=score is None,
            number=number,
            curve=self.curve,
            total_steps=self.points,
            stopped=score is not None and not whole,
        )
        if score is not None:
            self.trials.append((whole, 0.0 if whole else cost, score, -number))

    def recommend(self) -> int:
        try:
            return self.protein.best().number
        except LookupError:
            return -max(self.trials)[3] if self.trials else 0


def protein(told: bool = False, **options: Any) -> Maker:
    """Protein with options, told the budget or not."""

    def make(space: Space, seed: int, points: int, budget: float) -> Ours:
        return Ours(space, seed, points, budget, options, told)

    return make
