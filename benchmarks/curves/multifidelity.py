"""Multi-fidelity optimisers of other projects: Syne Tune, NePS, SMAC, and PufferLib's rule for stopping.

Each is imported when it is created. NePS and SMAC resume a trial when they promote it, which costs the difference.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from benchmarks.curves.tables import Params, Proposal, Space

Array = NDArray[np.float64]
ETA = 3
"""Reduction factor of every halving peer."""


class Base:
    """The common part of the peers: their trials, and a recommendation."""

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        self.space, self.seed, self.points = space, seed, points
        self.curves: list[list[float]] = []
        self.running = -1
        warnings.simplefilter("ignore")

    def started(self, params: Params) -> None:
        self.params = dict(params)

    def begin(self) -> Proposal | None:
        """Number a new trial."""
        self.curves.append([])
        self.running = len(self.curves) - 1
        return None

    def recommend(self) -> int:
        """The best last score among the longest runs."""
        scored = [(len(curve), curve[-1], -i) for i, curve in enumerate(self.curves) if curve]
        return -max(scored)[2] if scored else 0


class SyneTune(Base):
    """A scheduler of Syne Tune that stops trials: `ASHACQR` or `BOHB`."""

    def __init__(self, space: Space, seed: int, points: int, budget: float, scheduler: str) -> None:
        super().__init__(space, seed, points, budget)
        from syne_tune import config_space as domains
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer import baselines

        self.trial_type = Trial
        ranges: dict[str, Any] = {
            name: domains.choice(list(found.choices))
            if found.choices
            else (domains.loguniform if found.log else domains.uniform)(found.low, found.high)
            for name, found in space.items()
        }
        make = getattr(baselines, scheduler)
        logging.disable(logging.INFO)
        self.scheduler: Any = make(
            ranges,
            metric="score",
            do_minimize=False,
            time_attr="step",
            max_t=points,
            grace_period=1,
            reduction_factor=ETA,
            random_seed=seed,
        )

    def propose(self) -> Proposal:
        self.begin()
        return Proposal(params=self.scheduler.suggest().config)

    def started(self, params: Params) -> None:
        super().started(params)
        self.trial = self.trial_type(self.running, self.params, datetime.now())
        self.scheduler.on_trial_add(self.trial)

    def point(self, index: int, score: float, cost: float) -> bool:
        self.curves[-1].append(score)
        decision = self.scheduler.on_trial_result(self.trial, {"score": score, "step": index + 1})
        return bool(decision == "CONTINUE")

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        if score is None:
            self.curves[-1].clear()
            self.scheduler.on_trial_error(self.trial)
        elif whole:
            self.curves[-1].append(score)
            self.scheduler.on_trial_complete(self.trial, {"score": score, "step": self.points})


class Promoting(Base):
    """An optimiser that asks for a configuration with a number of points, and later for the same with more."""

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        super().__init__(space, seed, points, budget)
        self.trials: dict[Any, int] = {}  # the peer's name of a configuration, to the trial that ran it
        self.index_of: list[int] = []  # the curve of each trial of the sweep

    def ask(self) -> tuple[Any, Params, int]:
        """The peer's name of a configuration, its hyperparameters, and how many points to run."""
        raise NotImplementedError

    def tell(self, loss: float) -> None:
        raise NotImplementedError

    def propose(self) -> Proposal:
        while True:
            name, params, wanted = self.ask()
            known = self.trials.get(name)
            if known is None:
                self.begin()
                self.trials[name] = self.running
                proposal = Proposal(params=params)
                break
            curve = self.curves[known]
            if curve and len(curve) < wanted:
                self.running = known
                proposal = Proposal("resume", trial=self.last_trial(known))
                break
            self.tell(-curve[min(wanted, len(curve)) - 1] if curve else math.inf)
        self.wanted = max(1, min(wanted, self.points))
        self.index_of.append(self.running)
        return proposal

    def last_trial(self, curve: int) -> int:
        """The last trial of the sweep that ran a configuration."""
        return len(self.index_of) - 1 - self.index_of[::-1].index(curve)

    def point(self, index: int, score: float, cost: float) -> bool:
        self.curves[self.running].append(score)
        return index + 1 < self.wanted

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        curve = self.curves[self.running]
        if score is None:
            curve.clear()
        elif len(curve) < self.points and whole:
            curve.append(score)
        self.tell(math.inf if score is None else -score)

    def recommend(self) -> int:
        return self.last_trial(super().recommend())


class Neps(Promoting):
    """PriorBand of NePS, whose prior is the middle of the space, with low confidence."""

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        super().__init__(space, seed, points, budget)
        import random

        import neps
        import torch
        from neps.optimizers import algorithms

        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - NePS draws from the global generators
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        ranges: dict[str, Any] = {
            name: neps.HPOCategorical(list(found.choices), prior=found.choices[0])
            if found.choices
            else neps.HPOFloat(found.low, found.high, log=found.log, prior=found.at(0.5))
            for name, found in space.items()
        }
        ranges["points"] = neps.HPOInteger(1, points, is_fidelity=True)
        self.peer: Any = neps.AskAndTell(algorithms.priorband(neps.SearchSpace(ranges), eta=ETA))

    def ask(self) -> tuple[Any, Params, int]:
        self.trial = self.peer.ask()
        config = dict(self.trial.config)
        return self.trial.id.split("_")[0], config, int(config.pop("points"))

    def tell(self, loss: float) -> None:
        self.peer.tell(self.trial, loss if math.isfinite(loss) else 1e9)


class Smac(Promoting):
    """SMAC's multi-fidelity facade with Hyperband."""

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        super().__init__(space, seed, points, budget)
        from ConfigSpace import Categorical, ConfigurationSpace, Float
        from smac import MultiFidelityFacade, Scenario
        from smac.intensifier.hyperband import Hyperband

        logging.disable(logging.CRITICAL)
        ranges = ConfigurationSpace(seed=seed)
        ranges.add(
            [
                Categorical(name, list(found.choices))
                if found.choices
                else Float(name, (found.low, found.high), log=found.log)
                for name, found in space.items()
            ]
        )
        self.folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            ranges,
            deterministic=True,
            n_trials=100_000,
            min_budget=1,
            max_budget=points,
            seed=seed,
            output_directory=self.folder.name,
        )
        hyperband = Hyperband(scenario, eta=ETA, incumbent_selection="highest_budget")
        with contextlib.redirect_stdout(io.StringIO()):
            self.peer: Any = MultiFidelityFacade(
                scenario, _nothing, intensifier=hyperband, logging_level=False, overwrite=True
            )

    def ask(self) -> tuple[Any, Params, int]:
        self.trial = self.peer.ask()
        return self.trial.config, dict(self.trial.config), math.floor(self.trial.budget + 1e-6)

    def tell(self, loss: float) -> None:
        from smac.runhistory import StatusType, TrialValue

        broke = not math.isfinite(loss)
        status = StatusType.CRASHED if broke else StatusType.SUCCESS
        self.peer.tell(self.trial, TrialValue(cost=1e9 if broke else loss, status=status))


def _nothing(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    return 0.0


class PufferRule(Base):
    """Random search stopped by the rule of PufferLib 4's Protein.

    A line of score against log cost is fitted to all points so far so that three tenths of them lie below it. After
    three tenths of the cost of the longest run, a run below the line is stopped. Nothing is stopped before 30 points;
    a whole run gives five.
    """

    QUANTILE, FIRST_SHARE, MIN_POINTS, POINTS_A_RUN = 0.3, 0.3, 30, 5

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        super().__init__(space, seed, points, budget)
        self.rng = np.random.default_rng(seed)
        self.line: tuple[float, float] | None = None

    def propose(self) -> Proposal:
        self.begin()
        self._fit()
        return Proposal(params={name: found.at(self.rng.random()) for name, found in self.space.items()})

    def point(self, index: int, score: float, cost: float) -> bool:
        self.curves[-1].append(score)
        share = (index + 1) / self.points
        if self.line is None or share < self.FIRST_SHARE:
            return True
        return score >= self.line[0] + self.line[1] * math.log(share)

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        if score is None:
            self.curves[-1].clear()
        elif whole:
            self.curves[-1].append(score)

    def _fit(self) -> None:
        """Quantile regression, as a linear programme (Koenker & Bassett 1978)."""
        every = max(1, self.points // self.POINTS_A_RUN)
        seen = [
            (math.log((i + 1) / self.points), curve[i])
            for curve in self.curves
            for i in range(every - 1, len(curve), every)
        ]
        if len(seen) < self.MIN_POINTS:
            return
        x, y = np.array(seen).T
        n, unit = len(x), float(np.abs(y).max()) or 1.0
        weights = np.concatenate([[0.0, 0.0], np.full(n, self.QUANTILE), np.full(n, 1.0 - self.QUANTILE)])
        design = np.hstack([np.ones((n, 1)), x[:, None], np.eye(n), -np.eye(n)])
        bounds = [(None, None)] * 2 + [(0, None)] * (2 * n)
        found = linprog(weights, A_eq=design, b_eq=y / unit, bounds=bounds, method="highs")
        if found.success and found.x is not None:
            self.line = float(found.x[0] * unit), float(found.x[1] * unit)
