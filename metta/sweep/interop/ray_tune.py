"""Protein as a search algorithm of Ray Tune."""

from __future__ import annotations

import base64
import copy
import json
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ray import cloudpickle
from ray.tune.search import UNDEFINED_METRIC_MODE, UNDEFINED_SEARCH_SPACE
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Normal, Quantized, Uniform
from ray.tune.search.searcher import Searcher
from ray.tune.search.variant_generator import assign_value, parse_spec_vars

from metta.common.errors import UserError, nearest
from metta.common.plain import plain, plain_float
from metta.sweep.distributions import Distribution
from metta.sweep.protein import Protein
from metta.sweep.protein.types import Rule
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

STEP = "training_iteration"
"""The result that counts the results of a trial."""
REACH = 3.0
"""Standard deviations from the mean of a normal distribution to the bounds between which it is searched."""

log = logging.getLogger(__name__)


class ProteinSearch(Searcher):
    """Suggests with Protein, the cost-aware optimiser, for experiments with one metric.

    A completed trial counts with the last result that Tune has of it. A trial that a scheduler such as ASHA stopped
    early is neither a failure nor a score of a whole run: the search learns from its learning curve, and from how well
    such values predicted the end of the other trials. A whole run has as many results as the longest trial.

    A trial that ended in an error, without the metric, or with a metric that is not a finite number, counts as a
    failure, until Tune tries it again (`Tuner.restore` with `resume_errored` or `restart_errored`) and it succeeds. A
    cost that is not a finite number of at least 0 is unknown. Running trials are taken into account, so that concurrent
    ones differ.

    Its state is saved as JSON beside Tune's own; choices that JSON cannot represent are pickled in it.

    Args:
        space: Tune's search space, nested like the configuration, including fixed values; by default Tune's
            `param_space`. `uniform`, `loguniform`, `randint`, `lograndint`, `randn`, their quantised forms and `choice`
            are supported. `randn` has no bounds; it is searched up to three standard deviations from its mean.
        metric, mode: the score and its direction; by default those of Tune's `TuneConfig`.
        cost: the result that is a trial's cost.
        seed: seed of all random draws; by default drawn once.
        max_cost: the budget for all trials together. With it, the first trials are cheap ones, and the last ones look
            for the best score that the remaining budget allows. Without it, cost does not matter.
        points_to_evaluate: configurations to begin with. Missing values are suggested.
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
        self._watching = _Watching()
        self._check_points()

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        if self._space is not None and config:
            return False
        self._space = self._space or _Space.of(config)
        self._metric = metric or self._metric
        self._mode = mode or self._mode
        self._check_points()
        return True

    def _check_points(self) -> None:
        if self._space is not None:
            for point in self._points_to_evaluate:
                self._space.check_names(point)
                self._space.given(point)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The configuration of a new trial.

        Raises:
            UserError: no search space, metric or mode was given.
        """
        space, protein = self._ready()
        number = len(self._trials)
        params, info = protein.suggest()
        if number < len(self._points_to_evaluate):
            given = space.given(self._points_to_evaluate[number])
            params, info = {**params, **given}, {"source": "points to evaluate"}
            protein.forget(number)
            protein.suggested(number, params, info)
        self._trials[trial_id] = _Trial(number, params, info)
        return space.config(params)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record a point of the learning curve.

        Tune may try an ended trial again. When it limits concurrency, it does not report the end of that attempt.
        """
        trial = self._trials.get(trial_id)
        tried_again = self._restarted(trial_id, result) if trial is None else trial.ended
        if trial_id not in self._trials or str(self._metric) not in result:
            return
        self._show(trial_id, result)
        if tried_again:
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

    def _show(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Append a result to a trial's learning curve. If the trial repeats earlier steps, they are replaced."""
        step, value = _number(result.get(STEP)), _number(result.get(str(self._metric)))
        if step is None or value is None:
            return
        trial = self._trials[trial_id]
        trial.curve = [point for point in trial.curve if point[0] < step]
        trial.curve.append((step, _cost(result.get(self._cost)) or 0.0, value))

    def _learn(self, trial_id: str, result: Mapping[str, Any], error: bool) -> None:
        """
        A trial that ends on its own ends after its last result, which was recorded before. A trial that is stopped ends
        with a result that was not recorded yet, or, if it was paused, without one.
        """
        trial, protein = self._trials[trial_id], self._ready()[1]
        metric = str(self._metric)
        if result.get(metric) is not None and result.get(self._cost) is None:
            raise UserError(f"trial {trial_id}: its results do not have the cost {self._cost!r}")
        shown = trial.curve[-1][0] if trial.curve else None
        trial.stopped = not error and (result.get(STEP) != shown if result else shown is not None)
        if result:
            self._show(trial_id, result)
            trial.score, trial.cost = _number(result.get(metric)), _cost(result.get(self._cost))
        elif trial.curve:
            _, trial.cost, trial.score = trial.curve[-1]
        trial.ended, trial.failed = True, error or trial.score is None
        self._warn(trial_id, trial, result, error)
        self._tell(protein, trial)

    def _warn(self, trial_id: str, trial: _Trial, result: Mapping[str, Any], error: bool) -> None:
        value, cost = result.get(str(self._metric)), result.get(self._cost)
        if trial.failed and not error:
            without = f"without {self._metric!r}" if value is None else f"with {self._metric!r} = {value!r}"
            log.warning("trial %s ended %s: it counts as a failure", trial_id, without)
        if trial.cost is None and cost is not None:
            log.warning(
                "trial %s: %r = %r is not a finite number of at least 0: it has no cost", trial_id, self._cost, cost
            )

    def _restarted(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Replace a failed trial by its restart, which has another id but the same configuration. Results contain the
        configuration under names such as ``config/optimizer/lr``.
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
        """Continue from a file of `save`. Space, metric and mode are taken from it if this search has none.

        Raises:
            UserError: `save` did not write the file, or it belongs to another search space or is incomplete.
        """
        try:
            state = json.loads(Path(checkpoint_path).read_text())
            trials = {trial_id: _Trial.restored(trial) for trial_id, trial in state["trials"].items()}
            seed, described = int(state["seed"]), state["parameters"]
            space = self._space or _Space.restored(described)
            metric, mode = self._metric or state["metric"], self._mode or state["mode"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{checkpoint_path}: not a saved ProteinSearch") from None
        if not space.matches(described):
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
        watching = _Watching.of(self._trials.values())
        if self._protein is None or watching != self._watching:
            self._watching = watching
            config = ProteinConfig(
                metric=self._metric,
                goal="maximize" if self._mode == "max" else "minimize",
                parameters=self._space.configs,
                settings=self._settings,
            )
            rule: Rule = "off" if watching.total is None else "protein"
            self._protein = Protein(config, self._seed, max_cost=self._max_cost, early_stopping=rule)
            self._seed = self._protein.seed
            for trial in self._trials.values():
                self._tell(self._protein, trial)
        return self._space, self._protein

    def _tell(self, protein: Protein, trial: _Trial) -> None:
        if not trial.ended:
            protein.suggested(trial.number, trial.params, trial.info)
            return
        total = self._watching.total
        stopped = trial.stopped and total is not None and trial.steps < total
        protein.observe(
            trial.params,
            None if stopped else trial.score,
            trial.cost,
            trial.failed,
            number=trial.number,
            info=trial.info,
            curve=trial.curve,
            total_steps=total if stopped else None,
            stopped=stopped,
        )


@dataclass
class _Trial:
    """A trial as Protein learns from it, in JSON's types.

    Attributes:
        stopped: it did not end on its own. It is still a whole run if no trial was longer.
        curve: its reports: step, cost until then, value.
    """

    number: int
    params: dict[str, Any]
    info: dict[str, Any]
    ended: bool = False
    failed: bool = False
    score: float | None = None
    cost: float | None = None
    stopped: bool = False
    curve: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def steps(self) -> float:
        return self.curve[-1][0] if self.curve else 0.0

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> _Trial:
        """A saved trial. Earlier versions saved scores and costs unchecked."""
        names = {each.name for each in fields(cls)}
        trial = cls(**{name: value for name, value in saved.items() if name in names})
        trial.curve = [(step, cost, value) for step, cost, value in trial.curve]
        trial.score, trial.cost = _number(trial.score), _cost(trial.cost)
        trial.failed = trial.failed or (trial.ended and trial.score is None)
        return trial


@dataclass(frozen=True)
class _Watching:
    """How learning curves are used.

    Attributes:
        total: results of a whole run; None while no trial was stopped early, because then curves are not used.
    """

    total: float | None = None

    @classmethod
    def of(cls, trials: Collection[_Trial]) -> _Watching:
        longest = max((trial.steps for trial in trials), default=0.0)
        early = (trial.ended and trial.stopped and not trial.failed and trial.steps < longest for trial in trials)
        return cls(longest if any(early) else None)


def _number(value: Any) -> float | None:
    """A finite number of any library as a float; None for anything else."""
    try:
        number = plain_float(value)
    except TypeError:
        return None
    return number if math.isfinite(number) else None


def _cost(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


@dataclass(frozen=True)
class _Parameter:
    """A Tune domain converted to a parameter of Protein.

    Attributes:
        path: its path in the configuration.
        config: a range of the values, of their multiples of `step`, or of the indices of `categories`.
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
    """Tune's search space, and the conversion between its configurations and Protein's parameters."""

    def __init__(self, spec: Mapping[str, Any], parameters: Iterable[_Parameter]) -> None:
        self._spec = spec
        self._parameters = {f"p{i}": parameter for i, parameter in enumerate(parameters)}

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> _Space:
        """Read Tune's search space.

        Raises:
            UserError: a domain cannot be searched; the message names it.
        """
        _, domains, grids = parse_spec_vars(dict(spec))
        if grids:
            raise UserError(f"{_name(grids[0][0])}: grid_search cannot be searched; use choice")
        if not domains:
            raise UserError("the search space is empty: it has no domain of Tune, such as tune.uniform(0, 1)")
        return cls(spec, [_parameter(path, domain) for path, domain in domains])

    @classmethod
    def restored(cls, described: list[dict[str, Any]]) -> _Space:
        """The space of a description, without fixed values, which Tune saves itself.

        Raises:
            UserError: it has categories that could not be saved.
        """
        spec: dict[str, Any] = {}
        parameters = []
        for each in described:
            path, categories = tuple(each["path"]), _loaded(each)
            if categories is None:
                raise UserError(f"{_name(path)}: its categories {each['names']} were not saved; give the search space")
            node = spec
            for key in path[:-1]:
                node = node.setdefault(key, {})
            config = ParameterConfig.model_validate(each["config"])
            parameters.append(_Parameter(path, config, each["step"], categories))
        return cls(spec, parameters)

    @property
    def configs(self) -> dict[str, ParameterConfig]:
        return {key: parameter.config for key, parameter in self._parameters.items()}

    def described(self) -> list[dict[str, Any]]:
        """The parameters in JSON's types; categories of other types are pickled, if possible."""
        return [
            {
                "path": list(parameter.path),
                "config": parameter.config.model_dump(mode="json"),
                "step": parameter.step,
                "names": [repr(category) for category in parameter.categories],
                **_saved(parameter.categories),
            }
            for parameter in self._parameters.values()
        ]

    def matches(self, described: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a description matches this space. For categories that are not JSON, only their number is compared."""
        mine, other = (
            [[each[name] for name in ("path", "config", "step", "categories")] for each in space]
            for space in (self.described(), described)
        )
        return mine == other

    def config(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration for Tune."""
        config = copy.deepcopy(dict(self._spec))
        for key, parameter in self._parameters.items():
            assign_value(config, parameter.path, parameter.from_protein(params[key]))
        return config

    def params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters for Protein.

        Raises:
            UserError: a parameter is missing, or its value is not one of its categories.
        """
        params = self.given(config)
        if missing := self._parameters.keys() - params.keys():
            raise UserError(f"{_name(self._parameters[min(missing)].path)} is missing in {dict(config)}")
        return params

    def given(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Protein's parameters from a point to evaluate.

        Raises:
            UserError: a value is not in the space, or a name is unknown.
        """
        params = {}
        for key, parameter in self._parameters.items():
            where = f"points_to_evaluate: {_name(parameter.path)}"
            try:
                value = _at(point, parameter.path)
            except (LookupError, TypeError):
                continue
            try:
                params[key] = plain(parameter.to_protein(value))
            except ValueError:
                raise UserError(f"{where}: {value!r} is not one of {parameter.categories}") from None
            except TypeError:
                raise UserError(f"{where}: {value!r} is not a number") from None
        return params

    def check_names(self, point: Mapping[str, Any]) -> None:
        """
        Raises:
            UserError: a point to evaluate has a name that is not in the space.
        """
        known = [_name(path) for path in _paths(self._spec)]
        for path in _paths(point):
            if (name := _name(path)) not in known:
                raise UserError(f"points_to_evaluate: {name} is not in the search space; {nearest(name, known)}")


def _paths(node: Mapping[Any, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, (*above, key))
        else:
            yield (*above, key)


def _saved(categories: list[Any]) -> dict[str, Any]:
    """Categories in JSON: unchanged, or pickled; neither if they cannot be pickled."""
    if _is_json(categories):
        return {"categories": categories}
    try:
        return {"categories": None, "pickled": base64.b64encode(cloudpickle.dumps(categories)).decode()}  # type: ignore[no-untyped-call]
    except Exception:  # a class of the user may raise anything
        return {"categories": None}


def _loaded(described: Mapping[str, Any]) -> list[Any] | None:
    if described["categories"] is None and "pickled" in described:
        return list(cloudpickle.loads(base64.b64decode(described["pickled"])))
    return None if described["categories"] is None else list(described["categories"])


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
    """The nested configuration of a result's trial."""
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
    """Convert a domain. Tune's upper bounds of whole numbers are exclusive, but inclusive if quantised above 1."""
    sampler: Any = domain.get_sampler()  # type: ignore[no-untyped-call]
    quantum = None
    if isinstance(sampler, Quantized):
        sampler, quantum = sampler.sampler, plain(sampler.q)
    if isinstance(domain, Categorical):
        return _choice(path, list(domain.categories))
    if not isinstance(domain, Float | Integer) or not isinstance(sampler, Uniform | LogUniform | Normal):
        raise UserError(f"{_name(path)}: {type(domain).__name__} {domain.domain_str} cannot be searched")
    lower, upper, mean = domain.lower, domain.upper, None
    if isinstance(sampler, Normal):
        lower, upper, mean = sampler.mean - REACH * sampler.sd, sampler.mean + REACH * sampler.sd, sampler.mean
        log.info("%s has no bounds: it is searched from %g to %g", _name(path), lower, upper)
    log_scale = isinstance(sampler, LogUniform)
    if isinstance(domain, Float) and quantum is None:
        return _ranged(path, domain, lower, upper, "log_normal" if log_scale else "uniform", mean)
    step = quantum or 1
    excluded = 1 if isinstance(domain, Integer) and step == 1 else 0
    low = math.ceil(round(lower / step, 9))
    high = math.floor(round((upper - excluded) / step, 9))
    middle = None if mean is None else min(max(round(mean / step), low), high)
    return _ranged(path, domain, low, high, "int_log_normal" if log_scale else "int_uniform", middle, step)


def _ranged(
    path: tuple[Any, ...],
    domain: Domain,
    low: float,
    high: float,
    distribution: Distribution,
    mean: float | None,
    step: float | None = None,
) -> _Parameter:
    """A range of numbers; a range with a single number becomes a choice of it."""
    if low > high:
        raise UserError(f"{_name(path)}: its range is empty")
    if low == high:
        return _choice(path, [domain.cast(low * step if step else low)])  # type: ignore[no-untyped-call]
    return _Parameter(path, ParameterConfig(min=low, max=high, distribution=distribution, mean=mean), step)


def _choice(path: tuple[Any, ...], categories: list[Any]) -> _Parameter:
    indices: list[Any] = list(range(len(categories)))
    return _Parameter(path, ParameterConfig(choices=indices, distribution="categorical"), categories=categories)
