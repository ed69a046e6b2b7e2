"""Optimisers that are compared on recorded curves."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from benchmarks.curves.multifidelity import Neps, PufferRule, Smac, SyneTune
from benchmarks.curves.ours import protein
from benchmarks.curves.tables import Maker, Params, Proposal, Space

ETA = 3
"""Reduction factor of every halving peer."""


@dataclass(frozen=True)
class Ended:
    """A trial that ended: its last score (None if it failed), its cost, and whether it was a whole run."""

    score: float | None
    cost: float
    whole: bool


class Random:
    """Random search without stopping. The other peers recommend as it does."""

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        self.space, self.points, self.budget = space, points, budget
        self.rng = np.random.default_rng(seed)
        self.trials: list[Ended] = []

    def propose(self) -> Proposal:
        return Proposal(params={name: found.at(self.rng.random()) for name, found in self.space.items()})

    def started(self, params: Params) -> None:
        pass

    def point(self, index: int, score: float, cost: float) -> bool:
        return True

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        self.trials.append(Ended(score, cost, whole))

    def recommend(self) -> int:
        """The best last score among whole runs; before there is one, among the longest."""
        scored = [
            (t.whole, 0.0 if t.whole else t.cost, t.score, -i) for i, t in enumerate(self.trials) if t.score is not None
        ]
        return -max(scored)[3] if scored else 0


class Asha(Random):
    """Random search with asynchronous successive halving in its stopping form (Li et al. 2020, arXiv 1810.05934)."""

    def __init__(self, space: Space, seed: int, points: int, budget: float) -> None:
        super().__init__(space, seed, points, budget)
        rungs = [1]
        while rungs[-1] * ETA < points:
            rungs.append(rungs[-1] * ETA)
        self.rungs: dict[int, list[float]] = {rung: [] for rung in rungs}

    def point(self, index: int, score: float, cost: float) -> bool:
        scores = self.rungs.get(index + 1)
        if scores is None:
            return True
        scores.append(score)
        kept = max(1, len(scores) // ETA)
        return len(scores) < ETA or score >= sorted(scores, reverse=True)[kept - 1]


class Optuna(Random):
    """A sampler and a pruner of Optuna."""

    def __init__(
        self, space: Space, seed: int, points: int, budget: float, sampler: str, pruner: str | None = None
    ) -> None:
        super().__init__(space, seed, points, budget)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        samplers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        pruners: dict[str | None, Callable[[], Any]] = {
            None: optuna.pruners.NopPruner,
            "median": optuna.pruners.MedianPruner,
            "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(
                min_resource=1, max_resource=points, reduction_factor=ETA
            ),
        }
        # Hyperband draws the bracket of a trial from the study's name
        self.study = optuna.create_study(
            direction="maximize", study_name=f"s{seed}", sampler=samplers[sampler](), pruner=pruners[pruner]()
        )
        self.states = optuna.trial.TrialState
        self.distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(found.choices)
            if found.choices
            else optuna.distributions.FloatDistribution(found.low, found.high, log=found.log)
            for name, found in space.items()
        }

    def propose(self) -> Proposal:
        self.trial = self.study.ask(self.distributions)
        return Proposal(params=dict(self.trial.params))

    def started(self, params: Params) -> None:
        import optuna

        # Learn from the configuration that was run, not from the proposed one
        identity = self.trial._trial_id
        for name, value in params.items():
            distribution = self.distributions[name]
            internal = distribution.to_internal_repr(value)
            self.study._storage.set_trial_param(identity, name, internal, distribution)
        self.trial = optuna.trial.Trial(self.study, identity)

    def point(self, index: int, score: float, cost: float) -> bool:
        self.trial.report(score, index + 1)
        return not self.trial.should_prune()

    def ended(self, score: float | None, cost: float, whole: bool) -> None:
        super().ended(score, cost, whole)
        if score is None:
            self.study.tell(self.trial, state=self.states.FAIL)
        elif whole:
            self.study.tell(self.trial, score)
        else:
            self.study.tell(self.trial, state=self.states.PRUNED)


def _optuna(sampler: str, pruner: str | None) -> Maker:
    def make(space: Space, seed: int, points: int, budget: float) -> Optuna:
        return Optuna(space, seed, points, budget, sampler, pruner)

    return make


def _syne_tune(scheduler: str) -> Maker:
    def make(space: Space, seed: int, points: int, budget: float) -> SyneTune:
        return SyneTune(space, seed, points, budget, scheduler)

    return make


OPTIMIZERS: dict[str, Maker] = {
    "random": Random,
    "asha": Asha,
    "protein": protein(early_stopping="protein", repeats=True),
    "protein-budget": protein(told=True, early_stopping="protein", repeats=True),
    "protein-budget-off": protein(told=True),
    "protein-20-trials": protein(early_stopping="protein", repeats=True, num_trials=20),
    "protein-no-repeats": protein(early_stopping="protein"),
    "protein-no-stopping": protein(repeats=True),
    "protein-asha": protein(early_stopping="asha", repeats=True),
    "protein-median": protein(early_stopping="median", repeats=True),
    "protein-hyperband": protein(early_stopping="hyperband", repeats=True),
    "protein-off": protein(),
}
OPTIMIZERS |= {
    "syne-tune-asha-cqr": _syne_tune("ASHACQR"),
    "syne-tune-bohb": _syne_tune("BOHB"),
    "neps-priorband": Neps,
    "smac-hyperband": Smac,
    "pufferlib-rule": PufferRule,
}
OPTIMIZERS |= {
    f"optuna-{sampler}" + (f"-{pruner}" if pruner else ""): _optuna(sampler, pruner)
    for sampler in ("tpe", "gp", "random")
    for pruner in (None, "median", "asha", "hyperband")
}


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
