"""Protein: suggests hyperparameters that may score well for their cost, and learns from trials."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args, overload

import numpy as np
from numpy.typing import NDArray

from metta.common.plain import copied, plain_float
from metta.sweep.protein.choosing import beliefs, recommended, with_other_length
from metta.sweep.protein.curves import Curve, CurvePoint, Rung
from metta.sweep.protein.history import History, KnownTrial, Search
from metta.sweep.protein.importance import importances
from metta.sweep.protein.pareto import pareto_front
from metta.sweep.protein.proposal import propose
from metta.sweep.protein.space import Space
from metta.sweep.protein.start import LONGER_OWN_VALUES
from metta.sweep.protein.stopping import Asked, decide, passed
from metta.sweep.protein.surrogate import MAX_MODEL_POINTS
from metta.sweep.protein.threads import on_one_thread
from metta.sweep.protein.types import ETA, Belief, Decision, Importance, Observation, OtherLength, Prediction, Rule
from metta.sweep.protein_config import ProteinConfig

Array = NDArray[np.float64]
Suggestion = tuple[dict[str, Any], dict[str, Any]]
"""Hyperparameters, nested, and what the optimiser says of them (JSON-compatible)."""

EXEMPT_SHARE = 0.03
"""The share of trials that are never stopped, so that all kinds of runs show how early values predict the end. Tuned on
`benchmarks/curves` (its tuned-on tables) as part of the whole policy."""
_DRAW_EXEMPT, _DRAW_TIE = 11, 12

log = logging.getLogger(__name__)


class Protein:
    """Cost-aware Bayesian optimisation.

    A suggestion is a function of the configuration, the seed, the horizon and the observed trials, in the order of
    their numbers. So an optimiser can be built again at any time and given the trials again, in any order.

    Args:
        config: what to search and how.
        seed: of all random draws; drawn once if left out, and kept in `seed`.
        num_trials: how many trials there will be at most, so that a budget that outlasts them is spent in time.
            Without `max_cost` trials are scarce and cost is not: each looks for the best score whatever it costs,
            and how many are left changes nothing.
        max_cost: what all trials together may cost. With it, the first trials are cheap ones, the next look for
            the best score for its cost, and the last for the best score that the rest of the budget can pay for.
            Where `num_trials` would end the sweep before the budget, cost counts less, candidates cost more, and runs
            that the budget can pay for are not stopped, so that it is used. Without `num_trials`, where trials report
            and differ in length, it is divided as if there were `metta.sweep.protein.budget.PLANNED_TRIALS`.
        early_stopping: the rule by which `decide` stops trials; see `metta.sweep.protein.stopping`.
        min_share: no trial is stopped before this share of a whole run, nor before its first report.
        rungs: the steps at which "asha" and "median" may stop a trial, in place of shares of a whole run.
        eta: of the trials that reach a rung of "asha" or "hyperband", the best 1 / `eta` go on.
        repeats: whether `suggest` may repeat a promising configuration with another seed.
        own_values: what the hyperparameters are without a search, nested or flat with dotted keys: trial 0 has them
            where they lie in the space, see `metta.sweep.protein.start`.

    With `early_stopping` or `repeats` the optimiser learns from curves: the model of the score is one of normal scores
    of configurations, in which whole runs, repeats and stopped runs count for as much as they tell. Where a
    hyperparameter is the length of a run, curves also tell of shorter runs, the best configurations may be tried with
    longer ones, and the Tool's own values are; see `metta.sweep.protein.run_length`. Where all runs are equally long,
    the Tool's own values are believed to be good before they are run; see `metta.sweep.protein.evidence`.

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
        rungs: Sequence[int] = (),
        eta: float = ETA,
        repeats: bool = False,
        own_values: Mapping[str, Any] | None = None,
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
        self.rungs, self.eta = tuple(rungs), eta
        self._space = Space(config.parameters, config.constraints)
        own = self._space.searched(own_values or {})
        self._search = Search(
            config,
            self._space,
            self.seed,
            num_trials,
            max_cost,
            early_stopping,
            min_share,
            repeats,
            own_values=own,
            rungs=self.rungs,
            eta=eta,
        )
        if config.method == "grid":
            _ = self._search.grid  # a space without a grid is refused now
        self._sign = self._search.sign
        self._trials: dict[int, KnownTrial] = {}
        self._outstanding: set[int] = set()
        self._known: History | None = None

    # What is observed

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
        """Observe a finished trial.

        Args:
            params: nested or flat with dotted keys; may come from anywhere and lie outside the bounds.
            score: the metric as measured. NaN and infinities are failures.
            cost: in any unit, the same for all trials; not negative. None where it is not known: the trial then
                teaches its score only, and counts towards `max_cost` as the median of the known costs.
            is_failure: the trial failed; the score may then be None.
            noise: standard error of the score, in its units, where it was measured, for example of a mean over seeds
                or episodes. The model follows a score less, the larger its noise.
            number: of the trial. Left out, it is that of the outstanding suggestion with the same
                hyperparameters, or the next number.
            info: what `suggest` said of these hyperparameters, for a trial that another object suggested.
            curve: what the trial reported: steps, the cost of the trial until then, and values of the metric. Left out,
                it is what `decide` or `suggested` was last given.
            total_steps: steps of a whole run of this trial; the last step if left out.
            stopped: it was stopped early. Its score may then be None, and is not that of a whole run.
            repeat_of: number of the trial whose hyperparameters it repeats, as `suggest` said; left out, it is what
                `info` says.

        Raises:
            SpaceError: hyperparameters that the space cannot place.
            ValueError: a score, cost or noise that is not such a number, a score that is missing without a failure, or
                a curve whose steps do not increase.
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
        observation = Observation(trial.number, trial.params, score, cost, is_failure, noise, stopped, trial.repeat_of)
        self._register(replace(trial, observation=observation))

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
        params, repeat_of = observation.params, observation.repeat_of
        self._register(KnownTrial(number, params, point, info, observation, curve, repeat_of, self._sign))

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
        """Register a trial that is outstanding: suggested or running, and not finished.

        Suggestions of this object are registered already, and so are curves that were given to `decide`.

        Args:
            number: of the trial.
            params: nested or flat with dotted keys.
            info: what `suggest` said of them.
            curve, total_steps, repeat_of: as for `observe`.
        """
        shown = None if curve is None else Curve.of(curve, total_steps, self._sign)
        self._enter(params, self._space.encode(params), number, info, shown, repeat_of)

    def decide(self, number: int, curve: Sequence[CurvePoint], total_steps: float) -> Decision:
        """Register what an outstanding trial has reported so far, and decide whether it goes on.

        The answer is a function of the settings, the seed and what was observed of all trials until then. A trial is
        judged once at each rung that it passes; between rungs it goes on.

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
        shown = Curve.of(curve, total_steps, self._sign)
        self._register(replace(trial, curve=shown))
        shares = self._search.shares(number, shown.total)
        share = passed(shares, before, shown.share)
        if share is None:
            return Decision(True, "no rung passed")
        if trial.repeat_of is not None:
            return Decision(True, f"it repeats trial {trial.repeat_of}, so it is not stopped", share)
        if trial.info.get("source") == LONGER_OWN_VALUES:
            return Decision(
                True, "it shows what the Tool's own values give in a longer run, so it is not stopped", share
            )
        if self.early_stopping == "protein" and self._search.random_draw(_DRAW_EXEMPT, number) < EXEMPT_SHARE:
            return Decision(True, "drawn to go on regardless, to learn how early values predict the end", share)
        whole, each_left = float(shown.costs[-1]) / shown.share, self._history.budget.each_left
        if self.early_stopping == "protein" and whole < each_left:  # what it saved, no other trial could spend
            trials = "each trial to the last" if self.num_trials else "each trial that it is planned for"
            why = f"a whole run costs about {whole:.3g}, and the budget has {each_left:.3g} for {trials}"
            return Decision(True, why, share)
        draw = self._search.random_draw(_DRAW_TIE, number, round(share * 1e6))
        evidence, earlier = self._history.evidence, passed(shares, 0.0, before)
        rung = self._rung(share, shown.total)
        former = None if earlier is None else self._rung(earlier, shown.total)
        asked = Asked(number, share, rung, float(shown.values.max()), draw, former)
        scarce = self._history.budget.trials_are_scarce
        return decide(self.early_stopping, self.min_share, asked, evidence, scarce, self.eta)

    def _rung(self, share: float, total: float) -> Rung:
        """Where a run is compared that has come to a share of its steps in all."""
        return Rung(steps=float(round(share * total))) if self.rungs else self._history.evidence.rung(share, total)

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
        self._known = None

    def _enter(
        self,
        params: Mapping[str, Any],
        point: Array,
        number: int | None,
        info: Mapping[str, Any] | None,
        curve: Curve | None = None,
        repeat_of: int | None = None,
    ) -> KnownTrial:
        """Register a trial that may have been suggested here, with what is known of it already."""
        twin = None if number in self._trials else self._outstanding_at(point)
        if number is None:
            number = twin.number if twin else self._history.next_number
        if twin:
            self.forget(twin.number)
        before = twin or self._trials.get(number)
        if before:
            info = before.info if info is None else info
            curve = before.curve if curve is None else curve
            repeat_of = before.repeat_of if repeat_of is None else repeat_of
        info = copied(dict(info or {}))
        repeat_of = info.get("repeat_of") if repeat_of is None else repeat_of
        return self._register(KnownTrial(number, copied(dict(params)), point, info, None, curve, repeat_of, self._sign))

    def _register(self, trial: KnownTrial) -> KnownTrial:
        """Keep a trial under its number, in place of what was known of it."""
        self._trials[trial.number] = trial
        change = self._outstanding.add if trial.observation is None else self._outstanding.discard
        change(trial.number)
        self._known = None
        return trial

    def _outstanding_at(self, point: Array) -> KnownTrial | None:
        """The first outstanding trial with these hyperparameters."""
        outstanding = (self._trials[number] for number in sorted(self._outstanding))
        return next((trial for trial in outstanding if np.array_equal(trial.point, point)), None)

    @property
    def _history(self) -> History:
        """All trials as they now are, with the models of them; made again when a trial changes."""
        if self._known is None:
            self._known = History(self._search, self._trials)
        return self._known

    # What is suggested

    @overload
    def suggest(self, n: None = None) -> Suggestion: ...

    @overload
    def suggest(self, n: int) -> list[Suggestion]: ...

    def suggest(self, n: int | None = None) -> Suggestion | list[Suggestion]:
        """Suggest hyperparameters for the next trial, or for the next `n`.

        The choice is a function of what is known (`metta.sweep.protein.proposal`) and changes nothing but the register:
        what is suggested is outstanding, and shapes later suggestions, until it is observed or forgotten.

        Returns:
            The hyperparameters in the nested shape of `config.parameters`, and what is said of them:
            `number` (the trial's), `source` ("own values", "own values, longer run", "search centre", "random", "grid"
            or "model"), and for a model's suggestion `score` and `score_std` (predicted), `cost` (predicted), `success`
            (probability), `acquisition` (its value), `pareto_point` (number of the trial it grew from, or None) and
            `model` (where the next fit starts). A repeat has `source` "repeat", `repeat_of` (the number of the trial
            whose hyperparameters it has, to be run with another seed) and `reason`.

        Raises:
            GridDone: `config.method` is "grid", and every point of the grid was suggested.
        """
        if n is None:
            return self._suggest_one()
        return [self._suggest_one() for _ in range(n)]

    @on_one_thread
    def _suggest_one(self) -> Suggestion:
        number, proposal = self._history.next_number, propose(self._history)
        given, space = proposal.params, self._space
        params = space.decode(proposal.point) if given is None else space.nested(given)
        info = {"number": number, **proposal.info}
        point, repeat_of = space.encode(params), proposal.repeat_of
        self._register(KnownTrial(number, copied(params), point, copied(info), repeat_of=repeat_of, sign=self._sign))
        return params, info

    # What is known

    @property
    def observations(self) -> list[Observation]:
        """Finished trials, in the order of their numbers."""
        return [observation for _, observation in self._history.finished]

    def pareto_front(self) -> list[Observation]:
        """Observations that no other beats in score at no more cost, from cheap to expensive."""
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
        scored = self._whole_within(max_cost)
        if not scored:
            raise LookupError("no trial has a score" + ("" if max_cost is None else f" at a cost up to {max_cost:g}"))
        if self._search.learns_curves:
            return recommended(self._history, _configurations(scored))
        if len(scored) > MAX_MODEL_POINTS:  # far more than may be the best
            scored = sorted(scored, key=lambda o: -self._sign * (o.score or 0.0))[:MAX_MODEL_POINTS]
        means = self._history.surrogate.score.mean(np.array([self._trials[o.number].point for o in scored]))
        return scored[int(np.argmax(means))]

    def _whole_within(self, max_cost: float | None) -> list[Observation]:
        """Observations of whole runs, where `max_cost` is given of those that cost no more."""
        whole = [o for o in self.observations if o.is_whole]
        return [o for o in whole if max_cost is None or (o.cost is not None and o.cost <= max_cost)]

    @on_one_thread
    def other_length(self, max_cost: float) -> OtherLength | None:
        """One of the best configurations with a length of its runs that was not tried, for at most `max_cost`.

        The model is fairly sure that it is better than all that was tried within that cost. Where the length of runs is
        searched, sweeps try few configurations with lengths for any cost that may be asked for, but know well what
        length does.

        Returns:
            None where there is none, no hyperparameter is the length, or the optimiser does not learn from curves.
        """
        if not self._search.learns_curves:
            return None
        return with_other_length(self._history, _configurations(self._whole_within(max_cost)), max_cost)

    @on_one_thread
    def beliefs(self) -> list[Belief]:
        """What is believed of each configuration with a whole run, in the order of their numbers.

        Only where the optimiser learns from curves.

        Raises:
            LookupError: there is no whole run yet, or the optimiser does not learn from curves.
        """
        if not self._search.learns_curves:
            raise LookupError("the optimiser does not learn from curves")
        return beliefs(self._history)

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        """What the model expects of hyperparameters, nested or flat.

        Raises:
            SpaceError: hyperparameters that the space cannot place.
            LookupError: no observation has a score.
        """
        return self.predict_all([params])[0]

    @on_one_thread
    def predict_all(self, params: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """What the model expects of many hyperparameters; as `predict` of each, and much quicker.

        Raises:
            SpaceError: hyperparameters that the space cannot place.
            LookupError: no observation has a score.
        """
        if not params:
            _ = self._history.surrogate
            return []
        return self.predict_at(np.array([self._space.encode(each) for each in params]))

    @on_one_thread
    def predict_at(self, points: Array) -> list[Prediction]:
        """As `predict_all`, of points [n, columns], n at least 1.

        Raises:
            LookupError: no observation has a score.
        """
        return self._history.surrogate.predictions(points, self._sign)

    @on_one_thread
    def importance(self) -> dict[str, Importance]:
        """How much of the variation of the score and of the cost each parameter takes part in, by dotted path.

        These are total Sobol indices of the models over the whole space: shares between 0 and 1, which add up to
        more than 1 where parameters interact.

        Raises:
            LookupError: no observation has a score.
        """
        return importances(self._history.surrogate, self._space, self.seed)


def _configurations(observations: Sequence[Observation]) -> set[int]:
    """Numbers of the first trials of their configurations."""
    return {o.number if o.repeat_of is None else o.repeat_of for o in observations}


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return plain_float(value)
    except TypeError as error:
        raise ValueError(f"{name} must be a number: {error}") from None
