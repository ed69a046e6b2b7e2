"""Protein: suggests hyperparameters that may score well for what they cost, and learns from trials."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.acquisition import log_expected_improvement, log_expected_improvement_gradient
from metta.sweep.protein.pareto import pareto_front
from metta.sweep.protein.search import ascend, local_candidates
from metta.sweep.protein.space import Space
from metta.sweep.protein.surrogate import Data, Surrogate
from metta.sweep.protein_config import ProteinConfig

Array = NDArray[np.float64]
Suggestion = tuple[dict[str, Any], dict[str, Any]]
"""Hyperparameters, nested, and what the optimiser says of them (JSON-compatible)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observation:
    """A finished trial.

    Attributes:
        number: its trial number.
        params: hyperparameters, as they were told.
        score: in the units of the metric, or None for a failure without one.
        cost: or None for a failure without one.
        is_failure: whether it failed.
    """

    number: int
    params: Mapping[str, Any]
    score: float | None
    cost: float | None
    is_failure: bool


@dataclass
class _Trial:
    number: int
    params: Mapping[str, Any]
    point: Array
    info: Mapping[str, Any] = field(default_factory=dict)
    observation: Observation | None = None


class Protein:
    """Cost-aware Bayesian optimisation.

    A suggestion is a function of the configuration, the seed, the horizon and the trials told, in the order of
    their numbers. So an optimiser can be built anew at any time and given the trials again, in any order.

    Args:
        config: what to search and how.
        seed: of all random draws; drawn once if left out, and kept in `seed`.
        num_trials, max_cost: the horizon, in trials and in cost. Near its end the optimiser looks for the best
            score whatever it costs, early on for the best score for its cost.

    Example:
        >>> from metta.sweep.protein_config import ParameterConfig
        >>> space = {"optimizer": {"learning_rate": ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal")}}
        >>> protein = Protein(ProteinConfig(metric="score", parameters=space), seed=0, num_trials=20)
        >>> for _ in range(20):
        ...     params, info = protein.suggest()
        ...     score = -abs(math.log(params["optimizer"]["learning_rate"] / 1e-3))
        ...     protein.observe(params, score=score, cost=1.0)
        >>> 8e-4 < protein.best().params["optimizer"]["learning_rate"] < 1.2e-3
        True
    """

    def __init__(
        self,
        config: ProteinConfig,
        seed: int | None = None,
        num_trials: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        if num_trials is not None and num_trials < 1:
            raise ValueError(f"num_trials must be at least 1, not {num_trials}")
        if max_cost is not None and not (math.isfinite(max_cost) and max_cost > 0):
            raise ValueError(f"max_cost must be a positive number, not {max_cost}")
        self.config = config
        self.seed = secrets.randbits(32) if seed is None else seed
        self.num_trials = num_trials
        self.max_cost = max_cost
        self._space = Space(config.parameters)
        self._sign = 1.0 if config.goal == "maximize" else -1.0
        self._trials: dict[int, _Trial] = {}

    # What is told

    def observe(
        self,
        params: Mapping[str, Any],
        score: float | None,
        cost: float | None,
        is_failure: bool = False,
        *,
        number: int | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell a finished trial.

        Args:
            params: nested or flat with dotted keys; may come from anywhere and lie outside the bounds.
            score: the metric as measured. NaN and infinities are failures.
            cost: in any unit, the same for all trials; not negative.
            is_failure: the trial failed; score and cost may then be None.
            number: of the trial. Left out, it is that of the outstanding suggestion with the same
                hyperparameters, or the next number.
            info: what `suggest` said of these hyperparameters, for a trial that it did not suggest to this object.

        Raises:
            SpaceError: hyperparameters that the space cannot place.
            ValueError: a score or cost that is no number, or is missing without a failure.
        """
        point = self._space.encode(params)
        score, cost = _number("score", score), _number("cost", cost)
        if score is not None and not math.isfinite(score):
            log.warning("a score of %s counts as a failure", score)
            score, is_failure = None, True
        if cost is not None and not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a finite number of at least 0, not {cost}")
        if not is_failure and (score is None or cost is None):
            raise ValueError(f"{'score' if score is None else 'cost'} is missing, and the trial did not fail")
        trial = self._enter(params, point, number, info)
        trial.observation = Observation(trial.number, params, score, cost, is_failure)

    def suggested(self, number: int, params: Mapping[str, Any], info: Mapping[str, Any] | None = None) -> None:
        """Tell that a trial is outstanding: suggested or running, and not finished.

        Suggestions of this object need not be told.

        Args:
            number: of the trial.
            params: nested or flat with dotted keys.
            info: what `suggest` said of them.
        """
        self._enter(params, self._space.encode(params), number, info).observation = None

    def forget(self, number: int) -> None:
        """Forget a suggestion or an observation.

        Raises:
            KeyError: no trial has this number.
        """
        if number not in self._trials:
            raise KeyError(f"no trial {number}")
        del self._trials[number]

    def _enter(
        self, params: Mapping[str, Any], point: Array, number: int | None, info: Mapping[str, Any] | None
    ) -> _Trial:
        twin = next(
            (t for _, t in sorted(self._trials.items()) if not t.observation and np.array_equal(t.point, point)), None
        )
        if number is None:
            number = twin.number if twin else self._next_number
        if twin and number not in self._trials:
            del self._trials[twin.number]
            info = twin.info if info is None else info
        if info is None:
            info = self._trials[number].info if number in self._trials else {}
        self._trials[number] = _Trial(number, dict(params), point, info)
        return self._trials[number]

    @property
    def _next_number(self) -> int:
        return max(self._trials, default=-1) + 1

    # What is asked

    @overload
    def suggest(self, n: None = None) -> Suggestion: ...

    @overload
    def suggest(self, n: int) -> list[Suggestion]: ...

    def suggest(self, n: int | None = None) -> Suggestion | list[Suggestion]:
        """Suggest hyperparameters for the next trial, or for the next `n`.

        What is suggested is outstanding, and shapes later suggestions, until it is observed or forgotten.

        Returns:
            The hyperparameters in the nested shape of `config.parameters`, and what is said of them:
            `number` (the trial's), `source` ("search centre", "random" or "model"), and for a model's
            suggestion `score` and `score_std` (predicted), `cost` (predicted), `success` (probability),
            `acquisition` (its value), `pareto_point` (number of the trial it grew from, or None) and `model`
            (where the next fit starts).
        """
        if n is None:
            return self._suggest_one()
        return [self._suggest_one() for _ in range(n)]

    def _suggest_one(self) -> Suggestion:
        number = self._next_number
        rng = np.random.default_rng([self.seed, number])
        point, info = self._choose(rng)
        info = {"number": number, **info}
        params = self._space.decode(point)
        self._trials[number] = _Trial(number, params, self._space.encode(params), info)
        return params, info

    def _choose(self, rng: np.random.Generator) -> tuple[Array, dict[str, Any]]:
        settings = self.config.settings
        started = len(self._trials)
        if started == 0 and settings.seed_with_search_center:
            return self._space.centre, {"source": "search centre"}
        if started < settings.num_random_samples + settings.seed_with_search_center:
            return self._quasi_random(started), {"source": "random"}
        data, pending = self._data()
        if np.isnan(data.scores).all():
            return self._quasi_random(started), {"source": "random", "fallback": "no trial has a score yet"}
        return self._from_model(data, pending, rng)

    def _quasi_random(self, index: int) -> Array:
        shift = np.random.default_rng(self.seed).random(self._space.dimension)
        return np.asarray(self._space.quasi_random([index], shift)[0])

    def _data(self) -> tuple[Data, Array]:
        """Finished trials, and the points [n, columns] of outstanding ones, in the order of trial numbers."""
        trials = [trial for _, trial in sorted(self._trials.items())]
        done = [(t.point, t.observation) for t in trials if t.observation]
        pending = [t.point for t in trials if not t.observation]
        nan = math.nan
        data = Data(
            np.array([point for point, _ in done]).reshape(-1, self._space.columns),
            np.array([nan if o.score is None or o.is_failure else self._sign * o.score for _, o in done]),
            np.array([nan if o.cost is None else o.cost for _, o in done]),
            np.array([o.is_failure for _, o in done], dtype=bool),
        )
        return data, np.array(pending).reshape(-1, self._space.columns)

    @property
    def _progress(self) -> float:
        """Share of the horizon that is used up, 0..1."""
        shares = [len(self._trials) / (self.num_trials or 100)]
        if self.max_cost is not None:
            spent = sum(t.observation.cost or 0.0 for t in self._trials.values() if t.observation)
            shares = [spent / self.max_cost] + (shares if self.num_trials else [])
        return min(1.0, max(shares))

    def _from_model(self, data: Data, pending: Array, rng: np.random.Generator) -> tuple[Array, dict[str, Any]]:
        settings, space = self.config.settings, self._space
        surrogate = Surrogate(space, data, self._kernels(), max_steps=10)
        score_model = surrogate.score.with_fantasies(pending)
        best, weight = surrogate.best_normal, 1.0 - self._progress

        def acquisition(points: Array) -> Array:
            mean, variance = score_model.predict(points)
            value = log_expected_improvement(mean, variance, best) + surrogate.log_success(points)
            return np.asarray(value - weight * surrogate.log_cost(points))

        def acquisition_with_gradient(points: Array) -> tuple[Array, Array]:
            value, gradient = log_expected_improvement_gradient(*score_model.predict_with_gradients(points), best)
            log_cost, cost_gradient = surrogate.log_cost_with_gradient(points)
            return value - weight * log_cost, gradient - weight * cost_gradient

        known = [n for n, t in sorted(self._trials.items()) if t.observation]
        front = pareto_front(np.nan_to_num(data.scores, nan=-np.inf), np.nan_to_num(data.costs, nan=np.inf))[-8:]
        centres = np.clip(data.points[front], 0.0, 1.0)
        local = local_candidates(space, centres, settings.suggestions_per_pareto, settings.global_search_scale, rng)
        everywhere = space.place(rng.random((settings.random_suggestions, space.dimension)))
        candidates = np.vstack([everywhere, local])
        grown = np.concatenate([np.full(len(everywhere), -1), np.repeat(front, settings.suggestions_per_pareto)])
        values = acquisition(candidates)
        starts = np.argsort(-values, kind="stable")[:4]
        refined = ascend(space, candidates[starts], acquisition_with_gradient, max_steps=20)
        candidates, grown = np.vstack([refined, candidates]), np.concatenate([grown[starts], grown])
        values = np.concatenate([acquisition(refined), values])
        chosen = self._first_new(candidates, np.argsort(-values, kind="stable"), np.vstack([data.points, pending]))
        point = candidates[chosen]
        score, deviation = surrogate.predict_score(point[None])
        return point, {
            "source": "model",
            "score": self._sign * float(score[0]),
            "score_std": float(deviation[0]),
            "cost": float(np.exp(surrogate.log_cost(point[None]))[0]) if surrogate.cost else None,
            "success": float(np.exp(surrogate.log_success(point[None]))[0]),
            "acquisition": float(values[chosen]),
            "pareto_point": None if grown[chosen] < 0 else known[grown[chosen]],
            "model": surrogate.kernels,
        }

    @staticmethod
    def _first_new(candidates: Array, order: NDArray[np.intp], known: Array) -> int:
        """The first candidate in order that was not tried, or the very first if all were."""
        tried = {point.tobytes() for point in known.round(9)}
        return int(next((i for i in order if candidates[i].round(9).tobytes() not in tried), order[0]))

    def _kernels(self) -> dict[str, list[float]]:
        """Kernel parameters that the last model suggestion left."""
        for _, trial in sorted(self._trials.items(), reverse=True):
            if "model" in trial.info:
                return dict(trial.info["model"])
        return {}

    # What is known

    @property
    def observations(self) -> list[Observation]:
        """Finished trials, in the order of their numbers."""
        return [t.observation for _, t in sorted(self._trials.items()) if t.observation]

    def pareto_front(self) -> list[Observation]:
        """Observations that no other beats in score at no more cost, from cheap to dear."""
        scored = [o for o in self.observations if o.score is not None and o.cost is not None and not o.is_failure]
        scores = np.array([self._sign * o.score for o in scored if o.score is not None])
        costs = np.array([o.cost for o in scored if o.cost is not None])
        return [scored[i] for i in pareto_front(scores, costs)]

    def best(self, max_cost: float | None = None) -> Observation:
        """The observation whose true score the model believes highest, rather than the luckiest draw.

        Args:
            max_cost: only observations that cost no more.

        Raises:
            LookupError: no observation has a score at such a cost.
        """
        scored = [
            o
            for o in self.observations
            if not o.is_failure and (max_cost is None or (o.cost is not None and o.cost <= max_cost))
        ]
        if not scored:
            raise LookupError("no trial has a score" + ("" if max_cost is None else f" at a cost up to {max_cost:g}"))
        data, _ = self._data()
        surrogate = Surrogate(self._space, data, self._kernels(), max_steps=0)
        means = surrogate.score.mean(np.array([self._trials[o.number].point for o in scored]))
        return scored[int(np.argmax(means))]


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(value)
