"""Optimisers of other projects, each with the settings its authors recommend, behind one interface."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from typing import Any, Protocol, cast

import numpy as np

from benchmarks.optimizers.problems import Problem
from metta.sweep.protein.space import Numeric, Space
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings


@dataclass(frozen=True)
class Horizon:
    """The length of a run: in trials, in cost, or unknown."""

    num_trials: int | None = None
    max_cost: float | None = None


class Optimizer(Protocol):
    """Suggests hyperparameters, flat, and receives the score and cost of each before it suggests again."""

    def suggest(self) -> dict[str, Any]: ...

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None: ...


class Protein:
    """Protein of this project, with the horizon known."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon, **settings: Any) -> None:
        from metta.sweep.protein import Protein as Designer

        config = ProteinConfig(
            metric="score", parameters=dict(problem.parameters), settings=ProteinSettings(**settings)
        )
        self.designer = Designer(config, seed, num_trials=horizon.num_trials, max_cost=horizon.max_cost)

    def suggest(self) -> dict[str, Any]:
        return self.designer.suggest()[0]

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        self.designer.observe(params, score, cost)


class ProteinEight(Protein):
    """Protein for eight workers: seven suggestions are outstanding, and each result arrives seven trials late."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon) -> None:
        super().__init__(problem, seed, horizon)
        self.running: deque[tuple[Mapping[str, Any], float, float]] = deque()

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        self.running.append((params, score, cost))
        if len(self.running) == 8:
            super().observe(*self.running.popleft())


class Random:
    """Uniform draws on each parameter's scale."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon) -> None:
        self.space, self.rng = Space(problem.parameters), np.random.default_rng(seed)

    def suggest(self) -> dict[str, Any]:
        return self.space.decode(self.space.place(self.rng.random((1, self.space.dimension)))[0])

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        pass


class Optuna:
    """A sampler of Optuna, by ask and tell."""

    def __init__(self, problem: Problem, seed: int, make: Callable[[int], Any]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore")
        self.study = optuna.create_study(direction="maximize", sampler=make(seed))
        self.space = {name: _optuna_distribution(config) for name, config in problem.parameters.items()}

    def suggest(self) -> dict[str, Any]:
        self.trial = self.study.ask(self.space)
        return dict(self.trial.params)

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        self.study.tell(self.trial, score)


def optuna_tpe(problem: Problem, seed: int, horizon: Horizon) -> Optimizer:
    import optuna

    return Optuna(problem, seed, lambda s: optuna.samplers.TPESampler(seed=s, multivariate=True))


def optuna_gp(problem: Problem, seed: int, horizon: Horizon) -> Optimizer:
    import optuna

    return Optuna(problem, seed, lambda s: optuna.samplers.GPSampler(seed=s, deterministic_objective=not problem.noise))


def optuna_cmaes(problem: Problem, seed: int, horizon: Horizon) -> Optimizer:
    import optuna

    return Optuna(problem, seed, lambda s: optuna.samplers.CmaEsSampler(seed=s))


def _optuna_distribution(config: ParameterConfig) -> Any:
    import optuna

    if config.choices is not None:
        return optuna.distributions.CategoricalDistribution(cast(Any, config.choices))
    assert config.min is not None
    assert config.max is not None
    log = config.distribution in ("log_normal", "int_log_normal")
    if config.distribution.startswith("int_"):
        return optuna.distributions.IntDistribution(int(config.min), int(config.max), log=log)
    return optuna.distributions.FloatDistribution(config.min, config.max, log=log)


class BoTorch:
    """LogEI over BoTorch's default Gaussian process, after Sobol points; or EI per unit cost, by a second one."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon, per_cost: bool = False) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.space, self.per_cost = Space(problem.parameters), per_cost
        self.initial: Any = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
            self.space.dimension, scramble=True, seed=seed
        )
        self.points: list[Any] = []
        self.scores: list[float] = []
        self.costs: list[float] = []

    def suggest(self) -> dict[str, Any]:
        import torch

        if len(self.points) < 2 * self.space.dimension:
            point = self.initial.draw(1).double().numpy()
        else:
            warnings.simplefilter("ignore")
            point = self._optimize(torch).detach().numpy()
        return self.space.decode(self.space.snap(point)[0])

    def _optimize(self, torch: Any) -> Any:
        from botorch.acquisition import LogExpectedImprovement
        from botorch.acquisition.analytic import AnalyticAcquisitionFunction
        from botorch.optim import optimize_acqf

        x = torch.tensor(np.array(self.points))
        score_model = self._fit(x, self.scores)
        log_improvement = LogExpectedImprovement(score_model, best_f=torch.tensor(self.scores).double().max())
        acquisition: Any = log_improvement
        if self.per_cost:
            cost_model = self._fit(x, [math.log(cost) for cost in self.costs])

            class PerCost(AnalyticAcquisitionFunction):  # type: ignore[misc]
                def forward(self, X: Any) -> Any:
                    return log_improvement(X) - cost_model.posterior(X).mean[..., 0, 0]

            acquisition = PerCost(score_model)
        bounds = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).double()
        candidate, _ = optimize_acqf(acquisition, bounds, q=1, num_restarts=10, raw_samples=512)
        return candidate

    def _fit(self, x: Any, targets: list[float]) -> Any:
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Standardize
        from gpytorch.mlls import ExactMarginalLogLikelihood

        y = torch.tensor(targets).double()[:, None]
        model = SingleTaskGP(x, y, outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        self.points.append(self.space.encode(params))
        self.scores.append(score)
        self.costs.append(cost)


def botorch_per_cost(problem: Problem, seed: int, horizon: Horizon) -> Optimizer:
    return BoTorch(problem, seed, horizon, per_cost=True)


class BlendSearch:
    """BlendSearch of FLAML, with the cheap values and costs of trials that it requires."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon) -> None:
        import logging

        from flaml import BlendSearch as Searcher
        from flaml import tune

        logging.getLogger("flaml").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        space = {}
        for name, config in problem.parameters.items():
            assert config.min is not None
            assert config.max is not None
            low, high = config.min, config.max
            space[name] = {
                "uniform": lambda low=low, high=high: tune.uniform(low, high),
                "log_normal": lambda low=low, high=high: tune.loguniform(low, high),
                "int_uniform": lambda low=low, high=high: tune.randint(int(low), int(high) + 1),
                "int_log_normal": lambda low=low, high=high: tune.lograndint(int(low), int(high) + 1),
            }[config.distribution]()
        self.searcher = Searcher(
            metric="score", mode="max", space=space, low_cost_partial_config=problem.cheap, cost_attr="cost", seed=seed
        )
        self.number = -1

    def suggest(self) -> dict[str, Any]:
        params = None
        while params is None:
            self.number += 1
            params = self.searcher.suggest(str(self.number))
        return dict(params)

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        result = {"score": score, "cost": cost, "training_iteration": 1, "config": dict(params)}
        self.searcher.on_trial_complete(str(self.number), result)


class Smac:
    """SMAC3's hyperparameter optimisation facade, by ask and tell."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon) -> None:
        import tempfile

        from ConfigSpace import ConfigurationSpace, Float, Integer
        from smac import HyperparameterOptimizationFacade, Scenario

        space = ConfigurationSpace(seed=seed)
        for parameter in Space(problem.parameters).parameters:
            assert isinstance(parameter, Numeric)
            kind = Float if parameter.step == "none" else Integer
            convert = float if parameter.step == "none" else int
            bounds = (convert(parameter.low), convert(parameter.high))
            space.add(kind(parameter.path, bounds, log=parameter.scale == "log"))
        scenario = Scenario(
            space,
            deterministic=not problem.noise,
            n_trials=horizon.num_trials or 60,
            seed=seed,
            output_directory=tempfile.mkdtemp(),
        )
        self.facade = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=40
        )

    def suggest(self) -> dict[str, Any]:
        self.info = self.facade.ask()
        return dict(self.info.config)

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        from smac.runhistory.dataclasses import TrialValue

        self.facade.tell(self.info, TrialValue(cost=-score, time=cost))


class Hebo:
    """HEBO, by suggest and observe."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon) -> None:
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        kinds = {"uniform": "num", "log_normal": "pow", "int_uniform": "int", "int_log_normal": "pow_int"}
        fields = [
            {"name": name, "type": kinds[config.distribution], "lb": config.min, "ub": config.max, "base": 10}
            for name, config in problem.parameters.items()
        ]
        for described in fields:
            if described["type"] not in ("pow", "pow_int"):
                del described["base"]
        warnings.simplefilter("ignore")
        self.designer = HEBO(DesignSpace().parse(fields), scramble_seed=seed)
        np.random.seed(seed)  # noqa: NPY002

    def suggest(self) -> dict[str, Any]:
        self.frame = self.designer.suggest(n_suggestions=1)
        return dict(self.frame.to_dict("records")[0])

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        self.designer.observe(self.frame, np.array([[-score]]))


class PufferProtein:
    """PufferLib's Protein, with its defaults; whole numbers on a log scale, which it lacks, are rounded here."""

    def __init__(self, problem: Problem, seed: int, horizon: Horizon) -> None:
        import random

        import pyro
        from pufferlib.sweep import Protein as Designer

        pyro.set_rng_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        warnings.simplefilter("ignore")
        config: dict[str, Any] = {"method": "Protein", "metric": "score", "goal": "maximize"}
        self.parameters = {p.path: p for p in Space(problem.parameters).parameters if isinstance(p, Numeric)}
        for path, parameter in self.parameters.items():
            distribution = problem.parameters[path].distribution
            config[path] = {
                "distribution": "log_normal" if distribution == "int_log_normal" else distribution,
                "min": parameter.low,
                "max": parameter.high,
                "mean": parameter.centre,
                "scale": "auto",
            }
        with redirect_stdout(StringIO()):
            self.designer = Designer(config)

    def suggest(self) -> dict[str, Any]:
        with redirect_stdout(StringIO()):
            params, _ = self.designer.suggest({})
        return {path: round(v) if self.parameters[path].step == "integer" else float(v) for path, v in params.items()}

    def observe(self, params: Mapping[str, Any], score: float, cost: float) -> None:
        self.designer.observe(params, score, cost)


OPTIMIZERS: dict[str, Callable[[Problem, int, Horizon], Optimizer]] = {
    "protein": Protein,
    "protein-8": ProteinEight,
    "random": Random,
    "optuna-tpe": optuna_tpe,
    "optuna-gp": optuna_gp,
    "optuna-cmaes": optuna_cmaes,
    "botorch-logei": BoTorch,
    "botorch-ei-per-cost": botorch_per_cost,
    "flaml-blendsearch": BlendSearch,
    "smac3": Smac,
    "hebo": Hebo,
    "pufferlib-protein": PufferProtein,
}

PACKAGES = {
    "protein": ["numpy", "scipy"],
    "protein-8": ["numpy", "scipy"],
    "random": ["numpy"],
    "optuna-tpe": ["optuna"],
    "optuna-gp": ["optuna", "torch"],
    "optuna-cmaes": ["optuna", "cmaes"],
    "botorch-logei": ["botorch", "torch"],
    "botorch-ei-per-cost": ["botorch", "torch"],
    "flaml-blendsearch": ["flaml", "optuna"],
    "smac3": ["smac"],
    "hebo": ["HEBO"],
    "pufferlib-protein": ["pufferlib-core", "pyro-ppl", "torch"],
}


def versions(optimizer: str) -> dict[str, str]:
    """Versions of the packages behind an optimiser."""
    return {package: version(package) for package in PACKAGES[optimizer]}
