"""Protein: suggests hyperparameters that may score well for what they cost, and learns from trials."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, overload

import numpy as np
from numpy.typing import NDArray

from metta.common.plain import copied, plain_float
from metta.sweep.protein.acquisition import Acquisition
from metta.sweep.protein.budget import spent
from metta.sweep.protein.choosing import best_probabilities, cautious_best, repeat_gains
from metta.sweep.protein.curves import Curve, CurvePoint, Standardised
from metta.sweep.protein.design import cheap_point
from metta.sweep.protein.evidence import Evidence, Known, Run, half_width
from metta.sweep.protein.pareto import pareto_front
from metta.sweep.protein.search import ascend, local_candidates
from metta.sweep.protein.space import Space
from metta.sweep.protein.stopping import Asked, decide, passed, rungs
from metta.sweep.protein.surrogate import (
    MANY_POINTS,
    MAX_MODEL_POINTS,
    SMALLEST,
    Data,
    Surrogate,
    exp,
    log_costs,
    total_effects,
)
from metta.sweep.protein.threads import on_one_thread
from metta.sweep.protein.types import Decision, Importance, Observation, Prediction, Rule, Standing
from metta.sweep.protein_config import ProteinConfig

Array = NDArray[np.float64]
Suggestion = tuple[dict[str, Any], dict[str, Any]]
"""Hyperparameters, nested, and what the optimiser says of them (JSON-compatible)."""

MAX_CENTRES = 8
ASCENTS = 4
ASCENT_STEPS = 8
MIN_FIT_INTERVAL, MAX_FIT_INTERVAL = 3, 10
MAX_COVARIANCES, MIN_CANDIDATES = 32_000, 128
"""Covariances of candidates with observations, in each model of the score, that a suggestion may take, unless that were
too few candidates: past 20 observations there are fewer than asked for, and past 250 as few as there may be."""
IMPORTANCE_SAMPLES = 512
FIRST_TRIALS, FIRST_CHEAP_TRIALS = 4, 24
FIRST_SHARE = 0.1
"""Before there is a model: as many trials as the first number, and within a budget cheap ones up to the second number,
while they have not taken this share of it."""
TRIAL_SHARE_LEFT, TRIAL_SHARE = 0.25, 0.1
"""A trial should cost no more than this share of what is left of the budget, or of all of it."""
RANDOM_SHARE = 0.15
CANDIDATES_PER_CONFIGURATION, MIN_CURVE_CANDIDATES, MAX_CURVE_CANDIDATES = 0.4, 2, 200
"""With curves: the share of suggestions that are random, and from how many candidates the others are chosen. After ten
whole runs a model of a reinforcement learning task ranks configurations hardly better than chance, and the best of many
candidates is where it errs most. So there are few, and more the more is known."""
EXEMPT_SHARE = 0.03
"""The share of trials that are never stopped, so that all kinds of runs show how early values tell the end."""
REPEAT_SHARE, REPEATS_AFTER, MIN_GAIN = 0.35, 6.0, 0.03
"""Repeats take at most this share of the cost, there are none before so many whole runs were spent, and each must be
expected to raise the expectation of the best by so many standard deviations of the scores."""
_DRAW_EXEMPT, _DRAW_TIE, _DRAW_RANDOM, _DRAW_BEST = 11, 12, 13, 14

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trial:
    number: int
    params: Mapping[str, Any]
    point: Array
    info: Mapping[str, Any] = field(default_factory=dict)
    observation: Observation | None = None
    curve: Curve | None = None
    repeat_of: int | None = None
    run: Run | None = None


class Protein:
    """Cost-aware Bayesian optimisation.

    A suggestion is a function of the configuration, the seed, the horizon and the trials told, in the order of
    their numbers. So an optimiser can be built anew at any time and given the trials again, in any order.

    Args:
        config: what to search and how.
        seed: of all random draws; drawn once if left out, and kept in `seed`.
        num_trials: how many trials there will be at most, so that a budget that outlasts them is not saved for
            nothing. Without `max_cost`, trials are what is scarce, each looks for the best score whatever it costs,
            and how many are left changes nothing.
        max_cost: what all trials together may cost. With it, the first trials are cheap ones, the next look for
            the best score for its cost, and the last for the best score that what is left can pay for.
        early_stopping: the rule by which `decide` stops trials; see `metta.sweep.protein.stopping`.
        min_share: no trial is stopped before this share of a whole run, nor before its first report.
        repeats: whether `suggest` may repeat a promising configuration with another seed.

    With `early_stopping` or `repeats` the optimiser learns from curves: the model of the score is one of normal scores
    of configurations, in which whole runs, repeats and stopped runs count for what they tell.

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
        *,
        early_stopping: Rule = "off",
        min_share: float = 0.04,
        repeats: bool = False,
    ) -> None:
        if early_stopping not in get_args(Rule):
            raise ValueError(f"early_stopping must be one of {', '.join(get_args(Rule))}, not {early_stopping!r}")
        if not 0 < min_share < 1:
            raise ValueError(f"min_share must lie between 0 and 1, not {min_share}")
        if num_trials is not None and num_trials < 1:
            raise ValueError(f"num_trials must be at least 1, not {num_trials}")
        if max_cost is not None and not (math.isfinite(max_cost) and max_cost > 0):
            raise ValueError(f"max_cost must be a positive number, not {max_cost}")
        self.config = config
        self.seed = secrets.randbits(32) if seed is None else seed
        self.num_trials = num_trials
        self.max_cost = max_cost
        self.early_stopping: Rule = early_stopping
        self.min_share, self.repeats = min_share, repeats
        self._space = Space(config.parameters, config.constraints)
        self._sign = 1.0 if config.goal == "maximize" else -1.0
        self._trials: dict[int, _Trial] = {}
        self._outstanding: set[int] = set()
        self._known: Surrogate | None = None
        self._evidence: Evidence | None = None

    # What is told

    def observe(
        self,
        params: Mapping[str, Any],
        score: float | None,
        cost: float | None,
        is_failure: bool = False,
        *,
        noise: float | None = None,
        number: int | None = None,
        info: Mapping[str, Any] | None = None,
        curve: Sequence[CurvePoint] | None = None,
        total_steps: float | None = None,
        stopped: bool = False,
        repeat_of: int | None = None,
    ) -> None:
        """Tell a finished trial.

        Args:
            params: nested or flat with dotted keys; may come from anywhere and lie outside the bounds.
            score: the metric as measured. NaN and infinities are failures.
            cost: in any unit, the same for all trials; not negative. None where it is not known: the trial then
                teaches its score only, and counts towards `max_cost` as the median of the known costs.
            is_failure: the trial failed; the score may then be None.
            noise: standard error of the score, in its units, where it was measured: of a mean over seeds or episodes,
                say. Scores that are known to be unsure count for less.
            number: of the trial. Left out, it is that of the outstanding suggestion with the same
                hyperparameters, or the next number.
            info: what `suggest` said of these hyperparameters, for a trial that it did not suggest to this object.
            curve: what the trial reported: steps, the cost of the trial until then, and values of the metric. Left out,
                it is what `decide` or `suggested` was last given.
            total_steps: steps of a whole run of this trial; the last step if left out.
            stopped: it was stopped early. Its score may then be None, and is not one of a whole run.
            repeat_of: number of the trial whose hyperparameters it repeats, as `suggest` said; left out, it is what
                `info` says.

        Raises:
            SpaceError: hyperparameters that the space cannot place.
            ValueError: a score, cost or noise that is no such number, a score that is missing without a failure, or a
                curve whose steps do not increase.
        """
        point = self._space.encode(params)
        score, cost, noise = _number("score", score), _number("cost", cost), _number("noise", noise)
        if score is not None and not math.isfinite(score):
            log.warning("a score of %s counts as a failure", score)
            score, is_failure = None, True
        for name, value in (("cost", cost), ("noise", noise)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
        if not is_failure and not stopped and score is None:
            raise ValueError("score is missing, and the trial did not fail")
        shown = None if curve is None else Curve.of(curve, total_steps, self._sign)
        trial = self._enter(params, point, number, info, shown, repeat_of)
        stopped = stopped and not is_failure
        trial.run = None
        trial.observation = Observation(
            trial.number, trial.params, score, cost, is_failure, noise, stopped, trial.repeat_of
        )
        self._outstanding.remove(trial.number)

    def learn(
        self, observation: Observation, point: Array, info: Mapping[str, Any], curve: Curve | None = None
    ) -> None:
        """Take in an observation that was checked already, as `observe` would check it.

        Args:
            observation: is kept as it is.
            point: where the space places its hyperparameters, [columns].
            info: what `suggest` said of them; is kept as it is.
            curve: what the trial reported; left out, what `decide` was last given.
        """
        number, before = observation.number, self._trials.get(observation.number)
        if before is None and (twin := self._outstanding_at(point)):
            self.forget(twin.number)
        if curve is None and before is not None:
            curve = before.curve
        self._trials[number] = _Trial(
            number, observation.params, point, info, observation, curve, observation.repeat_of
        )
        self._outstanding.discard(number)
        self._known = self._evidence = None

    def suggested(
        self,
        number: int,
        params: Mapping[str, Any],
        info: Mapping[str, Any] | None = None,
        *,
        curve: Sequence[CurvePoint] | None = None,
        total_steps: float | None = None,
        repeat_of: int | None = None,
    ) -> None:
        """Tell that a trial is outstanding: suggested or running, and not finished.

        Suggestions of this object need not be told, and curves that were given to `decide` neither.

        Args:
            number: of the trial.
            params: nested or flat with dotted keys.
            info: what `suggest` said of them.
            curve, total_steps, repeat_of: as for `observe`.
        """
        shown = None if curve is None else Curve.of(curve, total_steps, self._sign)
        self._enter(params, self._space.encode(params), number, info, shown, repeat_of)

    def decide(self, number: int, curve: Sequence[CurvePoint], total_steps: float) -> Decision:
        """Tell what an outstanding trial has reported so far, and ask whether it goes on.

        The answer is a function of the settings, the seed and what was told of all trials until then. A trial is asked
        of when it passes a rung, once; between rungs it goes on.

        Args:
            number: of the trial.
            curve: all its points so far, the newest last.
            total_steps: steps of a whole run of this trial.

        Raises:
            KeyError: no outstanding trial has this number.
            ValueError: a curve whose steps do not increase.
        """
        if number not in self._outstanding:
            raise KeyError(f"no outstanding trial {number}")
        trial = self._trials[number]
        before = trial.curve.share if trial.curve else 0.0
        trial.curve, trial.run = (shown := Curve.of(curve, total_steps, self._sign)), None
        shares = rungs(self.early_stopping, self.min_share, number)
        share = passed(shares, before, shown.share)
        if share is None:
            return Decision(True, "no rung passed")
        self._evidence = None
        if trial.repeat_of is not None:
            return Decision(True, f"it repeats trial {trial.repeat_of}, so it is not stopped", share)
        if self.early_stopping == "protein" and self._random_draw(_DRAW_EXEMPT, number) < EXEMPT_SHARE:
            return Decision(True, "drawn to go on regardless, to learn how early values tell the end", share)
        draw = self._random_draw(_DRAW_TIE, number, round(share * 1e6))
        value = shown.at(share)
        assert value is not None
        asked = Asked(number, value, float(shown.values.max()), draw, passed(shares, 0.0, before))
        scarce = self.num_trials is not None and self.max_cost is None
        return decide(self.early_stopping, share, self.min_share, asked, self._known_runs(), scarce)

    def _random_draw(self, *key: int) -> float:
        """A number in 0..1 that the seed and a key determine."""
        return float(np.random.default_rng([self.seed, *key]).random())

    def forget(self, number: int, missing_ok: bool = False) -> None:
        """Forget a suggestion or an observation.

        Raises:
            KeyError: no trial has this number, and that is not `missing_ok`.
        """
        if number not in self._trials and missing_ok:
            return
        if number not in self._trials:
            raise KeyError(f"no trial {number}")
        del self._trials[number]
        self._outstanding.discard(number)
        self._known = self._evidence = None

    def _enter(
        self,
        params: Mapping[str, Any],
        point: Array,
        number: int | None,
        info: Mapping[str, Any] | None,
        curve: Curve | None = None,
        repeat_of: int | None = None,
    ) -> _Trial:
        twin = None if number in self._trials else self._outstanding_at(point)
        if number is None:
            number = twin.number if twin else self._next_number
        if twin:
            self.forget(twin.number)
        before = twin or self._trials.get(number)
        if before:
            info = before.info if info is None else info
            curve = before.curve if curve is None else curve
            repeat_of = before.repeat_of if repeat_of is None else repeat_of
        info = copied(dict(info or {}))
        repeat_of = info.get("repeat_of") if repeat_of is None else repeat_of
        return self._note(_Trial(number, copied(dict(params)), point, info, None, curve, repeat_of))

    def _note(self, trial: _Trial) -> _Trial:
        self._trials[trial.number] = trial
        self._outstanding.add(trial.number)
        self._known = self._evidence = None
        return trial

    def _outstanding_at(self, point: Array) -> _Trial | None:
        """The first outstanding trial with these hyperparameters."""
        outstanding = (self._trials[number] for number in sorted(self._outstanding))
        return next((trial for trial in outstanding if np.array_equal(trial.point, point)), None)

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
            (where the next fit starts). A repeat has `source` "repeat", `repeat_of` (the number of the trial whose
            hyperparameters it has, to be run with another seed) and `reason`.
        """
        if n is None:
            return self._suggest_one()
        return [self._suggest_one() for _ in range(n)]

    @on_one_thread
    def _suggest_one(self) -> Suggestion:
        number = self._next_number
        again, info = self._repeat() if self.repeats else (None, {})
        if again is not None:
            info = {"number": number, **info}
            self._note(_Trial(number, again.params, again.point, info, repeat_of=again.number))
            return self._space.nested(again.params), info
        point, info = self._choose(number)
        info = {"number": number, **info}
        params = self._space.decode(point)
        self._note(_Trial(number, copied(params), self._space.encode(params), copied(info)))
        return params, info

    def _repeat(self) -> tuple[_Trial | None, dict[str, Any]]:
        """The configuration whose mean is most worth knowing better, if any, and why."""
        evidence = self._known_runs()
        known = evidence.known
        running = {self._trials[n].repeat_of for n in self._outstanding} - {None}
        if evidence.whole_runs < REPEATS_AFTER or known is None or evidence.noiseless:
            return None, {}
        if evidence.repeat_runs + len(running) >= REPEAT_SHARE * evidence.whole_runs:
            return None, {}
        whole = np.flatnonzero(known.wholes)
        try:
            score = self._surrogate().score
        except np.linalg.LinAlgError:
            return None, {}
        mean, variance = score.at_observations()
        rows = _rows(known)[whole]
        noise = float(np.mean(score.errors[rows] * known.wholes[whole]))
        gains = repeat_gains(mean[rows], variance[rows], noise)
        gains[[int(number) in running for number in known.numbers[whole]]] = 0.0
        chosen = int(np.argmax(gains))
        if gains[chosen] < MIN_GAIN:
            return None, {}
        number, runs = int(known.numbers[whole[chosen]]), int(known.wholes[whole[chosen]])
        reason = (
            f"{runs} whole run{'s' * (runs > 1)} so far; one more raises the expected best by"
            f" {gains[chosen]:.3f} standard deviations of the scores"
        )
        return self._trials[number], {"source": "repeat", "repeat_of": number, "reason": reason}

    def _choose(self, number: int) -> tuple[Array, dict[str, Any]]:
        settings = self.config.settings
        if not self._trials and settings.seed_with_search_center:
            return self._space.centre, {"source": "search centre"}
        data, pending = self._data()
        if len(self._trials) < self._first_trials() + settings.seed_with_search_center:
            return self._random(data), {"source": "random"}
        if np.isnan(data.scores).all():
            return self._random(data), {"source": "random", "fallback": "no trial has a score yet"}
        if settings.resample_frequency and number % settings.resample_frequency == 0:
            return self._resample(data), {"source": "resample"}
        try:
            return self._from_model(number, data, pending)
        except np.linalg.LinAlgError as error:
            return self._random(data), {"source": "random", "fallback": f"the model failed: {error}"}

    def _first_trials(self) -> int:
        """How many trials come before the models, besides the search centre."""
        if self.config.settings.num_random_samples is not None:
            return self.config.settings.num_random_samples
        if self.max_cost is None or self._spent >= FIRST_SHARE * self.max_cost:
            return FIRST_TRIALS
        if self.num_trials is None:
            return FIRST_CHEAP_TRIALS
        return min(FIRST_CHEAP_TRIALS, max(FIRST_TRIALS, self.num_trials // 4))

    def _random(self, data: Data) -> Array:
        """The next of the first trials: at the cheap end where a budget makes cost scarce, else from everywhere."""
        costed = ~np.isnan(data.costs)
        shift = np.random.default_rng(self.seed).random(self._space.dimension)
        if self.max_cost is None:
            return np.asarray(self._space.quasi_random([len(self._trials)], shift)[0])
        return cheap_point(self._space, len(self._trials), data.points[costed], data.costs[costed], shift)

    def _resample(self, data: Data) -> Array:
        """The Pareto-optimal hyperparameters, within the bounds, that were tried least often; the best of those."""
        front = self._front(data)[::-1]
        points = self._space.snap(data.points[front])
        points = points[self._space.allows(points)]
        if not len(points):
            return self._random(data)
        tried = [int((np.abs(data.points - point).max(axis=1) < 1e-9).sum()) for point in points]
        return np.asarray(points[int(np.argmin(tried))])

    @property
    def _learns_curves(self) -> bool:
        return self.repeats or self.early_stopping != "off"

    def _known_runs(self) -> Evidence:
        """All trials as evidence of their configurations."""
        if self._evidence is None:
            shares = rungs(self.early_stopping, self.min_share, 0) or [self.min_share]
            self._evidence = Evidence([self._run(t) for _, t in sorted(self._trials.items())], shares)
        return self._evidence

    def _run(self, trial: _Trial) -> Run:
        """A trial as evidence, made once for each change of it."""
        if trial.run is None:
            trial.run = self._new_run(trial)
        return trial.run

    def _new_run(self, trial: _Trial) -> Run:
        seen = trial.observation
        curve = trial.curve or Curve.of([], None)
        end = last = noise = None
        if seen is not None and seen.is_whole and seen.score is not None:
            last, noise = self._sign * seen.score, seen.noise
            end = curve.end(last)
        configuration = trial.number if trial.repeat_of is None else trial.repeat_of
        failed = seen is not None and seen.is_failure
        cost = None if seen is None else seen.cost
        return Run(trial.number, configuration, trial.point, curve, end, last, noise, cost, failed, seen is not None)

    def _curve_surrogate(self, start: Mapping[str, Sequence[float]], steps: Mapping[str, int]) -> Surrogate:
        """The models of configurations.

        Raises:
            LookupError: there is no whole run yet.
        """
        evidence = self._known_runs()
        known, scale = evidence.known, evidence.scale
        if known is None or scale is None:
            raise LookupError("no trial has a score")
        targets = Standardised(scale, known.data.scores)
        noise = known.noise + known.last_noise
        return Surrogate(self._space, known.data, start, steps, scale=targets, noise=noise)

    def _data(self) -> tuple[Data, Array]:
        """Finished trials, and the points [n, columns] of outstanding ones, in the order of trial numbers.

        Where the optimiser learns from curves, these are configurations, and scores are normal scores; there are none
        before the first whole run.
        """
        trials = [trial for _, trial in sorted(self._trials.items())]
        known = self._known_runs().known if self._learns_curves else None
        if known is not None:
            running = [t.point for t in trials if not t.observation and t.repeat_of is None]
            return known.data, np.array(running).reshape(-1, self._space.columns)
        done = [(t.point, t.observation) for t in trials if t.observation]
        pending = [t.point for t in trials if not t.observation]
        nan = math.nan
        data = Data(
            np.array([point for point, _ in done]).reshape(-1, self._space.columns),
            np.array([nan if o.score is None or not o.is_whole else self._sign * o.score for _, o in done]),
            np.array([o.noise or 0.0 for _, o in done]),
            np.array([nan if o.cost is None else o.cost for _, o in done]),
            np.array([o.is_failure for _, o in done], dtype=bool),
        )
        return data, np.array(pending).reshape(-1, self._space.columns)

    @staticmethod
    def _front(data: Data) -> NDArray[np.intp]:
        """The trials to search round; one whose cost is not known only where none has a better score."""
        return pareto_front(np.nan_to_num(data.scores, nan=-np.inf), np.nan_to_num(data.costs, nan=np.inf))

    def _cost_weight(self) -> float:
        """How much cost counts: from 1 to 0 where budget or trials end, whichever is sooner; 0 without a budget."""
        if self.max_cost is None:
            return 0.0
        left = 1.0 - self._spent / self.max_cost
        if self.num_trials is not None:
            left = min(left, 1.0 - len(self._trials) / self.num_trials)
        return max(0.0, left) ** 2

    def _log_cost_limit(self, data: Data) -> float:
        """The log of what a suggestion may cost: not far beyond what was seen, and within the limits given."""
        settings, limits = self.config.settings, [math.inf]
        known = log_costs(data.costs[~np.isnan(data.costs)])
        if len(known) and np.ptp(known) > 0:
            limits.append(float(known.max() + settings.expansion_rate * np.ptp(known)))
        if settings.max_suggestion_cost is not None:
            limits.append(math.log(settings.max_suggestion_cost))
        if self.max_cost is not None:
            left = math.exp(self._log_budget())
            share = max(TRIAL_SHARE_LEFT * left, min(left, TRIAL_SHARE * self.max_cost), SMALLEST)
            limits.append(math.log(share))
        return min(limits)

    @property
    def _spent(self) -> float:
        """What all finished trials cost."""
        seen = [t.observation for _, t in sorted(self._trials.items()) if t.observation]
        costs = np.array([math.nan if o.cost is None else o.cost for o in seen])
        return spent(costs, np.array([not o.is_whole for o in seen], dtype=bool))

    @property
    def _budgeted(self) -> bool:
        return self.max_cost is not None

    def _log_budget(self) -> float:
        """The log of what is left to spend."""
        if self.max_cost is None:
            return math.inf
        left = self.max_cost - self._spent
        return math.log(max(left, 1e-6 * self.max_cost, SMALLEST))

    def _fit_steps(self, number: int, observations: int) -> dict[str, int]:
        """Steps of each model's fit: fewer, by turns and less often, the more is known."""
        others = "success" if number % 4 == 3 else "cost" if number % 2 == 0 else ""
        if observations < 2 * MANY_POINTS:
            steps = 20 if observations <= MANY_POINTS else 5
            return {"score": steps, others: steps}
        turn, rest = divmod(number, min(max(observations // MANY_POINTS, MIN_FIT_INTERVAL), MAX_FIT_INTERVAL))
        return {("score", "cost", "score", "success")[turn % 4]: 5} if rest == 0 else {}

    def _from_curves(self, number: int, data: Data, pending: Array) -> tuple[Array, dict[str, Any]]:
        """The best of a few random candidates, by a model that learns from stopped runs too."""
        if self._random_draw(_DRAW_RANDOM, number) < RANDOM_SHARE:
            return self._random(data), {"source": "random", "fallback": "a share of suggestions is random"}
        rng = np.random.default_rng([self.seed, number])
        steps = self._fit_steps(number, len(data.scores))
        surrogate = self._curve_surrogate(self._kernels(), steps)
        score = surrogate.score.with_fantasies(pending)
        acquisition = Acquisition(
            surrogate,
            [score],
            [float(np.max(score.fitted))],
            self._cost_weight(),
            self._log_cost_limit(data),
            self._log_budget(),
        )
        wanted = int(CANDIDATES_PER_CONFIGURATION * len(data.scores))
        wanted = min(max(wanted, MIN_CURVE_CANDIDATES), MAX_CURVE_CANDIDATES)
        candidates = self._space.random(wanted, rng)
        values = acquisition(candidates)
        known = np.vstack([data.points, pending])
        chosen = self._first_new(candidates, np.argsort(-values, kind="stable"), known)
        info = self._describe(surrogate, candidates[chosen])
        info |= {"acquisition": float(values[chosen]), "pareto_point": None, "model": surrogate.kernels}
        return candidates[chosen], info

    def _from_model(self, number: int, data: Data, pending: Array) -> tuple[Array, dict[str, Any]]:
        settings, space = self.config.settings, self._space
        if self._learns_curves:
            return self._from_curves(number, data, pending)
        rng = np.random.default_rng([self.seed, number])
        surrogate = Surrogate(
            space, data, self._kernels(), self._fit_steps(number, len(data.scores)), rng, self._budgeted
        )
        # What outstanding trials are expected to reach is what is to be improved on, or all would crowd round the first
        scores = [model.with_fantasies(pending) for model in surrogate.draws]
        acquisition = Acquisition(
            surrogate,
            scores,
            [float(np.max(model.fitted)) for model in scores],
            self._cost_weight(),
            self._log_cost_limit(data),
            self._log_budget(),
        )
        front = self._front(data)[-MAX_CENTRES:]
        centres = space.snap(data.points[front])
        wanted = settings.random_suggestions + len(front) * settings.suggestions_per_pareto
        share = min(1.0, max(MAX_COVARIANCES / len(surrogate.score.points), MIN_CANDIDATES) / wanted)
        each, anywhere = (math.ceil(share * n) for n in (settings.suggestions_per_pareto, settings.random_suggestions))
        local = local_candidates(space, centres, each, settings.global_search_scale, rng)
        everywhere = space.random(anywhere, rng)
        allowed = space.allows(local)
        candidates = np.vstack([everywhere, local[allowed]])
        grown = np.concatenate([np.full(len(everywhere), -1), np.repeat(front, each)[allowed]])
        values = acquisition(candidates)
        starts = np.argsort(-values, kind="stable")[:ASCENTS]
        refined = ascend(
            space, candidates[starts], acquisition.with_gradient, surrogate.score.kernel.lengths, ASCENT_STEPS
        )
        allowed = space.allows(refined)
        candidates, grown = np.vstack([refined[allowed], candidates]), np.concatenate([grown[starts][allowed], grown])
        values = np.concatenate([acquisition(refined)[allowed], values])
        chosen = self._first_new(candidates, np.argsort(-values, kind="stable"), np.vstack([data.points, pending]))
        info = self._describe(surrogate, candidates[chosen])
        known = [n for n, t in sorted(self._trials.items()) if t.observation]
        info["acquisition"] = float(values[chosen])
        info["pareto_point"] = None if grown[chosen] < 0 else known[grown[chosen]]
        info["model"] = surrogate.kernels
        return candidates[chosen], info

    def _describe(self, surrogate: Surrogate, point: Array) -> dict[str, Any]:
        score, deviation = surrogate.predict_score(point[None])
        return {
            "source": "model",
            "score": self._sign * float(score[0]),
            "score_std": float(deviation[0]),
            "cost": float(exp(surrogate.log_cost(point[None]))[0]) if surrogate.cost else None,
            "success": float(np.exp(surrogate.log_success(point[None]))[0]),
        }

    @staticmethod
    def _first_new(candidates: Array, order: NDArray[np.intp], known: Array) -> int:
        """The first candidate in order that was not tried, or the very first if all were."""
        tried = {point.tobytes() for point in known.round(9) + 0.0}  # for -0.0 is 0.0
        return int(next((i for i in order if (candidates[i].round(9) + 0.0).tobytes() not in tried), order[0]))

    def _kernels(self) -> dict[str, list[float]]:
        """Kernel parameters that the last model suggestion left, where they fit the space as it now is."""
        length = self._space.dimension + 3
        for _, trial in sorted(self._trials.items(), reverse=True):
            if "model" in trial.info:
                return {name: vector for name, vector in trial.info["model"].items() if len(vector) == length}
        return {}

    # What is known

    @property
    def observations(self) -> list[Observation]:
        """Finished trials, in the order of their numbers."""
        return [t.observation for _, t in sorted(self._trials.items()) if t.observation]

    def pareto_front(self) -> list[Observation]:
        """Observations that no other beats in score at no more cost, from cheap to dear."""
        scored = [o for o in self.observations if o.score is not None and o.cost is not None and o.is_whole]
        scores = np.array([self._sign * o.score for o in scored if o.score is not None])
        costs = np.array([o.cost for o in scored if o.cost is not None])
        return [scored[i] for i in pareto_front(scores, costs)]

    @on_one_thread
    def best(self, max_cost: float | None = None) -> Observation:
        """The observation whose true score the model believes highest, rather than the luckiest draw.

        Where the optimiser learns from curves, it is the first trial of the configuration with a whole run whose
        expectation, less half a deviation, is the highest.

        Args:
            max_cost: only observations that cost no more.

        Raises:
            LookupError: no observation has a score at such a cost.
        """
        scored = [
            o
            for o in self.observations
            if o.is_whole and (max_cost is None or (o.cost is not None and o.cost <= max_cost))
        ]
        if not scored:
            raise LookupError("no trial has a score" + ("" if max_cost is None else f" at a cost up to {max_cost:g}"))
        if self._learns_curves:
            return self._cautious_best({o.number if o.repeat_of is None else o.repeat_of for o in scored})
        if len(scored) > MAX_MODEL_POINTS:  # far more than may be the best
            scored = sorted(scored, key=lambda o: -self._sign * (o.score or 0.0))[:MAX_MODEL_POINTS]
        means = self._surrogate().score.mean(np.array([self._trials[o.number].point for o in scored]))
        return scored[int(np.argmax(means))]

    def _cautious_best(self, allowed: set[int]) -> Observation:
        """Of the configurations whose first trials are these, the one that is recommended."""
        surrogate, known = self._surrogate(), self._known_runs().known
        assert known is not None
        mean, variance = surrogate.score.at_observations()
        rows = _rows(known)
        whole = np.array([i for i in np.flatnonzero(known.wholes) if int(known.numbers[i]) in allowed])
        chosen = int(whole[cautious_best(mean[rows[whole]], variance[rows[whole]])])
        found = self._trials[int(known.numbers[chosen])].observation
        assert found is not None
        return found

    @on_one_thread
    def standings(self) -> list[Standing]:
        """What is believed of each configuration with a whole run, in the order of their numbers.

        Only where the optimiser learns from curves.

        Raises:
            LookupError: there is no whole run yet, or the optimiser does not learn from curves.
        """
        if not self._learns_curves:
            raise LookupError("the optimiser does not learn from curves")
        surrogate, known, scale = self._surrogate(), self._known_runs().known, self._known_runs().scale
        assert known is not None
        assert scale is not None
        whole = np.flatnonzero(known.wholes)
        rows = _rows(known)[whole]
        mean, variance = (column[rows] for column in surrogate.score.at_observations())
        probabilities = best_probabilities(mean, variance, np.random.default_rng([self.seed, _DRAW_BEST]))
        targets = Standardised(scale, known.data.scores)
        again = (known.noise + known.last_noise) * targets.slope(mean) ** 2
        reach = half_width(known) * np.sqrt(variance + again)
        middle, ends = targets.inverse(mean), (targets.inverse(mean - reach), targets.inverse(mean + reach))
        low, high = ends if self._sign > 0 else (-ends[1], -ends[0])
        columns = (known.numbers[whole], known.wholes[whole], probabilities, self._sign * middle, low, high)
        return [Standing(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        """What the model expects of hyperparameters, nested or flat.

        Raises:
            SpaceError: hyperparameters that the space cannot place.
            LookupError: no observation has a score.
        """
        return self.predict_all([params])[0]

    @on_one_thread
    def predict_all(self, params: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """What the model expects of many hyperparameters; as `predict` of each, and much quicker."""
        if not params:
            self._surrogate()
            return []
        return self.predict_at(np.array([self._space.encode(each) for each in params]))

    @on_one_thread
    def predict_at(self, points: Array) -> list[Prediction]:
        """As `predict_all`, of points [n, columns], n at least 1.

        Raises:
            LookupError: no observation has a score.
        """
        surrogate = self._surrogate()
        scores, deviations = surrogate.predict_score(points)
        noise = surrogate.score_noise(points)
        costs = exp(surrogate.log_cost(points)) if surrogate.cost else np.full(len(points), math.nan)
        successes = np.exp(surrogate.log_success(points))
        return [
            Prediction(self._sign * score, deviation, noise_std, None if math.isnan(cost) else cost, success)
            for score, deviation, noise_std, cost, success in zip(
                *(column.tolist() for column in (scores, deviations, noise, costs, successes)), strict=True
            )
        ]

    @on_one_thread
    def importance(self) -> dict[str, Importance]:
        """How much of the variation of the score and of the cost each parameter takes part in, by dotted path.

        These are total Sobol indices of the models over the whole space: shares between 0 and 1, which add up to
        more than 1 where parameters interact.

        Raises:
            LookupError: no observation has a score.
        """
        surrogate, space = self._surrogate(), self._space
        rng = np.random.default_rng(self.seed)
        base, other = rng.random((2, IMPORTANCE_SAMPLES, space.dimension))
        swapped = np.repeat(base[None], space.dimension, axis=0)
        for j in range(space.dimension):
            swapped[j, :, j] = other[:, j]

        def effects(function: Callable[[Array], Array]) -> list[float]:
            values = np.array([function(space.place(points)) for points in swapped])
            return [float(effect) for effect in total_effects(function(space.place(base)), values)]

        pairs = zip(effects(surrogate.score.mean), effects(surrogate.log_cost), strict=True)
        return {
            parameter.path: Importance(score, cost)
            for parameter, (score, cost) in zip(space.parameters, pairs, strict=True)
        }

    def _surrogate(self) -> Surrogate:
        """The models of all observations, with the kernels of the last suggestion."""
        if self._known is None and self._learns_curves:
            self._known = self._curve_surrogate(self._kernels(), {})
        if self._known is None:
            data, _ = self._data()
            if np.isnan(data.scores).all():
                raise LookupError("no trial has a score")
            self._known = Surrogate(self._space, data, self._kernels(), {}, mixed=self._budgeted)
        return self._known


def _rows(known: Known) -> NDArray[np.intp]:
    """The row of each configuration in the model of the score, which has those with a score only."""
    return np.cumsum(~np.isnan(known.data.scores)) - 1


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return plain_float(value)
    except TypeError as error:
        raise ValueError(f"{name} must be a number: {error}") from None
