"""Recorded learning curves, and sweeps on them.

A table holds the scores of configurations by seeds by points of a run. A trial takes the untried configuration that is
nearest to what the optimiser proposes. It trains with one seed and pays for each point: a whole run costs 1, or where
the table has costs, 1 is the median of them.
After each point the optimiser may stop it. The regret of a recommendation is that of the configuration's mean over all
seeds at the end of a run, so luck with a seed is not rewarded: 0 is the best of the table, 1 its median.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_CHOICES = 4
"""A hyperparameter with at most this many values is a choice."""
LOG_RATIO = 100.0
"""A positive range whose ends differ by more than this factor is searched on a log scale."""
WORST_REGRET = 1.5


@dataclass(frozen=True)
class Range:
    """One hyperparameter: `choices`, or numbers from `low` to `high`."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: list[Any]) -> Range | None:
        """The range of recorded values; None if there is only one."""
        kinds = tuple(sorted({str(value) for value in values}))
        if len(kinds) == 1:
            return None
        if len(kinds) <= MOST_CHOICES or any(isinstance(value, bool | str) or value is None for value in values):
            return cls(choices=kinds)
        low, high = min(values), max(values)
        return cls(low, high, log=low > 0 and high / low > LOG_RATIO)

    def value(self, recorded: Any) -> Any:
        """A recorded value as the optimiser sees it."""
        return str(recorded) if self.choices else float(recorded)

    def unit(self, value: Any) -> float:
        """A value's place in 0..1, or the index of a choice."""
        if self.choices:
            return float(self.choices.index(value))
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def at(self, uniform: float) -> Any:
        """The value at a place in 0..1."""
        if self.choices:
            return self.choices[int(uniform * len(self.choices))]
        if self.log:
            return self.low * (self.high / self.low) ** uniform
        return self.low + uniform * (self.high - self.low)


Space = Mapping[str, Range]
Params = Mapping[str, Any]


class Table:
    """One table.

    Attributes:
        scores: [configurations, seeds, points], higher is better, NaN where a run failed.
        costs: [configurations, points], of a run until each point; the median of whole runs is 1.
        space: the hyperparameters that vary.
        rows: hyperparameters of each configuration.
        truth: [configurations], mean final score over seeds; a failed run counts as the worst score of the table.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self.scores: Array = stored["scores"].astype(float)
            recorded: list[dict[str, Any]] = json.loads(str(stored["params"]))
            configurations, _, points = self.scores.shape
            shares = np.tile(np.arange(1, points + 1) / points, (configurations, 1))
            costs: Array = stored["costs"].astype(float) if "costs" in stored else shares
        self.costs = costs / np.median(costs[:, -1])
        self.name = path.stem
        ranges = {name: Range.of([row.get(name) for row in recorded]) for name in recorded[0]}
        self.space: dict[str, Range] = {name: found for name, found in ranges.items() if found is not None}
        self.rows = [{name: found.value(row.get(name)) for name, found in self.space.items()} for row in recorded]
        self._unit = np.array([self._place(row) for row in self.rows])
        self._choice = np.array([bool(found.choices) for found in self.space.values()])
        end = self.scores[:, :, -1]
        self.truth: Array = np.where(np.isnan(end), np.nanmin(end), end).mean(axis=1)
        self._best, self._median = float(self.truth.max()), float(np.median(self.truth))

    def _place(self, params: Params) -> list[float]:
        return [found.unit(params[name]) for name, found in self.space.items()]

    def nearest(self, params: Params, used: set[int]) -> int:
        """The unused configuration nearest to these hyperparameters."""
        place = np.array(self._place(params))
        distance = np.where(self._choice, self._unit != place, (self._unit - place) ** 2).sum(axis=1)
        distance[list(used)] = np.inf
        return int(distance.argmin())

    def regret(self, configuration: int) -> float:
        gap = self._best - float(self.truth[configuration])
        return min(WORST_REGRET, gap / (self._best - self._median + 1e-12))


@dataclass(frozen=True)
class Proposal:
    """The next run.

    Attributes:
        action: "new" trains `params`; "repeat" trains the configuration of `trial` with another seed; "resume"
            continues `trial` where it was stopped.
    """

    action: Literal["new", "repeat", "resume"] = "new"
    params: Params = field(default_factory=dict)
    trial: int = -1


class Optimizer(Protocol):
    """An optimiser as a sweep calls it. Trials are numbered in the order in which they were proposed."""

    def propose(self) -> Proposal: ...

    def started(self, params: Params) -> None:
        """Receive the hyperparameters that the last proposed trial trains with."""

    def point(self, index: int, score: float, cost: float) -> bool:
        """Receive a running trial's score at a point, from 0, except the last, and the cost of its run until there.

        Returns whether to continue.
        """

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        """The trial ended with this last score, None if it failed, and this cost; `whole` if it was not stopped."""

    def recommend(self) -> int:
        """The index of a trial."""


class Maker(Protocol):
    def __call__(self, space: Space, seed: int, points: int, budget: float) -> Optimizer: ...


@dataclass(frozen=True)
class Mark:
    """A sweep after a trial.

    Attributes:
        spent: whole runs so far.
        regret: regret of the recommended configuration.
        tried: regret of the best configuration tried.
        whole: regret of the best one with a whole run.
    """

    spent: float
    regret: float
    tried: float
    whole: float


@dataclass(frozen=True)
class Sweep:
    """One sweep of an optimiser on a table, and the seconds that the optimiser took."""

    marks: list[Mark]
    configurations: int
    trials: int
    stopped: int
    seconds: float

    def at(self, spent: float) -> Mark:
        """The last mark within a budget."""
        return next((m for m in reversed(self.marks) if m.spent <= spent + 1e-6), Mark(0.0, *[WORST_REGRET] * 3))


def sweep(make: Maker, table: Table, seed: int, budget: float, max_configurations: int | None = None) -> Sweep:
    """Run an optimiser on a table until it has spent `budget` whole runs, or tried `max_configurations`."""
    configurations, seeds, points = table.scores.shape
    clock = Clock()
    optimizer = make(table.space, seed, points, budget)
    order = seed_orders(table, seed)
    most = min(configurations, max_configurations or configurations)
    trials: list[tuple[int, int, int]] = []  # configuration, seed and points of each
    used: dict[int, int] = {}  # configuration to the number of its runs
    whole: set[int] = set()
    marks: list[Mark] = []
    spent, stopped = 0.0, 0
    while spent < budget - 1e-9 and len(used) < most:
        with clock:
            proposal = optimizer.propose()
        first = 0
        if proposal.action == "new":
            taken = table.nearest(proposal.params, set(used))
            run_seed = int(order[taken][0])
            used[taken] = 1
        else:
            taken, run_seed, first = trials[proposal.trial]
            if proposal.action == "repeat":
                run_seed, first = int(order[taken][used[taken] % seeds]), 0
                used[taken] += 1
            elif first >= points:
                raise ValueError(f"trial {proposal.trial} is a whole run")
        with clock:
            optimizer.started(table.rows[taken])
        last: float | None = None
        costs = table.costs[taken]
        paid = float(costs[first - 1]) if first else 0.0
        position, go_on, before = first, True, spent
        while position < points and go_on and spent < budget - 1e-9:
            value = float(table.scores[taken, run_seed, position])
            position, spent = position + 1, before + float(costs[position]) - paid
            last = value if math.isfinite(value) else None
            if last is None:
                break
            if position < points:
                with clock:
                    go_on = bool(optimizer.point(position - 1, last, float(costs[position - 1])))
        is_whole = position == points and last is not None
        stopped += position < points and last is not None
        if is_whole:
            whole.add(taken)
        trials.append((taken, run_seed, position))
        with clock:
            optimizer.ended(last, spent - before, is_whole)
            recommended = trials[optimizer.recommend()][0]
        regrets = {i: table.regret(i) for i in used}
        best_whole = min((regrets[i] for i in whole), default=WORST_REGRET)
        marks.append(Mark(spent, regrets[recommended], min(regrets.values()), best_whole))
    return Sweep(marks, len(used), len(trials), stopped, clock.seconds)


def seed_orders(table: Table, seed: int) -> list[NDArray[np.int64]]:
    """The order in which a sweep trains each configuration with the seeds of a table."""
    configurations, seeds, _ = table.scores.shape
    rng = np.random.default_rng([seed, 7])
    return [rng.permutation(seeds) for _ in range(configurations)]


class Clock:
    """Adds up the seconds spent in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._started
