"""What the optimiser's model says of a sweep: what to expect of each setting, and what each parameter does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein import Protein
from metta.sweep.protein.space import Categorical, Parameter, Space
from metta.sweep.protein.types import Importance, Observation, Prediction
from metta.sweep.state import SweepState

Array = NDArray[np.float64]

SLICE_POINTS = 41
NEIGHBOURS = 5
FEW_FORECASTS = 5
"""Fewer forecasts than this say nothing of a model."""

LAST_PART, RISING = 0.25, 0.25
"""At an end of a range the score still gets better if over this last part of it it does by this share of the noise of
one measurement."""


@dataclass(frozen=True)
class Slice:
    """What the model expects as one parameter changes, and all others stay as in the recommended trial.

    Attributes:
        values: of the parameter, in order.
        predictions: one for each value.
    """

    values: list[Any]
    predictions: list[Prediction]


@dataclass(frozen=True)
class Forecasts:
    """What the optimiser predicted of trials before they ran, beside what was measured; [n] each.

    Attributes:
        numbers: the trials.
        predicted: expected scores.
        deviations: standard deviations of single measurements round these, noise included.
        measured: scores.
        costs_predicted, costs_measured: NaN where no cost was predicted.
    """

    numbers: list[int]
    predicted: Array
    deviations: Array
    measured: Array
    costs_predicted: Array
    costs_measured: Array

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, -1..1; None for too few trials, or where either side is all the same."""
        if len(self.numbers) < FEW_FORECASTS or np.ptp(self.predicted) == 0 or np.ptp(self.measured) == 0:
            return None
        return float(np.corrcoef(_ranks(self.predicted), _ranks(self.measured))[0, 1])

    @property
    def misses(self) -> float | None:
        """How far forecasts were off, in standard deviations as foretold: their root mean square, of which 1 is right.

        None for few.
        """
        if len(self.numbers) < FEW_FORECASTS:
            return None
        return float(np.sqrt(np.mean(((self.measured - self.predicted) / self.deviations) ** 2)))

    @property
    def cost_error(self) -> float | None:
        """The median factor, less 1, by which costs were off; None for few."""
        known = (self.costs_predicted > 0) & (self.costs_measured > 0)
        if known.sum() < FEW_FORECASTS:
            return None
        ratio = np.log(self.costs_measured[known] / self.costs_predicted[known])
        return math.expm1(float(np.median(np.abs(ratio))))


@dataclass(frozen=True)
class Analysis:
    """What the model says of a sweep that has a score.

    Attributes:
        known: how many trials the model has seen end.
        recommended: number of the best trial.
        expected: what it expects of each trial with a score, by number.
        importance: of each parameter, by dotted path.
        slices: through the recommended setting, by dotted path.
        forecasts: made before the trials ran.
        twins: numbers of the scored trials with exactly the recommended setting, itself among them.
        neighbours: numbers of the scored trials nearest to the recommended setting, its twins left out.
        at_the_edge: parameters whose recommended value lies at an end of their range, where the expected score still
            gets better, with "min" or "max".
    """

    known: int
    recommended: int
    expected: dict[int, Prediction]
    importance: dict[str, Importance]
    slices: dict[str, Slice]
    forecasts: Forecasts
    twins: list[int]
    neighbours: list[int]
    at_the_edge: dict[str, str]

    @cached_property
    def widening(self) -> float:
        """The factor by which ranges are wider than the model says, because it has been too sure; at least 1.

        This is the Birge ratio, by which physics scales errors that turn out too small (Birge 1932,
        https://doi.org/10.1103/PhysRev.40.207).
        """
        return max(1.0, self.forecasts.misses or 1.0)

    def interval(self, prediction: Prediction) -> tuple[float, float]:
        """Where the true score is, 95% sure."""
        half = 1.96 * self.widening * prediction.score_std
        return prediction.score - half, prediction.score + half


def analyse(state: SweepState) -> Analysis | None:
    """Ask the optimiser's model what it makes of a sweep; None before any trial has a score."""
    protein = state.learner.protein
    scored = [each for each in protein.observations if each.score is not None and not each.is_failure]
    best = next((each for each in scored if state.best is not None and each.number == state.best.number), None)
    if best is None:
        return None
    space = Space(state.definition.protein.parameters)
    points = np.array([state.reader.point(state.by_number[each.number]) for each in scored])
    predictions = protein.predict_at(points)
    expected = {each.number: prediction for each, prediction in zip(scored, predictions, strict=True)}
    twins, neighbours = _near(points, scored.index(best), scored)
    slices = _slices(protein, space, best)
    return Analysis(
        known=len(protein.observations),
        recommended=best.number,
        expected=expected,
        importance=protein.importance(),
        slices=slices,
        forecasts=_forecasts(state, expected),
        twins=twins,
        neighbours=neighbours,
        at_the_edge=_at_the_edge(space, best, slices, state.sign),
    )


def _ranks(values: Array) -> Array:
    """The rank of each value, from 0; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[places]


def _slices(protein: Protein, space: Space, best: Observation) -> dict[str, Slice]:
    values = {parameter.path: _grid(parameter) for parameter in space.parameters}
    asked = [{**best.params, path: value} for path, grid in values.items() for value in grid]
    answers = iter(protein.predict_all(asked))
    return {path: Slice(grid, [next(answers) for _ in grid]) for path, grid in values.items()}


def _grid(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Categorical):
        return list(parameter.choices)
    places = np.linspace(0.0, 1.0, SLICE_POINTS)
    return sorted({parameter.decode(np.array([place])) for place in places})


def _forecasts(state: SweepState, expected: dict[int, Prediction]) -> Forecasts:
    foretold = [
        (trial, trial.score or 0.0)
        for trial in state.trials
        if trial.number in expected and {"score", "score_std"} <= trial.suggestion.keys()
    ]
    said = [trial.suggestion for trial, _ in foretold]
    return Forecasts(
        numbers=[trial.number for trial, _ in foretold],
        predicted=np.array([each["score"] for each in said], float),
        deviations=np.array(
            [
                math.hypot(each["score_std"], expected[trial.number].noise_std)
                for each, (trial, _) in zip(said, foretold, strict=True)
            ]
        ),
        measured=np.array([score for _, score in foretold]),
        costs_predicted=np.array([each.get("cost") or math.nan for each in said], float),
        costs_measured=np.array([trial.cost or math.nan for trial, _ in foretold], float),
    )


def _near(points: Array, best: int, scored: Sequence[Observation]) -> tuple[list[int], list[int]]:
    """Trials with the best one's setting, and those whose settings are nearest, nearest first.

    Args:
        points: [n, columns], of the scored trials.
        best: index of the best one among them.
    """
    distances = np.sqrt(((points - points[best]) ** 2).sum(axis=1))
    twins = [each.number for each, distance in zip(scored, distances, strict=True) if distance < 1e-9]
    order = [scored[i].number for i in np.argsort(distances, kind="stable")]
    return twins, [number for number in order if number not in twins][:NEIGHBOURS]


def _at_the_edge(space: Space, best: Observation, slices: dict[str, Slice], sign: float) -> dict[str, str]:
    point = space.encode(best.params)
    ends = {}
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        place = float(point[columns][0])
        if isinstance(parameter, Categorical) or 0.03 < place < 0.97:
            continue
        end = "min" if place < 0.5 else "max"
        predictions = slices[parameter.path].predictions
        inwards = predictions if end == "min" else predictions[::-1]
        last, before = inwards[0], inwards[round(LAST_PART * (len(inwards) - 1))]
        if sign * (last.score - before.score) >= RISING * last.noise_std:
            ends[parameter.path] = end
    return ends
