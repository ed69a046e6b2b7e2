"""Two sweeps side by side: their regret against the cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from metta.common.errors import UserError
from metta.sweep.analysis.progress import spending
from metta.sweep.definition import differences
from metta.sweep.state import SweepState

STEPS = 10
"""The number of amounts spent at which the two are compared."""


@dataclass(frozen=True)
class RegretRow:
    """The regrets of two sweeps when each had spent an amount.

    A regret is the difference between the top score so far and the final top score of both sweeps. It is None before a
    sweep's first score and after its end.
    """

    spent: float
    a: float | None
    b: float | None


@dataclass(frozen=True)
class Comparison:
    """Two sweeps that measure the same metric, goal and cost. Make one with `compare`."""

    a: SweepState
    b: SweepState

    @cached_property
    def rows(self) -> list[RegretRow]:
        """Regrets at `STEPS` amounts, in increasing order."""
        return self.regrets([self.most_spent * step / STEPS for step in range(1, STEPS + 1)])

    @property
    def most_spent(self) -> float:
        """The total cost of the more expensive sweep."""
        return max(self.a.spent, self.b.spent)

    @cached_property
    def differences(self) -> list[str]:
        """How the definitions differ."""
        return differences(self.a.definition, self.b.definition)

    def regrets(self, amounts: Sequence[float]) -> list[RegretRow]:
        """The regrets of both at several amounts spent."""
        return [RegretRow(spent, *(self._regret(sweep, spent) for sweep in (self.a, self.b))) for spent in amounts]

    @cached_property
    def _steps(self) -> dict[int, list[tuple[float, float]]]:
        """The steps of `top_by_spent` of each sweep, by the sweep's identity."""
        return {id(sweep): top_by_spent(sweep) for sweep in (self.a, self.b)}

    @cached_property
    def _top(self) -> float:
        scores = [score for steps in self._steps.values() for _, score in steps]
        return max(scores, key=lambda score: self.a.sign * score)

    def _regret(self, sweep: SweepState, spent: float) -> float | None:
        known = [score for at, score in self._steps[id(sweep)] if at <= spent * (1 + 1e-9)]
        return abs(self._top - known[-1]) if known and spent <= sweep.spent * (1 + 1e-9) else None


def top_by_spent(state: SweepState) -> list[tuple[float, float]]:
    """Each score that was better than all before it, after the amount spent by then."""
    return [(each.spent, each.score) for each in spending(state) if each.is_better and each.score is not None]


def compare(a: SweepState, b: SweepState) -> Comparison:
    """Compare two sweeps.

    Raises:
        UserError: their scores or costs mean different things, or neither has a score.
    """
    for what, one, other in (
        ("metric", a.metric, b.metric),
        ("goal", a.goal, b.goal),
        ("cost metric", a.definition.cost_metric, b.definition.cost_metric),
    ):
        if one != other:
            raise UserError(f"{a.name} and {b.name} cannot be compared: the {what} is {one!r} and {other!r}")
    if not top_by_spent(a) and not top_by_spent(b):
        raise UserError(f"neither {a.name} nor {b.name} has a trial with a score yet")
    return Comparison(a, b)
