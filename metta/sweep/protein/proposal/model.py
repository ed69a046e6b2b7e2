"""Where the model expects most."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.choosing import cautious_order
from metta.sweep.protein.gaussian_process import GaussianProcess
from metta.sweep.protein.history import History, point_key
from metta.sweep.protein.proposal.first import random_proposal
from metta.sweep.protein.proposal.rule import Proposal
from metta.sweep.protein.proposal.untried import untried
from metta.sweep.protein.search import ascend, local_candidates
from metta.sweep.protein.surrogate import MANY_POINTS, SMALLEST, Surrogate, exp

Array = NDArray[np.float64]

MAX_CENTRES = 8
"""Trials of the Pareto front, from the expensive end, that are searched round. Set by the time of a suggestion."""
ASCENTS, ASCENT_STEPS = 4, 8
"""How many of the best candidates are refined, and by how many steps. Set by the time of a suggestion; regret was
measured on `benchmarks/optimizers`, see docs/benchmarks.md."""
MIN_FIT_INTERVAL, MAX_FIT_INTERVAL = 3, 10
"""Trials between two fits of a kernel after many observations; set by the time of a suggestion, see docs/benchmarks.md,
"Speed"."""
MAX_COVARIANCES, MIN_CANDIDATES = 32_000, 128
"""Covariances of candidates with observations that a suggestion may compute for each model of the score, and the least
number of candidates: past 20 observations there are fewer than configured, and past 250 this number. Set by the time of
a suggestion, see docs/benchmarks.md, "Speed"."""
RANDOM_SHARE = 0.15
CANDIDATES_PER_CONFIGURATION, MIN_CURVE_CANDIDATES, MAX_CURVE_CANDIDATES = 0.4, 2, 200
"""With curves: the share of suggestions that are random, and from how many candidates the others are chosen. After ten
whole runs a model of a reinforcement learning task ranks configurations hardly better than chance, and the best of many
candidates is where it errs most. So there are few, and their number grows with what is known. Tuned on
`benchmarks/curves` (its tuned-on tables) as part of the whole policy."""
LEAST_OF_EACH_LEFT, DEAREST, DRAWN_FOR_COST = 0.5, 0.75, 256
"""Where `num_trials` would end the sweep before its budget: the least expected cost of a candidate, as a share of what
the budget has for each trial that is left, but never above this quantile of so many random points. Measured on
`benchmarks/optimizers`, see docs/benchmarks.md; the numbers are round."""
LONGER_BEST, LONGER_EACH = 2, 2
"""Where the length of a run is searched: so many of the best configurations are candidates with so many longer runs
each. Chosen by hand; that they help was measured, see docs/benchmarks.md, "Runs of other lengths"."""
_DRAW_RANDOM = 13


class Acquisition(Protocol):
    """What points [n, columns] promise; higher is better."""

    def __call__(self, points: Array) -> Array: ...

    def with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Values [n] and gradients [n, columns]."""
        ...


MakeAcquisition = Callable[[History, Surrogate, Sequence[GaussianProcess]], Acquisition]
"""From the history, its models, and the models of the score with outstanding trials as if they had ended."""


class RandomShare:
    """Applies with curves, to a share of suggestions that the seed draws: they test what the model believes."""

    def __call__(self, history: History) -> Proposal | None:
        search = history.search
        if not search.learns_curves or search.random_draw(_DRAW_RANDOM, history.next_number) >= RANDOM_SHARE:
            return None
        return random_proposal(history, "a share of suggestions is random")


class FromCurves:
    """Applies with curves until the model has shown that it predicts: the best of a few random candidates, by a model
    that learns from stopped runs too.

    Args:
        acquisition: what is maximised.
    """

    def __init__(self, acquisition: MakeAcquisition) -> None:
        self._acquisition = acquisition

    def __call__(self, history: History) -> Proposal | None:
        search, data = history.search, history.data
        if not search.learns_curves or history.model_predicts:
            return None
        rng = np.random.default_rng([search.seed, history.next_number])
        surrogate = history.curve_surrogate(_fit_steps(history.next_number, len(data.scores)))
        acquisition = self._acquisition(history, surrogate, [surrogate.score.with_fantasies(history.pending)])
        wanted = int(CANDIDATES_PER_CONFIGURATION * len(data.scores))
        wanted = min(max(wanted, MIN_CURVE_CANDIDATES), MAX_CURVE_CANDIDATES)
        candidates, origins = _few_candidates(history, surrogate, wanted, rng)
        return _best_of(history, surrogate, acquisition, candidates, acquisition(candidates), origins)


def _few_candidates(
    history: History, surrogate: Surrogate, wanted: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.intp]]:
    """Random points, and longer runs of the best; with the row of `data` that each grew from, or -1."""
    points, (longer, origins) = _random(history, surrogate, wanted, rng), _longer(history, surrogate, rng)
    return np.vstack([points, longer]), np.concatenate([np.full(len(points), -1), origins])


def _longer(history: History, surrogate: Surrogate, rng: np.random.Generator) -> tuple[Array, NDArray[np.intp]]:
    """The best configurations with longer runs, where the length of a run is searched; and the row of each in `data`.

    Good hyperparameters are often good for longer runs too, and random points hardly ever have them again.
    """
    space, length, known = history.search.space, history.run_length, history.evidence.known
    if length is None or known is None:
        return np.empty((0, space.columns)), np.empty(0, dtype=np.intp)
    rows = np.flatnonzero(known.wholes[surrogate.rows])
    mean, variance = (column[rows] for column in surrogate.score.at_observations())
    best = surrogate.rows[rows[cautious_order(mean, variance)[:LONGER_BEST]]]
    origins = np.repeat(best, LONGER_EACH)
    points = space.snap(length.lengthened(known.data.points[origins], rng.random(len(origins))))
    allowed = space.allows(points)
    return points[allowed], origins[allowed]


def _random(history: History, surrogate: Surrogate, wanted: int, rng: np.random.Generator) -> Array:
    """Random points; where `num_trials` would end the sweep before its budget, of those that use the budget."""
    space, budget = history.search.space, history.budget
    if not (budget.limited and budget.trials_are_scarce):
        return space.random(wanted, rng)
    points = space.random(DRAWN_FOR_COST, rng)
    costs = surrogate.log_cost(points)
    enough = math.log(max(LEAST_OF_EACH_LEFT * budget.each_left, SMALLEST))
    return points[costs >= min(enough, float(np.quantile(costs, DEAREST)))][:wanted]


class FromModel:
    """Applies otherwise: the best of many candidates, from everywhere and round the Pareto front, refined.

    Args:
        acquisition: what is maximised.
    """

    def __init__(self, acquisition: MakeAcquisition) -> None:
        self._acquisition = acquisition

    def __call__(self, history: History) -> Proposal | None:
        search, data, number = history.search, history.measured, history.next_number
        space = search.space
        rng = np.random.default_rng([search.seed, number])
        steps = _fit_steps(number, len(data.scores))
        shorter = history.shorter.measured if search.learns_curves and history.shorter else None
        surrogate = Surrogate(space, data, history.kernels, steps, rng, history.budget.limited, shorter=shorter)
        # What outstanding trials are expected to reach is to be improved on; otherwise all would crowd round the first
        scores = [model.with_fantasies(history.pending) for model in surrogate.draws]
        acquisition = self._acquisition(history, surrogate, scores)
        candidates, origins = _candidates(history, len(surrogate.score.points), rng)
        if search.learns_curves:
            longer, grown = _longer(history, history.surrogate, rng)
            candidates, origins = np.vstack([candidates, longer]), np.concatenate([origins, grown])
        values = acquisition(candidates)
        starts = np.argsort(-values, kind="stable")[:ASCENTS]
        lengths = surrogate.score.kernel.lengths
        refined = ascend(space, candidates[starts], acquisition.with_gradient, lengths, ASCENT_STEPS)
        allowed = space.allows(refined)
        candidates = np.vstack([refined[allowed], candidates])
        origins = np.concatenate([origins[starts][allowed], origins])
        values = np.concatenate([acquisition(refined)[allowed], values])
        if search.learns_curves:  # what is believed of trials, and whether that predicts, needs this kernel too
            surrogate.kernels |= history.curve_surrogate(steps).kernels
        return _best_of(history, surrogate, acquisition, candidates, values, origins)


def _fit_steps(number: int, observations: int) -> dict[str, int]:
    """Steps of each model's fit: fewer, by turns and less often, the more is known."""
    others = "success" if number % 4 == 3 else "cost" if number % 2 == 0 else ""
    if observations < 2 * MANY_POINTS:
        steps = 20 if observations <= MANY_POINTS else 5
        return {"score": steps, "normal score": steps, others: steps}
    turn, rest = divmod(number, min(max(observations // MANY_POINTS, MIN_FIT_INTERVAL), MAX_FIT_INTERVAL))
    turns = (("score", "normal score"), ("cost",), ("score", "normal score"), ("success",))
    return dict.fromkeys(turns[turn % 4], 5) if rest == 0 else {}


def _candidates(history: History, observations: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.intp]]:
    """Points from everywhere and round the Pareto front, and the row of `data` that each was drawn round, or -1."""
    settings, space, data = history.search.settings, history.search.space, history.data
    front = history.front[-MAX_CENTRES:]
    wanted = settings.random_suggestions + len(front) * settings.suggestions_per_pareto
    share = min(1.0, max(MAX_COVARIANCES / observations, MIN_CANDIDATES) / wanted)
    each, anywhere = (math.ceil(share * n) for n in (settings.suggestions_per_pareto, settings.random_suggestions))
    local = local_candidates(space, space.snap(data.points[front]), each, settings.global_search_scale, rng)
    everywhere = space.random(anywhere, rng)
    allowed = space.allows(local)
    origins = np.concatenate([np.full(len(everywhere), -1), np.repeat(front, each)[allowed]])
    return np.vstack([everywhere, local[allowed]]), origins


def _best_of(
    history: History,
    surrogate: Surrogate,
    acquisition: Acquisition,
    candidates: Array,
    values: Array,
    origins: NDArray[np.intp] | None = None,
) -> Proposal:
    """The candidate with the highest value that was not tried, and what the models expect of it.

    Where all candidates were tried, any untried point of the space is a candidate.
    """
    chosen = _first_new(candidates, values, history.tried)
    if chosen is None and len(left := untried(history)):
        candidates, values, origins = left, acquisition(left), None
    if chosen is None:
        chosen = int(np.argmax(values))
    origin = -1 if origins is None else int(origins[chosen])
    info = _expectations(surrogate, candidates[chosen], history.search.sign) | {
        "acquisition": float(values[chosen]),
        "pareto_point": None if origin < 0 else int(history.numbers[origin]),
        "model": surrogate.kernels,
    }
    return Proposal(candidates[chosen], info)


def _expectations(surrogate: Surrogate, point: Array, sign: float) -> dict[str, Any]:
    score, deviation = surrogate.predict_score(point[None])
    return {
        "source": "model",
        "score": sign * float(score[0]),
        "score_std": float(deviation[0]),
        "cost": float(exp(surrogate.log_cost(point[None]))[0]) if surrogate.cost else None,
        "success": float(np.exp(surrogate.log_success(point[None]))[0]),
    }


def _first_new(candidates: Array, values: Array, tried: Collection[bytes]) -> int | None:
    """The candidate with the highest value that was not tried; None if all were."""
    order = np.argsort(-values, kind="stable")
    return next((int(i) for i in order if point_key(candidates[i]) not in tried), None)
