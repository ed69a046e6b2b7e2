"""Decides what the optimiser learns from a stored trial, or why it learns nothing. No other module decides this."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metta.common.config import flatten
from metta.common.counts import count_text
from metta.common.errors import UserError, nearest
from metta.sweep.constraints import ConstraintError
from metta.sweep.curve import Point, learning_curve
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein.space import Space, SpaceError
from metta.sweep.protein.types import Observation, OtherLength
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.ranking import judged, sign
from metta.sweep.store.protocol import Outcome
from metta.sweep.trial import Trial, TrialState

if TYPE_CHECKING:
    from metta.sweep.protein import Protein

_REQUIRED = ("params", "state", "score")
"""A stored trial is not learnt from if one of these fields is damaged."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A stored trial as read under the current definition.

    Attributes:
        trial: the trial with its score and cost under that definition.
        params: its hyperparameters, flat; missing ones are filled in.
        point: their encoding in the search space, [columns]; None if they have none.
        observation: what the optimiser learns; None for a trial that has not ended, was dropped, or has a problem.
        problem: why nothing can be learnt from it, or None.
        remark: which part of it is not used, although it is learnt from; or None.
    """

    trial: Trial
    params: Mapping[str, Any]
    point: NDArray[np.float64] | None
    observation: Observation | None = None
    problem: str | None = None
    remark: str | None = None


class ObservationReader:
    """Reads stored trials under a sweep's current definition, and caches the readings.

    A hyperparameter that is missing from a trial takes the `default` of its `ParameterConfig`, or else the Tool's own
    value. One that is no longer searched is ignored.

    Args:
        definition: the sweep's current definition.

    Attributes:
        paths: the dotted paths of everything that a suggestion sets.
    """

    def __init__(self, definition: SweepDefinition) -> None:
        self._metric, self._cost_metric = definition.protein.metric, definition.cost_metric
        self._seeds = definition.seeds
        self._space = Space(definition.protein.parameters)
        self.paths = hyperparameter_paths(definition.protein)
        self._path_set = set(self.paths)
        self._searched = [parameter.path for parameter in self._space.parameters]
        self._defaults = _defaults(definition)
        self._read: dict[int, tuple[Trial, Reading]] = {}

    def read(self, trial: Trial) -> Reading:
        """The reading of a trial in its current state."""
        known = self._read.get(trial.number)
        if known is None or (known[0] is not trial and known[1].trial is not trial):
            known = self._read[trial.number] = (trial, self._look(trial))
        return known[1]

    def point(self, trial: Trial) -> NDArray[np.float64]:
        """The encoding of a trial that can be learnt from, [columns]."""
        point = self.read(trial).point
        assert point is not None
        return point

    def refusal(self, params: Mapping[str, Any], outcome: Outcome | None = None) -> str | None:
        """Why a trial that a user adds cannot be accepted; None if it can.

        Args:
            params: flat hyperparameters.
            outcome: how the trial ended; None for one that is still to run.
        """
        if unknown := [path for path in params if path not in self.paths]:
            missing = [path for path in self._searched if path not in params]
            if missing:
                return f"the sweep has no parameter {unknown[0]!r}; {nearest(unknown[0], missing)}"
        if outcome is None:
            return self._look(Trial(0, TrialState.QUEUED, dict(params))).problem
        trial = Trial(
            0,
            outcome.state,
            dict(params),
            score=outcome.score,
            cost=outcome.cost,
            cost_metric=outcome.cost_metric,
            metrics=dict(outcome.metrics),
        )
        reading = self._look(trial)
        score = reading.trial.score
        if reading.problem is None and outcome.state is TrialState.COMPLETED and not math.isfinite(score or 0.0):
            return f"score: {score} is not a finite number; a trial without a score has the state failed"
        if reading.problem is None and outcome.cost is not None and reading.trial.cost is None:
            return _bad_cost(outcome.cost)
        return reading.problem

    def _look(self, stored: Trial) -> Reading:
        trial = judged(stored, self._metric, self._cost_metric)
        if (suggestion := readable_suggestion(trial.suggestion)) is not trial.suggestion:
            trial = replace(trial, suggestion=suggestion)
        if trial.share is not None and not _fits(trial.share, trial.state):
            trial = replace(trial, share=None)
        if damage := "; ".join(line for line in trial.damage if line.partition(":")[0] in _REQUIRED):
            return Reading(trial, {}, None, problem=damage)
        params = self._complete(trial.params)
        try:
            point = self._space.encode_flat(params)
        except ValueError as error:
            return Reading(trial, params, None, problem=None if trial.dropped is not None else str(error))
        if not trial.counted:
            return Reading(trial, params, point)
        if trial.state is TrialState.COMPLETED and trial.score is None:
            return Reading(trial, params, point, problem=f"the run did not measure {self._metric!r}")
        unpriced = trial.cost is None and trial.state is TrialState.COMPLETED
        remark = _bad_cost(stored.cost) if unpriced else None
        return Reading(trial, params, point, self._observation(trial, params), None, remark)

    def _complete(self, params: dict[str, Any]) -> dict[str, Any]:
        """The hyperparameters of the current search, with defaults for missing ones."""
        if params.keys() == self._path_set:
            return params
        return {**self._defaults, **{path: params[path] for path in self.paths if path in params}}

    def _observation(self, trial: Trial, params: Mapping[str, Any]) -> Observation:
        score = trial.score if trial.score is not None and math.isfinite(trial.score) else None
        stopped = trial.state is TrialState.PRUNED
        failed = trial.state is TrialState.FAILED or (score is None and not stopped)
        return Observation(
            trial.number,
            params,
            None if stopped else score,
            trial.cost,
            failed,
            self._noise(trial),
            stopped,
            trial.suggestion.get("repeat_of"),
        )

    def _noise(self, trial: Trial) -> float | None:
        """Standard error of a trial's score, if measured: of its mean over seeds, or of its evaluation."""
        if self._seeds > 1:
            noise = trial.metrics.get(f"{self._metric}.std", math.nan) / math.sqrt(self._seeds)
        else:
            noise = trial.metrics.get(f"{self._metric}.stderr", math.nan)
        return noise if math.isfinite(noise) and noise >= 0 else None


class Learner:
    """Protein, with the stored trials of a sweep.

    Args:
        definition: the sweep's current definition.
        reader: the reader of its trials; by default a new one.

    Attributes:
        protein: the optimiser, with what it has observed.
        problems: why trials are not learnt from, by number.
    """

    def __init__(self, definition: SweepDefinition, reader: ObservationReader | None = None) -> None:
        from metta.sweep.protein import Protein

        self.protein: Protein = Protein(
            definition.protein,
            seed=definition.seed,
            num_trials=None if definition.max_runs is not None else definition.num_trials,
            max_cost=definition.max_cost,
            early_stopping=definition.early_stopping,
            min_share=definition.min_share,
            rungs=definition.rungs,
            eta=definition.eta,
            repeats=definition.seeds_per_trial == "auto",
            own_values=definition.own_values,
        )
        self._sign = sign(definition.protein.goal)
        self.problems: dict[int, str] = {}
        self._reader = reader or ObservationReader(definition)

    def tell(self, trial: Trial, curve: Sequence[Point] | None = None) -> None:
        """Update the optimiser with a trial in its current state. It may be called again when the trial has changed.

        Args:
            curve: its learning curve, as `metta.sweep.curve.watched_curve` returns it; by default the one that `decide`
                received.
        """
        reading = self._reader.read(trial)
        self.problems.pop(trial.number, None)
        if reading.problem is not None:
            self.problems[trial.number] = reading.problem
        if reading.observation is not None and reading.point is not None:
            shown = None if curve is None else learning_curve(curve, reading.trial.share, self._sign)
            self.protein.learn(reading.observation, reading.point, reading.trial.suggestion, shown)
        elif reading.problem is None and trial.dropped is None and (not trial.state.ended or trial.mishap):
            # A mishap is run again, so its point is not suggested to another trial
            self.protein.suggested(trial.number, reading.params, info=reading.trial.suggestion)
        else:
            self.protein.forget(trial.number, missing_ok=True)

    def suggest(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next hyperparameters, flat with dotted keys, and the information that Protein gives with them."""
        params, info = self.protein.suggest()
        return {path: value_at(params, path) for path in self._reader.paths}, info

    def best(self, max_cost: float | None = None) -> int | None:
        """Number of the trial that the model recommends among those within `max_cost`; None if none completed."""
        try:
            return self.protein.best(max_cost).number
        except LookupError:
            return None

    def other_length(self, max_cost: float) -> OtherLength | None:
        """See `Protein.other_length`."""
        return self.protein.other_length(max_cost)


def _fits(share: float, state: TrialState) -> bool:
    """Whether a trial in this state can have done that share of a run; another one was edited by hand."""
    return 0 <= share <= 1 if state is TrialState.PRUNED else share == 1


def readable_suggestion(suggestion: dict[str, Any]) -> dict[str, Any]:
    """The optimiser's record about a trial, without parts of a wrong type."""
    odd = {key for key, value in suggestion.items() if key in _SUGGESTION and not _SUGGESTION[key](value)}
    return {key: value for key, value in suggestion.items() if key not in odd} if odd else suggestion


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_kernels(value: Any) -> bool:
    """Whether a value is a mapping from a model's name to logarithms of its kernel parameters."""
    return isinstance(value, dict) and all(
        isinstance(vector, list) and all(_is_number(each) and abs(each) < _LARGEST_LOG for each in vector)
        for vector in value.values()
    )


_LARGEST, _LARGEST_LOG = 1e300, 100.0
_SUGGESTION: dict[str, Callable[[Any], bool]] = {
    "source": lambda value: isinstance(value, str),
    "fallback": lambda value: isinstance(value, str),
    "repeat_of": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "trial": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "pareto_point": lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool)),
    "score": _is_number,
    "score_std": lambda value: _is_number(value) and value >= 0,
    "cost": lambda value: value is None or (_is_number(value) and value >= 0),
    "success": lambda value: _is_number(value) and 0 <= value <= 1,
    "model": _is_kernels,
}
"""Checks of those parts of a suggestion that are used."""


def hyperparameter_paths(config: ProteinConfig) -> list[str]:
    """The dotted paths of everything that a suggestion sets."""
    return list(flatten(config.parameters))


def search_centre(config: ProteinConfig) -> dict[str, Any]:
    """The hyperparameters in the middle of the space, flat with dotted keys.

    Raises:
        UserError: no hyperparameters meet the constraints, or a constraint compares incomparable values.
    """
    try:
        space = Space(config.parameters, config.constraints)
        params = space.decode(space.centre)
    except (ConstraintError, SpaceError) as error:
        raise UserError(str(error)) from None
    return {path: value_at(params, path) for path in hyperparameter_paths(config)}


def own_values(config: ProteinConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the searched hyperparameters in a Tool, by dotted path, without those that it lacks.

    Args:
        values: nested, or flat with dotted keys, in JSON's types.

    Raises:
        UserError: a value is given twice, or a name is not text.
    """
    try:
        return Space(config.parameters).searched(values)
    except SpaceError as error:
        raise UserError(str(error)) from None


def value_at(nested: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested mappings."""
    node: Any = nested
    for key in path.split("."):
        node = node[key]
    return node


def problems_text(problems: Mapping[int, str], what: str = "not learnt from") -> str:
    """One line with the number of trials with a problem, and their numbers by reason; "" for none."""
    if not problems:
        return ""
    by_reason: dict[str, list[int]] = {}
    for number, reason in sorted(problems.items()):
        by_reason.setdefault(reason, []).append(number)
    groups = sorted(by_reason.items(), key=lambda group: (-len(group[1]), group[1]))
    named = [f"{numbers_text(numbers)} ({' '.join(reason.split())})" for reason, numbers in groups[:_MOST_REASONS]]
    rest = sum(len(numbers) for _, numbers in groups[_MOST_REASONS:])
    more = [f"{rest} more for other reasons"] if rest else []
    count = count_text(problems, "trial is", "trials are")
    return f"{count} {what}: {'; '.join([*named, *more])}"


def numbers_text(numbers: Sequence[int]) -> str:
    """Trial numbers with consecutive ones joined: ``0-3, 7``; a very long list is cut."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    named = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_MOST_NAMED]]
    return ", ".join([*named, *(["..."] if len(ranges) > _MOST_NAMED else [])])


_MOST_REASONS, _MOST_NAMED = 3, 12


def _defaults(definition: SweepDefinition) -> dict[str, Any]:
    """The values of hyperparameters in trials that were recorded without them, if known."""
    tool = flatten(definition.tool)
    defaults: dict[str, Any] = {}
    for path, leaf in flatten(definition.protein.parameters).items():
        if not isinstance(leaf, ParameterConfig):
            continue
        if leaf.default is not None:
            defaults[path] = leaf.default
        elif path in tool:
            defaults[path] = tool[path]
    return defaults


def _bad_cost(cost: float | None) -> str:
    if cost is None:
        return "it has no cost"
    return f"cost: {cost} is not a finite number of at least 0"
