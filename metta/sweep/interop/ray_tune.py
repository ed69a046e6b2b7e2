"""Protein as a search algorithm of Ray Tune."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray.tune.search import UNDEFINED_METRIC_MODE, UNDEFINED_SEARCH_SPACE
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Quantized, Uniform
from ray.tune.search.searcher import Searcher
from ray.tune.search.variant_generator import assign_value, parse_spec_vars

from metta.common.errors import UserError
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

log = logging.getLogger(__name__)


class ProteinSearch(Searcher):
    """Suggests with Protein, the cost-aware optimiser, for experiments with one metric.

    A trial counts with the last result that Tune has of it, also where a scheduler such as ASHA stopped it: with the
    metric then and the cost so far. A trial that ended in an error, or without the metric, counts as a failure, until
    Tune tries it again (`Tuner.restore` with `resume_errored` or `restart_errored`) and it ends otherwise.
    Trials that run are taken into account, so that concurrent ones differ.

    Its state is saved as JSON beside Tune's own.

    Args:
        space: Tune's search space, nested as the configuration is, fixed values among it; Tune's `param_space` if left
            out. `uniform`, `loguniform`, `randint`, `lograndint`, their quantised forms and `choice` are possible.
        metric, mode: what is searched for; those of Tune's `TuneConfig` if left out.
        cost: the result that is a trial's cost.
        seed: of all random draws; drawn once if left out.
        max_cost: what all trials together may cost. With it, the first trials are cheap ones, and the last look for
            the best score that what is left can pay for. Without it, cost does not matter.
        points_to_evaluate: configurations to begin with; each has a value for every parameter that is searched.
        settings: how to search.

    Example:
        >>> from ray import tune
        >>> tuner = tune.Tuner(
        ...     lambda config: tune.report({"score": -((config["x"] - 2) ** 2)}),
        ...     param_space={"x": tune.uniform(-10, 10)},
        ...     tune_config=tune.TuneConfig(
        ...         metric="score", mode="max", search_alg=ProteinSearch(), num_samples=20, max_concurrent_trials=2
        ...     ),
        ... )
        >>> tuner.fit().get_best_result().config["x"]  # doctest: +SKIP
        2.0003
    """

    CKPT_FILE_TMPL = "searcher-state-{}.json"

    def __init__(
        self,
        space: Mapping[str, Any] | None = None,
        metric: str | None = None,
        mode: Literal["min", "max"] | None = None,
        *,
        cost: str = "time_total_s",
        seed: int | None = None,
        max_cost: float | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] = (),
        settings: ProteinSettings | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._cost = cost
        self._seed = seed
        self._max_cost = max_cost
        self._points_to_evaluate = list(points_to_evaluate)
        self._settings = settings or ProteinSettings()
        self._space = _Space.of(space) if space else None
        self._trials: dict[str, _Trial] = {}
        self._protein: Protein | None = None

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        if self._space is not None and config:
            return False
        self._space = self._space or _Space.of(config)
        self._metric = metric or self._metric
        self._mode = mode or self._mode
        return True

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The configuration of a new trial.

        Raises:
            UserError: no search space, metric or mode was given.
        """
        space, protein = self._ready()
        number = len(self._trials)
        if number < len(self._points_to_evaluate):
            params, info = space.params(self._points_to_evaluate[number]), {"source": "points to evaluate"}
            protein.suggested(number, params, info)
        else:
            params, info = protein.suggest()
        self._trials[trial_id] = _Trial(number, params, info)
        return space.config(params)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Learn from an ended trial that Tune tries again: when Tune limits concurrency, it reports no end."""
        trial = self._trials.get(trial_id)
        tried_again = self._restarted(trial_id, result) if trial is None else trial.ended
        if tried_again and str(self._metric) in result:
            self._learn(trial_id, result, error=False)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Learn from a trial that has ended; see the class.

        Raises:
            UserError: the result has the metric but not the cost.
        """
        result = result or {}
        if trial_id in self._trials or self._restarted(trial_id, result):
            self._learn(trial_id, result, error)
        else:
            log.warning("trial %s was not suggested here, so nothing is learnt from it", trial_id)

    def _learn(self, trial_id: str, result: Mapping[str, Any], error: bool) -> None:
        trial, protein = self._trials[trial_id], self._ready()[1]
        score, cost = result.get(str(self._metric)), result.get(self._cost)
        if score is not None and cost is None:
            raise UserError(f"trial {trial_id} costs {self._cost!r}, which its results do not have")
        if score is None and not error:
            log.warning("trial %s ended without %r: it counts as a failure", trial_id, self._metric)
        trial.ended, trial.failed = True, error or score is None
        trial.score = None if score is None or math.isnan(score) else float(score)
        trial.cost = None if cost is None else float(cost)
        _tell(protein, trial)

    def _restarted(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Replace a failed trial by the one that Tune restarted it as: under another id, but with the same
        configuration, which is in results by names such as ``config/optimizer/lr``.
        """
        space, _ = self._ready()
        try:
            params = space.params(_configuration(result))
        except (LookupError, UserError):
            return False
        failed = next((id for id, trial in self._trials.items() if trial.failed and trial.params == params), None)
        self._trials = {trial_id if id == failed else id: trial for id, trial in self._trials.items()}
        return failed is not None

    def save(self, checkpoint_path: str) -> None:
        """Write the trials and the seed to a JSON file."""
        space, protein = self._ready()
        state = {
            "seed": protein.seed,
            "metric": self._metric,
            "mode": self._mode,
            "parameters": space.described(),
            "trials": {trial_id: asdict(trial) for trial_id, trial in self._trials.items()},
        }
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Continue from what `save` wrote. Space, metric and mode are taken from there if this search has none.

        Raises:
            UserError: the file is none of `save`, or of another search space, or does not hold all of it.
        """
        try:
            state = json.loads(Path(checkpoint_path).read_text())
            trials = {trial_id: _Trial(**trial) for trial_id, trial in state["trials"].items()}
            seed, described = int(state["seed"]), state["parameters"]
            space = self._space or _Space.restored(described)
            metric, mode = self._metric or state["metric"], self._mode or state["mode"]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{checkpoint_path}: not a saved ProteinSearch") from None
        if space.described() != described:
            raise UserError(f"{checkpoint_path}: saved with another search space: {described}")
        self._space, self._metric, self._mode = space, metric, mode
        self._seed, self._trials, self._protein = seed, trials, None

    def _ready(self) -> tuple[_Space, Protein]:
        """The space, and Protein with all trials."""
        name = type(self).__name__
        if self._space is None:
            raise UserError(UNDEFINED_SEARCH_SPACE.format(cls=name, space="space"))
        if not self._metric or not self._mode:
            raise UserError(UNDEFINED_METRIC_MODE.format(cls=name, metric=self._metric, mode=self._mode))
        if self._protein is None:
            config = ProteinConfig(
                metric=self._metric,
                goal="maximize" if self._mode == "max" else "minimize",
                parameters=self._space.configs,
                settings=self._settings,
            )
            self._protein = Protein(config, self._seed, max_cost=self._max_cost)
            for trial in self._trials.values():
                _tell(self._protein, trial)
        return self._space, self._protein


@dataclass
class _Trial:
    """A trial as Protein learns it, in JSON's types."""

    number: int
    params: dict[str, Any]
    info: dict[str, Any]
    ended: bool = False
    failed: bool = False
    score: float | None = None
    cost: float | None = None


def _tell(protein: Protein, trial: _Trial) -> None:
    if trial.ended:
        protein.observe(trial.params, trial.score, trial.cost, trial.failed, number=trial.number, info=trial.info)
    else:
        protein.suggested(trial.number, trial.params, trial.info)


@dataclass(frozen=True)
class _Parameter:
    """A domain of Tune as a parameter of Protein.

    Attributes:
        path: where it stands in the configuration.
        config: over the values, or over their multiples of `step`, or over the indices of `categories`.
    """

    path: tuple[Any, ...]
    config: ParameterConfig
    step: float | None = None
    categories: list[Any] = field(default_factory=list)

    def to_protein(self, value: Any) -> Any:
        if self.categories:
            return self.categories.index(value)
        if not self.step:
            return value
        multiple = value / self.step
        return round(multiple) if math.isclose(multiple, round(multiple)) else multiple

    def from_protein(self, value: Any) -> Any:
        if self.categories:
            return self.categories[value]
        return value * self.step if self.step else value


class _Space:
    """Tune's search space, and the way between its configurations and Protein's parameters."""

    def __init__(self, spec: Mapping[str, Any], parameters: Iterable[_Parameter]) -> None:
        self._spec = spec
        self._parameters = {f"p{i}": parameter for i, parameter in enumerate(parameters)}

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> _Space:
        """Read Tune's search space.

        Raises:
            UserError: what cannot be searched, by name.
        """
        _, domains, grids = parse_spec_vars(dict(spec))
        if grids:
            raise UserError(f"{_name(grids[0][0])}: grid_search cannot be searched; use choice")
        if not domains:
            raise UserError("the search space is empty: nothing in it is a domain of Tune, such as tune.uniform(0, 1)")
        return cls(spec, [_parameter(path, domain) for path, domain in domains])

    @classmethod
    def restored(cls, described: list[dict[str, Any]]) -> _Space:
        """The space of a description, without fixed values: those Tune has kept itself.

        Raises:
            UserError: it has categories that are not in JSON's types.
        """
        spec: dict[str, Any] = {}
        parameters = []
        for each in described:
            path = tuple(each["path"])
            if each["categories"] is None:
                raise UserError(f"{_name(path)}: its categories {each['names']} were not saved; give the search space")
            node = spec
            for key in path[:-1]:
                node = node.setdefault(key, {})
            config = ParameterConfig.model_validate(each["config"])
            parameters.append(_Parameter(path, config, each["step"], each["categories"]))
        return cls(spec, parameters)

    @property
    def configs(self) -> dict[str, ParameterConfig]:
        return {key: parameter.config for key, parameter in self._parameters.items()}

    def described(self) -> list[dict[str, Any]]:
        """The parameters in JSON's types; categories that are not of these are named only."""
        return [
            {
                "path": list(parameter.path),
                "config": parameter.config.model_dump(mode="json"),
                "step": parameter.step,
                "categories": parameter.categories if _is_json(parameter.categories) else None,
                "names": [repr(category) for category in parameter.categories],
            }
            for parameter in self._parameters.values()
        ]

    def config(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration for Tune."""
        config = copy.deepcopy(dict(self._spec))
        for key, parameter in self._parameters.items():
            assign_value(config, parameter.path, parameter.from_protein(params[key]))
        return config

    def params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters for Protein.

        Raises:
            UserError: one is missing, or is none of its categories.
        """
        params = {}
        for key, parameter in self._parameters.items():
            try:
                params[key] = parameter.to_protein(_at(config, parameter.path))
            except LookupError:
                raise UserError(f"points_to_evaluate: {_name(parameter.path)} is missing in {dict(config)}") from None
            except ValueError:
                where = f"points_to_evaluate: {_name(parameter.path)}"
                raise UserError(f"{where}: {_at(config, parameter.path)!r} is none of {parameter.categories}") from None
        return params


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _at(config: Any, path: Iterable[Any]) -> Any:
    for key in path:
        config = config[key]
    return config


def _configuration(result: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the trial that a result is of, nested."""
    config: dict[str, Any] = {}
    for name, value in result.items():
        if name.startswith("config/"):
            _, *groups, last = name.split("/")
            node = config
            for group in groups:
                node = node.setdefault(group, {})
            node[last] = value
    return config


def _name(path: Iterable[Any]) -> str:
    return "/".join(map(str, path))


def _parameter(path: tuple[Any, ...], domain: Domain) -> _Parameter:
    """Tune's bounds of whole numbers are exclusive above, but inclusive where they are quantised by more than 1."""
    sampler: Any = domain.get_sampler()  # type: ignore[no-untyped-call]
    quantum = None
    if isinstance(sampler, Quantized):
        sampler, quantum = sampler.sampler, sampler.q
    log_scale = isinstance(sampler, LogUniform)
    if isinstance(domain, Categorical):
        choices: list[Any] = list(range(len(domain.categories)))
        return _Parameter(
            path, ParameterConfig(choices=choices, distribution="categorical"), categories=domain.categories
        )
    if not isinstance(domain, Float | Integer) or not isinstance(sampler, Uniform | LogUniform):
        raise UserError(f"{_name(path)}: {type(domain).__name__} {domain.domain_str} cannot be searched")
    if isinstance(domain, Float) and quantum is None:
        distribution: Literal["log_normal", "uniform"] = "log_normal" if log_scale else "uniform"
        return _Parameter(path, ParameterConfig(min=domain.lower, max=domain.upper, distribution=distribution))
    step = quantum or 1
    excluded = 1 if isinstance(domain, Integer) and step == 1 else 0
    low = math.ceil(round(domain.lower / step, 9))
    high = math.floor(round((domain.upper - excluded) / step, 9))
    config = ParameterConfig(min=low, max=high, distribution="int_log_normal" if log_scale else "int_uniform")
    return _Parameter(path, config, step)
