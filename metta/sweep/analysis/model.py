"""The optimiser's model of a sweep: the expected score of each setting, and the effect of each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.sweep.analysis.ranges import End
from metta.sweep.protein import Protein
from metta.sweep.protein.choosing import best_probabilities
from metta.sweep.protein.space import Categorical, Parameter, Space
from metta.sweep.protein.types import Belief, Importance, Observation, Prediction
from metta.sweep.state import SweepState

Array = NDArray[np.float64]

SLICE_POINTS = 41
NEIGHBOURS = 5
FEW_FORECASTS = 5
"""With fewer forecasts than this the quality of a model is unknown."""

DEVIATIONS_95 = 1.96
"""Deviations from the mean of a normal distribution to the ends of its 95% interval."""

AT_THE_EDGE = 0.03
"""A value this close to an end of its range, as a share of the range, counts as being at that end."""

LAST_PART, RISING = 0.25, 0.25
"""The score still improves at an end of a range if it improves over this last part of the range by at least this share
of the noise of one measurement."""


@dataclass(frozen=True)
class Slice:
    """Predictions as one parameter changes and all others are those of the recommended trial.

    Attributes:
        values: of the parameter, in order.
        predictions: one for each value.
    """

    values: list[Any]
    predictions: list[Prediction]


@dataclass(frozen=True)
class Forecasts:
    """What the optimiser predicted for trials before they ran, and what was measured; [n] each.

    Attributes:
        numbers: the trials.
        predicted: expected scores.
        deviations: standard deviations of single measurements around these, noise included.
        noises: standard deviations of single measurements around the true score.
        measured: scores.
        costs_predicted, costs_measured: NaN if no cost was predicted.
    """

    numbers: list[int]
    predicted: Array
    deviations: Array
    noises: Array
    measured: Array
    costs_predicted: Array
    costs_measured: Array

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, -1..1; None for too few trials, or if all values of one side are equal."""
        if len(self.numbers) < FEW_FORECASTS or np.ptp(self.predicted) == 0 or np.ptp(self.measured) == 0:
            return None
        return float(np.corrcoef(_ranks(self.predicted), _ranks(self.measured))[0, 1])

    @property
    def attainable_correlation(self) -> float | None:
        """The correlation that a perfect model would have had with single, noisy measurements.

        It is the square root of the share of the measured variance that is not noise: the reliability index of
        classical test theory (Lord & Novick 1968, "Statistical theories of mental test scores", section 3.4). None
        for too few trials, or where all measurements are equal.
        """
        if len(self.numbers) < FEW_FORECASTS or np.ptp(self.measured) == 0:
            return None
        noise = float(np.mean(self.noises**2))
        return math.sqrt(max(0.0, 1.0 - noise / float(np.var(self.measured, ddof=1))))

    @property
    def misses(self) -> float | None:
        """Root mean square of the errors, in predicted standard deviations: 1 for a model that is exactly as sure as it
        should be; None for too few trials.
        """
        if len(self.numbers) < FEW_FORECASTS:
            return None
        return float(np.sqrt(np.mean(((self.measured - self.predicted) / self.deviations) ** 2)))

    @cached_property
    def widening(self) -> float:
        """The factor by which intervals are widened because the model has been overconfident; at least 1.

        This is the Birge ratio, by which physics scales errors that turn out too small (Birge 1932,
        https://doi.org/10.1103/PhysRev.40.207).
        """
        return max(1.0, self.misses or 1.0)

    @property
    def cost_error(self) -> float | None:
        """The median factor, less 1, by which costs were off; None for too few trials."""
        known = (self.costs_predicted > 0) & (self.costs_measured > 0)
        if known.sum() < FEW_FORECASTS:
            return None
        ratio = np.log(self.costs_measured[known] / self.costs_predicted[known])
        return math.expm1(float(np.median(np.abs(ratio))))


@dataclass(frozen=True)
class Analysis:
    """The model's analysis of a sweep with at least one score.

    Attributes:
        known: how many ended trials the model has learnt from.
        recommended: number of the best trial.
        expected: the score and cost that it expects of each scored trial, by number.
        importance: of each parameter, by dotted path.
        slices: one through the recommended setting for each parameter, by dotted path.
        beliefs: of each configuration with a whole run, by the number of its first trial.
        forecasts: made before the trials ran.
        twins: numbers of the scored trials with exactly the recommended setting, including the recommended trial.
        neighbours: numbers of the scored trials nearest to the recommended setting, without its twins.
        at_the_edge: parameters whose recommended value is at an end of their range at which the expected score still
            improves, with that end.
    """

    known: int
    recommended: int
    expected: dict[int, Prediction]
    importance: dict[str, Importance]
    slices: dict[str, Slice]
    beliefs: dict[int, Belief]
    forecasts: Forecasts
    twins: list[int]
    neighbours: list[int]
    at_the_edge: dict[str, End]

    @property
    def widening(self) -> float:
        return self.forecasts.widening

    def interval(self, prediction: Prediction) -> tuple[float, float]:
        """The 95% interval of the true score."""
        half = DEVIATIONS_95 * self.widening * prediction.score_std
        return prediction.score - half, prediction.score + half


def analyse(state: SweepState) -> Analysis | None:
    """Analyse a sweep with the optimiser's model; None before any trial has a score."""
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
    forecasts = _forecasts(state, expected)
    beliefs = _beliefs(state, protein, scored, points, predictions, forecasts)
    if state.definition.learns_from_curves:
        expected |= _believed(state, expected, beliefs)
    return Analysis(
        known=len(protein.observations),
        recommended=best.number,
        expected=expected,
        importance=protein.importance(),
        slices=slices,
        beliefs=beliefs,
        forecasts=forecasts,
        twins=twins,
        neighbours=neighbours,
        at_the_edge=_at_the_edge(space, best, slices, state.sign),
    )


def _beliefs(
    state: SweepState,
    protein: Protein,
    scored: Sequence[Observation],
    points: Array,
    predictions: Sequence[Prediction],
    forecasts: Forecasts,
) -> dict[int, Belief]:
    """What is believed of each configuration; trials with the same hyperparameters are one.

    Where the optimiser learns from curves, it says this itself.
    """
    if state.definition.learns_from_curves:
        return {each.number: each for each in protein.beliefs()}
    _, firsts, counts = np.unique(points.round(9), axis=0, return_index=True, return_counts=True)
    chosen = [predictions[i] for i in firsts]
    mean = np.array([each.score for each in chosen])
    variance = np.array([each.score_std**2 for each in chosen])
    probabilities = best_probabilities(state.sign * mean, variance, np.random.default_rng(protein.seed))
    reach = DEVIATIONS_95 * forecasts.widening * np.sqrt(variance + np.array([each.noise_std**2 for each in chosen]))
    columns = (counts, probabilities, mean, np.sqrt(variance), mean - reach, mean + reach)
    numbers = [scored[i].number for i in firsts]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {number: Belief(number, *row) for number, row in zip(numbers, rows, strict=True)}


def _believed(
    state: SweepState, expected: Mapping[int, Prediction], beliefs: Mapping[int, Belief]
) -> dict[int, Prediction]:
    """What is expected of the trials with a belief: a smooth model lacks their own departures from it."""
    believed = {number: beliefs.get(state.repeats.get(number, number)) for number in expected}
    return {
        number: replace(
            expected[number],
            score=belief.score,
            score_std=belief.score_std,
            noise_std=_noise_of_one_run(belief),
        )
        for number, belief in believed.items()
        if belief is not None
    }


def _noise_of_one_run(belief: Belief) -> float:
    """The standard deviation of single runs, by the interval in which the belief expects another one."""
    deviation = (belief.high - belief.low) / (2 * DEVIATIONS_95)
    return math.sqrt(max(deviation**2 - belief.score_std**2, 0.0))


def _ranks(values: Array) -> Array:
    """The rank of each value, from 0; equal values share the mean of theirs."""
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[indices]


def _slices(protein: Protein, space: Space, best: Observation) -> dict[str, Slice]:
    values = {parameter.path: _grid(parameter) for parameter in space.parameters}
    asked = [{**best.params, path: value} for path, grid in values.items() for value in grid]
    answers = iter(protein.predict_all(asked))
    return {path: Slice(grid, [next(answers) for _ in grid]) for path, grid in values.items()}


def _grid(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Categorical):
        return list(parameter.choices)
    positions = np.linspace(0.0, 1.0, SLICE_POINTS)
    return sorted({parameter.decode(np.array([position])) for position in positions})


def _forecasts(state: SweepState, expected: dict[int, Prediction]) -> Forecasts:
    predicted = [
        (trial, trial.score or 0.0)
        for trial in state.trials
        if trial.number in expected and {"score", "score_std"} <= trial.suggestion.keys()
    ]
    suggestions = [trial.suggestion for trial, _ in predicted]
    return Forecasts(
        numbers=[trial.number for trial, _ in predicted],
        predicted=np.array([each["score"] for each in suggestions], float),
        deviations=np.array(
            [
                math.hypot(each["score_std"], expected[trial.number].noise_std)
                for each, (trial, _) in zip(suggestions, predicted, strict=True)
            ]
        ),
        noises=np.array([expected[trial.number].noise_std for trial, _ in predicted]),
        measured=np.array([score for _, score in predicted]),
        costs_predicted=np.array([each.get("cost") or math.nan for each in suggestions], float),
        costs_measured=np.array([trial.cost or math.nan for trial, _ in predicted], float),
    )


def _near(points: Array, best: int, scored: Sequence[Observation]) -> tuple[list[int], list[int]]:
    """Trials with the setting of the best one, and the trials with the nearest settings, nearest first.

    Args:
        points: [n, columns], of the scored trials.
        best: index of the best one among them.
    """
    distances = np.sqrt(((points - points[best]) ** 2).sum(axis=1))
    twins = [each.number for each, distance in zip(scored, distances, strict=True) if distance < 1e-9]
    order = [scored[i].number for i in np.argsort(distances, kind="stable")]
    return twins, [number for number in order if number not in twins][:NEIGHBOURS]


def _at_the_edge(space: Space, best: Observation, slices: dict[str, Slice], sign: float) -> dict[str, End]:
    point = space.encode(best.params)
    ends: dict[str, End] = {}
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        position = float(point[columns][0])
        if isinstance(parameter, Categorical) or AT_THE_EDGE < position < 1 - AT_THE_EDGE:
            continue
        end: End = "min" if position < 0.5 else "max"
        predictions = slices[parameter.path].predictions
        inwards = predictions if end == "min" else predictions[::-1]
        last, before = inwards[0], inwards[round(LAST_PART * (len(inwards) - 1))]
        if sign * (last.score - before.score) >= RISING * last.noise_std:
            ends[parameter.path] = end
    return ends
