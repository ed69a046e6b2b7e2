"""Protein over parameters of an Optuna study: converts its distributions and trials for Protein."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from metta.common.errors import UserError
from metta.sweep.protein import Protein
from metta.sweep.protein.types import Decision, Rule
from metta.sweep.protein_config import ParameterConfig

SUGGESTION_ATTRIBUTE = "protein"
"""System attribute of a trial: Protein's suggestion and the information with it."""
DECISIONS_ATTRIBUTE = "protein:decisions"
"""System attribute of a trial: Protein's decisions whether the trial continues."""
DURATION = "duration"
MIN_SHARE = 0.04

Point = tuple[float, float, float]
"""Step from 1, cost of the trial until then, and reported value."""


@dataclass(frozen=True)
class Watching:
    """How the learning curves of a study are used.

    Attributes:
        rule: the rule that stops trials; "off" if nothing is learnt from curves.
        min_share: no trial is stopped before this share of a whole run.
        total: steps of a whole run; None if unknown.
    """

    rule: Rule = "off"
    min_share: float = MIN_SHARE
    total: float | None = None


def cost_of(trial: FrozenTrial, cost: str = DURATION) -> float | None:
    """The cost of a finished trial: its duration in seconds, or the user attribute of that name.

    Returns:
        None for a trial that did not complete and has no cost.

    Raises:
        UserError: a completed trial has no cost, or a cost is not a number of at least 0.
    """
    if cost == DURATION:
        value = None if trial.duration is None else trial.duration.total_seconds()
    else:
        value = trial.user_attrs.get(cost)
    if value is None and trial.state is not TrialState.COMPLETE:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        found = "has none" if value is None else f"has {value!r}"
        where = "a duration" if cost == DURATION else f"the user attribute {cost!r}, a number of at least 0"
        raise UserError(f"the cost of trial {trial.number} is {where}, but it {found}")
    return float(value)


def curve_of(trial: FrozenTrial, cost: float | None = None) -> list[Point]:
    """The values that a trial reported, without those that are not finite.

    Steps that begin at 0 are counted from 1, because a trial that reports has done some work. Optuna does not store the
    cost of a trial at each report, so the cost is divided evenly among its steps.
    """
    reported = sorted(trial.intermediate_values.items())
    offset = 1 if reported and reported[0][0] == 0 else 0
    each = (cost or 0.0) / max(1, reported[-1][0] + offset) if reported else 0.0
    points = ((float(step + offset), value) for step, value in reported)
    return [(step, each * step, float(value)) for step, value in points if math.isfinite(value)]


def whole_run(trials: Iterable[FrozenTrial]) -> float | None:
    """Steps of a whole run: those of the longest completed trial; None if none has reported."""
    curves = (curve_of(trial) for trial in trials if trial.state is TrialState.COMPLETE)
    return max((curve[-1][0] for curve in curves if curve), default=None)


@dataclass(frozen=True)
class Parameter:
    """An Optuna parameter converted to one of Protein.

    Attributes:
        key: its name in Protein; Optuna's name may contain dots.
        distribution: Optuna's distribution.
        config: a category is represented by its index, and a number with a step by the number of steps above `low`.
    """

    key: str
    distribution: BaseDistribution
    config: ParameterConfig

    @classmethod
    def of(cls, key: str, distribution: BaseDistribution, margin: float = 0.0) -> Parameter:
        """
        Args:
            margin: the share of a range of real numbers that is not searched at either end.
        """
        match distribution:
            case CategoricalDistribution(choices=choices):
                config = ParameterConfig(choices=list(range(len(choices))), distribution="categorical")
            case IntDistribution(low=low, high=high) if distribution.log:
                config = ParameterConfig(min=low, max=high, distribution="int_log_normal")
            case IntDistribution() | FloatDistribution() if step := _step(distribution):
                steps = round((distribution.high - distribution.low) / step)
                config = ParameterConfig(min=0, max=steps, distribution="int_uniform")
            case IntDistribution(low=low, high=high):
                config = ParameterConfig(min=low, max=high, distribution="int_uniform")
            case FloatDistribution(log=log):
                bottom, top = _inside(distribution, margin)
                config = ParameterConfig(min=bottom, max=top, distribution="log_normal" if log else "uniform")
            case _:
                raise UserError(f"{type(distribution).__name__} is not a distribution that Protein supports")
        return cls(key, distribution, config)

    def to_protein(self, value: Any) -> Any:
        """Raises ValueError for a value that is not one of the choices."""
        match self.distribution:
            case CategoricalDistribution():
                return int(self.distribution.to_internal_repr(value))
            case IntDistribution() | FloatDistribution() if step := _step(self.distribution):
                return (value - self.distribution.low) / step
        return value

    def from_protein(self, value: Any) -> Any:
        match self.distribution:
            case IntDistribution() | FloatDistribution() if step := _step(self.distribution):
                value = min(self.distribution.low + value * step, self.distribution.high)
        return self.distribution.to_external_repr(value)


def _step(distribution: IntDistribution | FloatDistribution) -> float | None:
    """The step in which values are counted, or None if Protein uses the values themselves."""
    if isinstance(distribution, IntDistribution) and distribution.step == 1:
        return None
    return distribution.step


def _inside(distribution: FloatDistribution, margin: float) -> tuple[float, float]:
    """The bounds of the search: inside the range by the margin, if it is wide enough."""
    low, high = distribution.low, distribution.high
    if distribution.log:
        factor = (high / low) ** margin
        inner = low * factor, high / factor
    else:
        inner = low + margin * (high - low), high - margin * (high - low)
    return inner if low < inner[0] < inner[1] < high else (low, high)


class StudyProtein:
    """Protein over some parameters of a study. It gets each trial under its own number.

    Args:
        parameters: the parameters, by Optuna's name.
        protein: a Protein without observations, which searches them by their keys.
        watching: how it uses learning curves.
        cost: returns the cost of a finished trial.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        protein: Protein,
        watching: Watching,
        cost: Callable[[FrozenTrial], float | None],
    ) -> None:
        self._parameters = parameters
        self._protein = protein
        self._total = watching.total
        self._cost = cost
        self._finished: set[int] = set()
        self._outstanding: set[int] = set()
        self._silent: list[int] = []

    def tell(self, trials: Iterable[FrozenTrial]) -> None:
        """Update Protein with all trials of the study in their current state, in the order of their numbers."""
        self._silent = []
        for trial in trials:
            if trial.number in self._finished or trial.state is TrialState.WAITING:
                continue
            params, info = self._params(trial)
            if trial.state.is_finished():
                self._finished.add(trial.number)
                self._finish(trial, params, info)
            elif params is None:
                self._silent.append(trial.number)
            else:
                self._suggested(trial.number, params, info, curve_of(trial))

    def decide(self, trial: FrozenTrial, asked_at: float) -> Decision | None:
        """Whether a running trial continues; None if no decision is possible.

        Args:
            asked_at: the step, from 1, of the previous decision; 0 if there was none. Rungs up to there are past.
        """
        params, info = self._params(trial)
        curve = curve_of(trial)
        if params is None or self._total is None or not curve:
            return None
        self._suggested(trial.number, params, info, [point for point in curve if point[0] <= asked_at])
        return self._protein.decide(trial.number, curve, self._total)

    def suggest(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Suggest for a trial, in Optuna's names and values.

        An earlier running trial without parameters may be at the same point in another process. So its probable
        suggestion is treated as its parameters.
        """
        for silent in self._silent:
            if silent < number and silent not in self._outstanding:
                self._suggested(silent, *self._protein.suggest())
        params, info = self._protein.suggest()
        info["number"] = number
        self._suggested(number, params, info)
        return {name: p.from_protein(params[p.key]) for name, p in self._parameters.items()}, info

    def _suggested(
        self, number: int, params: Mapping[str, Any], info: Mapping[str, Any], curve: Sequence[Point] = ()
    ) -> None:
        self._protein.suggested(number, params, info, curve=curve, total_steps=self._total)
        self._outstanding.add(number)

    def _finish(self, trial: FrozenTrial, params: Mapping[str, Any] | None, info: Mapping[str, Any]) -> None:
        if trial.number in self._outstanding:
            self._outstanding.remove(trial.number)
            if params is None:
                self._protein.forget(trial.number)
        if params is None:
            return
        cost = self._cost(trial)
        curve = curve_of(trial, cost)
        stopped = trial.state is TrialState.PRUNED and bool(curve)
        score = trial.value if trial.state is TrialState.COMPLETE and _is_feasible(trial) else None
        self._protein.observe(
            params,
            score,
            cost,
            is_failure=not _is_feasible(trial) or (score is None and not stopped),
            number=trial.number,
            info=info,
            curve=curve,
            total_steps=self._total if stopped else None,
            stopped=stopped,
        )

    def _params(self, trial: FrozenTrial) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The trial's parameters as Protein has them, None if it lacks one, and the information with them."""
        info = dict(trial.system_attrs.get(SUGGESTION_ATTRIBUTE, {}))
        suggested = info.pop("params", {})
        known = {**suggested, **trial.system_attrs.get("fixed_params", {}), **trial.params}
        if suggested.keys() != self._parameters.keys():
            info = {}
        try:
            return {p.key: p.to_protein(known[name]) for name, p in self._parameters.items()}, info
        except (KeyError, ValueError):
            return None, info


def _is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial meets its constraints in Optuna's form: each must be at most 0."""
    return all(value <= 0 for value in trial.constraints.values())
