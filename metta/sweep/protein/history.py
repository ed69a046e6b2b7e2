"""All trials that the optimiser knows at one moment, as the models and the rules of proposal see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.budget import Budget, planned_trials, spent
from metta.sweep.protein.curves import Curve, Standardised
from metta.sweep.protein.evidence import Evidence, Run, ShorterRuns
from metta.sweep.protein.gaussian_process import GaussianProcess
from metta.sweep.protein.grid import Grid
from metta.sweep.protein.pareto import pareto_front
from metta.sweep.protein.run_length import RunLength, run_length
from metta.sweep.protein.space import Space
from metta.sweep.protein.start import OWN_VALUES
from metta.sweep.protein.stopping import rungs
from metta.sweep.protein.surrogate import Data, Surrogate, log_costs
from metta.sweep.protein.types import ETA, Observation, Rule
from metta.sweep.protein_config import ProteinConfig, ProteinSettings

Array = NDArray[np.float64]

PREDICTS = 1.5
"""`correlation_t` from which on the model of configurations is trusted. Measured on `benchmarks/curves`, see
docs/benchmarks.md."""
_LEAST_ERROR = 0.05
"""The least variance that an observation counts with in `correlation_t`, so that no few exact ones decide alone."""


@dataclass(frozen=True)
class Search:
    """What is searched, and how: all that a suggestion depends on besides the trials. See `Protein` for the fields."""

    config: ProteinConfig
    space: Space
    seed: int
    num_trials: int | None
    max_cost: float | None
    early_stopping: Rule
    min_share: float
    repeats: bool
    own_values: Mapping[str, Any] = field(default_factory=dict)
    rungs: tuple[int, ...] = ()
    eta: float = ETA

    @property
    def settings(self) -> ProteinSettings:
        return self.config.settings

    @cached_property
    def grid(self) -> Grid:
        """The points of the space as a grid.

        Raises:
            SpaceError: a parameter has a continuous range.
        """
        return Grid(self.space)

    def shares(self, number: int, total: float) -> list[float]:
        """The shares of a whole run of `total` steps at which a trial may be stopped."""
        if self.rungs:
            return [step / total for step in self.rungs if step < total]
        return rungs(self.early_stopping, self.min_share, number, self.eta)

    @property
    def sign(self) -> float:
        """1 where the metric is to be maximised, -1 where it is to be minimised."""
        return 1.0 if self.config.goal == "maximize" else -1.0

    @property
    def learns_curves(self) -> bool:
        return self.repeats or self.early_stopping != "off"

    def random_draw(self, *key: int) -> float:
        """A number in 0..1 that the seed and a key determine."""
        return float(np.random.default_rng([self.seed, *key]).random())


@dataclass(frozen=True)
class KnownTrial:
    """A trial as the optimiser knows it.

    Attributes:
        number: of the trial.
        params: its hyperparameters, as they were given.
        point: where the space places them, [columns].
        info: what `Protein.suggest` said of them.
        observation: how it ended; None while it is outstanding.
        curve: what it reported so far, or None.
        repeat_of: number of the trial whose hyperparameters it repeats, or None.
        sign: -1 where the metric is to be minimised.
    """

    number: int
    params: Mapping[str, Any]
    point: Array
    info: Mapping[str, Any] = field(default_factory=dict)
    observation: Observation | None = None
    curve: Curve | None = None
    repeat_of: int | None = None
    sign: float = 1.0

    @property
    def configuration(self) -> int:
        """Number of the first trial with the same hyperparameters."""
        return self.number if self.repeat_of is None else self.repeat_of

    @cached_property
    def run(self) -> Run:
        """The trial as evidence of its configuration."""
        seen, curve = self.observation, self.curve or Curve.of([], None)
        end = last = noise = None
        if seen is not None and seen.is_whole and seen.score is not None:
            last, noise = self.sign * seen.score, seen.noise
            end = curve.end(last)
        failed = seen is not None and seen.is_failure
        cost = None if seen is None else seen.cost
        return Run(self.number, self.configuration, self.point, curve, end, last, noise, cost, failed, seen is not None)


class History:
    """All trials at one moment, and the models of them. It never changes: another trial makes another history.

    Args:
        search: what is searched, and how.
        trials: all that are known, by number, outstanding ones included.

    Attributes:
        search: as given.
        trials: in the order of their numbers.
    """

    def __init__(self, search: Search, trials: Mapping[int, KnownTrial]) -> None:
        self.search = search
        self.trials = [trial for _, trial in sorted(trials.items())]
        self._by_number = dict(trials)

    def __getitem__(self, number: int) -> KnownTrial:
        return self._by_number[number]

    @property
    def next_number(self) -> int:
        return self.trials[-1].number + 1 if self.trials else 0

    @cached_property
    def finished(self) -> list[tuple[KnownTrial, Observation]]:
        """Finished trials with their observations, in the order of their numbers."""
        return [(trial, trial.observation) for trial in self.trials if trial.observation]

    @cached_property
    def outstanding(self) -> list[KnownTrial]:
        """Trials that are suggested or running, in the order of their numbers."""
        return [trial for trial in self.trials if not trial.observation]

    @cached_property
    def tried(self) -> set[bytes]:
        """The keys of all points that trials have, finished or outstanding; see `point_key`."""
        return {point_key(trial.point) for trial in self.trials}

    @cached_property
    def evidence(self) -> Evidence:
        """All trials as evidence of their configurations."""
        search = self.search
        longest = max((trial.curve.total for trial in self.trials if trial.curve), default=1.0)
        shares = search.shares(0, longest) or [search.min_share]
        return Evidence([trial.run for trial in self.trials], shares, search.space.group, self.own)

    @property
    def own(self) -> int | None:
        """Number of the trial with the Tool's own values, all of them; None if there is none."""
        own = (t.number for t in self.trials if t.info.get("source") == OWN_VALUES and "fallback" not in t.info)
        return next(own, None)

    @cached_property
    def run_length(self) -> RunLength | None:
        """The hyperparameter that is the length of a run, if one of them is."""
        runs = [(trial.point, trial.curve) for trial, seen in self.finished if trial.curve and not seen.is_failure]
        return run_length(self.search.space, runs)

    @cached_property
    def shorter(self) -> ShorterRuns | None:
        """What curves show of shorter runs, where the length of a run is searched."""
        return None if self.run_length is None else self.evidence.shorter(self.run_length)

    @cached_property
    def data(self) -> Data:
        """Finished trials as arrays.

        Where the optimiser learns from curves, these are configurations, and scores are normal scores, from the first
        whole run on.
        """
        if self.search.learns_curves and self.evidence.known is not None:
            return self.evidence.known.data
        sign, nan, seen = self.search.sign, math.nan, [observation for _, observation in self.finished]
        return Data(
            self._rows([trial.point for trial, _ in self.finished]),
            np.array([nan if o.score is None or not o.is_whole else sign * o.score for o in seen]),
            np.array([o.noise or 0.0 for o in seen]),
            np.array([nan if o.cost is None else o.cost for o in seen]),
            np.array([o.is_failure for o in seen], dtype=bool),
        )

    @property
    def numbers(self) -> NDArray[np.intp]:
        """The trial of each row of `data`: the first one of a configuration."""
        if self.search.learns_curves and self.evidence.known is not None:
            return self.evidence.known.numbers
        return np.array([trial.number for trial, _ in self.finished], dtype=np.intp)

    @cached_property
    def measured(self) -> Data:
        """As `data`, with all scores in the units of the metric, to be maximised."""
        measured = self.evidence.measured if self.search.learns_curves else None
        return self.data if measured is None else measured

    @cached_property
    def pending(self) -> Array:
        """Points [n, columns] whose outcome is awaited; where the optimiser learns from curves, without repeats."""
        with_repeats = not (self.search.learns_curves and self.evidence.known is not None)
        return self._rows([trial.point for trial in self.outstanding if with_repeats or trial.repeat_of is None])

    def _rows(self, points: Sequence[Array]) -> Array:
        return np.array(points).reshape(-1, self.search.space.columns)

    @cached_property
    def has_score(self) -> bool:
        return not bool(np.isnan(self.data.scores).all())

    @cached_property
    def front(self) -> NDArray[np.intp]:
        """Rows of `data` to search round; one whose cost is not known only where none has a better score."""
        data = self.data
        return pareto_front(np.nan_to_num(data.scores, nan=-np.inf), np.nan_to_num(data.costs, nan=np.inf))

    @cached_property
    def budget(self) -> Budget:
        seen = [observation for _, observation in self.finished]
        costs = np.array([math.nan if o.cost is None else o.cost for o in seen])
        total = spent(costs, np.array([not o.is_whole for o in seen], dtype=bool))
        max_cost, num_trials = self.search.max_cost, self.search.num_trials
        if num_trials is None and max_cost is not None and self._lengths_differ:
            num_trials = planned_trials(len(seen), max(0.0, 1.0 - total / max_cost))
        return Budget(max_cost, num_trials, total, len(self.trials), len(seen))

    @property
    def _lengths_differ(self) -> bool:
        return self.search.learns_curves and not self.evidence.one_length

    @cached_property
    def kernels(self) -> dict[str, list[float]]:
        """Kernel parameters that the last model suggestion left, where they fit the space as it now is."""
        length = self.search.space.dimension + 3
        for trial in reversed(self.trials):
            if "model" in trial.info:
                return {name: vector for name, vector in trial.info["model"].items() if len(vector) == length}
        return {}

    @cached_property
    def surrogate(self) -> Surrogate:
        """The models of all observations, with the kernels of the last suggestion.

        Raises:
            LookupError: no observation has a score.
        """
        if self.search.learns_curves:
            return self.curve_surrogate({})
        if not self.has_score:
            raise LookupError("no trial has a score")
        return Surrogate(self.search.space, self.data, self.kernels, {}, mixed=self.budget.limited)

    @cached_property
    def model_predicts(self) -> bool:
        """Whether the model of configurations has shown that it predicts what it has not seen; see `correlation_t`.

        Until then it is not asked for the best of many points: it errs most where it promises most. What costs tell of
        scores is no such skill. Where trials differ in length, a model soon knows that longer ones score higher, and
        nothing else: asked for the best, it would search the ends of all other ranges.
        """
        known = self.evidence.known
        if known is None:
            return False
        rows, shorter = self.surrogate.rows, self.shorter
        trials = known.numbers[rows] if shorter is None else np.concatenate([known.numbers[rows], shorter.numbers])
        return correlation_t(self.surrogate.score, known.data.costs[rows], trials) > PREDICTS

    def curve_surrogate(self, steps: Mapping[str, int]) -> Surrogate:
        """The models of configurations.

        Args:
            steps: of each model's fit, by name.

        Raises:
            LookupError: there is no whole run yet.
        """
        known, scale = self.evidence.known, self.evidence.scale
        if known is None or scale is None:
            raise LookupError("no trial has a score")
        targets = Standardised(scale, known.data.scores)
        noise, more = known.noise.variance + known.last_noise, None if self.shorter is None else self.shorter.data
        return Surrogate(self.search.space, known.data, self.kernels, steps, scale=targets, noise=noise, shorter=more)


def correlation_t(model: GaussianProcess, costs: Array, trials: NDArray[np.intp]) -> float:
    """How surely a model predicts each of its first n observations from all others, apart from what costs tell of them.

    It is the t statistic r sqrt((n - 1 - k) / (1 - r²)) of the partial correlation r of the leave-one-out predictions
    of n observations with the observations, given the logarithms of the costs: of what is left after a regression on
    them, of rank k. Observations count for more the smaller their errors are. It is 0 if there are too few.

    Args:
        model: of the observations.
        costs: of each [n]; NaN where it is not known, which counts as the median.
        trials: [n or more], numbers of all its observations. No observation is predicted from another of its trial.
    """
    known = ~np.isnan(costs)
    logarithms = log_costs(np.where(known, costs, np.median(costs[known]) if known.any() else 1.0))
    n = len(costs)
    weights = 1.0 / np.sqrt(_LEAST_ERROR + model.errors[:n])[:, None]
    values = weights * np.column_stack([model.leave_group_out(trials), model.targets])[:n]
    told = weights * np.column_stack([np.ones_like(logarithms), logarithms])
    coefficients, _, rank, _ = np.linalg.lstsq(told, values)
    free = len(values) - 1 - rank
    if free <= 0:
        return 0.0
    x, y = (values - told @ coefficients).T
    spread = float(np.linalg.norm(x) * np.linalg.norm(y))
    r = float(x @ y) / spread if spread else 0.0
    return r * math.sqrt(free / max(1.0 - r**2, 1e-12))


def point_key(point: Array) -> bytes:
    """What equal points [columns] have in common, whatever their rounding errors."""
    return (point.round(9) + 0.0).tobytes()  # so that -0.0 is 0.0
