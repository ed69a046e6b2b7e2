"""Protein as a sampler of Optuna, and sweeps and studies made of each other."""

from __future__ import annotations

import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from metta.common.errors import UserError
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

SUGGESTION_ATTRIBUTE = "protein"
"""System attribute of a trial: what Protein suggested and said of it."""
DURATION = "duration"
MAX_PROTEINS = 32

log = logging.getLogger(__name__)


class ProteinSampler(BaseSampler):
    """Samples with Protein, the cost-aware optimiser, for studies of one objective.

    It holds nothing but the study's own trials: what it suggested is kept with each trial as a system attribute. So a
    study can be loaded and gone on with anywhere, and processes and threads that share one know of each other's
    running trials.

    Parameters that every finished trial has, with the same range, are searched together. Any other (a conditional
    one, one whose range changes, and all of the very first trial) is searched by itself, by a Protein of that one
    parameter.

    A pruned trial counts with its last reported value and its cost so far; one that failed, or was pruned before it
    reported anything, as a failure.

    Args:
        seed: of all random draws; drawn once if left out.
        cost: what a trial costs: "duration" in seconds, or the name of a user attribute that every completed trial
            sets to a number of at least 0.
        max_cost: what all trials together may cost. With it, the first trials are cheap ones, and the last look for
            the best value that what is left can pay for. Without it, cost does not matter.
        settings: how to search.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=ProteinSampler(seed=0))
        >>> study.optimize(lambda trial: (trial.suggest_float("x", -10, 10) - 2) ** 2, n_trials=20)
        >>> study.best_value < 0.01
        True
    """

    def __init__(
        self,
        seed: int | None = None,
        cost: str = DURATION,
        max_cost: float | None = None,
        settings: ProteinSettings | None = None,
    ) -> None:
        any_space = ProteinConfig(
            metric="value", parameters={"x": ParameterConfig(min=0, max=1, distribution="uniform")}
        )
        self._seed = Protein(any_space, seed, max_cost=max_cost).seed
        self._cost = cost
        self._max_cost = max_cost
        self._settings = settings or ProteinSettings()
        self._memory: _Memory | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_memory", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _memory=None, _lock=threading.RLock())

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._raise_error_if_multi_objective(study)
        with self._lock:
            space = self._remember(study).space.calculate(study)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        searched = {name: space for name, space in search_space.items() if not space.single()}
        if not searched:
            return {}
        with self._lock:
            params, info = self._suggest(study, trial, searched, self._seed)
            study._storage.set_trial_system_attr(trial._trial_id, SUGGESTION_ATTRIBUTE, {"params": params, **info})
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        with self._lock:
            self._say_why_alone(study, param_name, param_distribution)
            # Else all parameters' first values would be spread over the same diagonal
            seed = (self._seed + zlib.crc32(param_name.encode())) % 2**32
            params, _ = self._suggest(study, trial, {param_name: param_distribution}, seed)
        return params[param_name]

    def _suggest(
        self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution], seed: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        protein = self._remember(study).protein_for(space, lambda: self._protein_of(study, space, seed))
        protein.tell(study.get_trials(deepcopy=False))
        return protein.suggest(trial.number)

    def _protein_of(self, study: Study, space: Mapping[str, BaseDistribution], seed: int) -> _StudyProtein:
        parameters = {
            name: _Parameter.of(f"p{i}", distribution) for i, (name, distribution) in enumerate(space.items())
        }
        config = ProteinConfig(
            metric="value",
            goal="maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize",
            parameters={parameter.key: parameter.config for parameter in parameters.values()},
            settings=self._settings,
        )
        return _StudyProtein(
            parameters, Protein(config, seed, max_cost=self._max_cost), lambda trial: cost_of(trial, self._cost)
        )

    def _remember(self, study: Study) -> _Memory:
        """What is known of this study; a sampler may go from one study to another."""
        memory = self._memory
        if memory is None or memory.storage is not study._storage or memory.study_id != study._study_id:
            memory = self._memory = _Memory(study._storage, study._study_id)
        return memory

    def _say_why_alone(self, study: Study, name: str, distribution: BaseDistribution) -> None:
        memory = self._remember(study)
        if name in memory.said or memory.space.calculate(study).get(name) == distribution:
            return
        if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            memory.said.add(name)
            log.warning(
                "parameter %r is searched by itself: not every finished trial of study %r has it with the same range",
                name,
                study.study_name,
            )


def cost_of(trial: FrozenTrial, cost: str = DURATION) -> float | None:
    """What a finished trial cost: its duration in seconds, or the user attribute of that name.

    Returns:
        None for a trial that did not complete and has no cost.

    Raises:
        UserError: a completed trial without a cost, or a cost that is not a number of at least 0.
    """
    if cost == DURATION:
        value = None if trial.duration is None else trial.duration.total_seconds()
    else:
        value = trial.user_attrs.get(cost)
    if value is None and trial.state is not TrialState.COMPLETE:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        found = "has none" if value is None else f"has {value!r}"
        where = "a duration" if cost == DURATION else f"the user attribute {cost!r}, a number of at least 0"
        raise UserError(f"trial {trial.number} costs {where}, but it {found}")
    return float(value)


@dataclass(frozen=True)
class _Parameter:
    """A parameter of Optuna as one of Protein.

    Attributes:
        key: its name there; Optuna's own may hold dots.
        distribution: of Optuna.
        config: a category is its index, and a number with a step counts the steps above the lowest.
    """

    key: str
    distribution: BaseDistribution
    config: ParameterConfig

    @classmethod
    def of(cls, key: str, distribution: BaseDistribution) -> _Parameter:
        match distribution:
            case CategoricalDistribution(choices=choices):
                config = ParameterConfig(choices=list(range(len(choices))), distribution="categorical")
            case IntDistribution(low=low, high=high) | FloatDistribution(low=low, high=high) if distribution.log:
                whole = isinstance(distribution, IntDistribution)
                config = ParameterConfig(min=low, max=high, distribution="int_log_normal" if whole else "log_normal")
            case IntDistribution() | FloatDistribution() if step := _step(distribution):
                steps = round((distribution.high - distribution.low) / step)
                config = ParameterConfig(min=0, max=steps, distribution="int_uniform")
            case IntDistribution(low=low, high=high):
                config = ParameterConfig(min=low, max=high, distribution="int_uniform")
            case FloatDistribution(low=low, high=high):
                config = ParameterConfig(min=low, max=high, distribution="uniform")
            case _:
                raise UserError(f"{type(distribution).__name__} is not a distribution that Protein supports")
        return cls(key, distribution, config)

    def to_protein(self, value: Any) -> Any:
        """Raises ValueError for what is none of the choices."""
        match self.distribution:
            case CategoricalDistribution():
                return int(self.distribution.to_internal_repr(value))
            case IntDistribution() | FloatDistribution() if step := _step(self.distribution):
                return (value - self.distribution.low) / step
        return value

    def from_protein(self, value: Any) -> Any:
        match self.distribution:
            case IntDistribution() | FloatDistribution() if step := _step(self.distribution):
                value = min(self.distribution.low + value * step, self.distribution.high)
        return self.distribution.to_external_repr(value)


def _step(distribution: IntDistribution | FloatDistribution) -> float | None:
    """The step that values are counted in, or None where Protein has the values themselves."""
    if isinstance(distribution, IntDistribution) and distribution.step == 1:
        return None
    return distribution.step


class _StudyProtein:
    """Protein over some parameters of a study, which is given each trial under its own number.

    Args:
        parameters: by Optuna's name.
        protein: searches them by their keys, and knows nothing yet.
        cost: what a finished trial cost.
    """

    def __init__(
        self, parameters: Mapping[str, _Parameter], protein: Protein, cost: Callable[[FrozenTrial], float | None]
    ) -> None:
        self._parameters = parameters
        self._protein = protein
        self._cost = cost
        self._finished: set[int] = set()
        self._outstanding: set[int] = set()
        self._silent: list[int] = []

    def tell(self, trials: Iterable[FrozenTrial]) -> None:
        """Give it all trials of the study as they now are, in the order of their numbers."""
        self._silent = []
        for trial in trials:
            if trial.number in self._finished or trial.state is TrialState.WAITING:
                continue
            params, info = self._params(trial)
            if trial.state.is_finished():
                self._finished.add(trial.number)
                self._finish(trial, params, info)
            elif params is None:
                self._silent.append(trial.number)
            else:
                self._suggested(trial.number, params, info)

    def suggest(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Suggest for a trial, in Optuna's names and values.

        An earlier trial that runs and has said nothing may be at this very point in another process. So what it
        would be suggested is taken as said.
        """
        for silent in self._silent:
            if silent < number and silent not in self._outstanding:
                self._suggested(silent, *self._protein.suggest())
        params, info = self._protein.suggest()
        info["number"] = number
        self._suggested(number, params, info)
        return {name: p.from_protein(params[p.key]) for name, p in self._parameters.items()}, info

    def _suggested(self, number: int, params: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        self._protein.suggested(number, params, info)
        self._outstanding.add(number)

    def _finish(self, trial: FrozenTrial, params: Mapping[str, Any] | None, info: Mapping[str, Any]) -> None:
        if trial.number in self._outstanding:
            self._outstanding.remove(trial.number)
            if params is None:
                self._protein.forget(trial.number)
        if params is None:
            return
        cost, score = self._cost(trial), trial.value
        failed = trial.state is TrialState.FAIL or score is None
        self._protein.observe(params, score, cost, is_failure=failed, number=trial.number, info=info)

    def _params(self, trial: FrozenTrial) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The trial's parameters as Protein has them, None if it lacks one, and what was said of them."""
        info = dict(trial.system_attrs.get(SUGGESTION_ATTRIBUTE, {}))
        suggested = info.pop("params", {})
        known = {**suggested, **trial.system_attrs.get("fixed_params", {}), **trial.params}
        if suggested.keys() != self._parameters.keys():
            info = {}
        try:
            return {p.key: p.to_protein(known[name]) for name, p in self._parameters.items()}, info
        except (KeyError, ValueError):
            return None, info


@dataclass
class _Memory:
    """What a sampler need not read again of a study.

    Attributes:
        space: the parameters that every finished trial has.
        proteins: by search space, those used last.
        said: parameters that the log has mentioned.
    """

    storage: BaseStorage
    study_id: int
    space: IntersectionSearchSpace = field(default_factory=lambda: IntersectionSearchSpace(include_pruned=True))
    proteins: OrderedDict[str, _StudyProtein] = field(default_factory=OrderedDict)
    said: set[str] = field(default_factory=set)

    def protein_for(self, space: Mapping[str, BaseDistribution], make: Callable[[], _StudyProtein]) -> _StudyProtein:
        key = repr(space)
        protein = self.proteins.pop(key, None) or make()
        self.proteins[key] = protein
        if len(self.proteins) > MAX_PROTEINS:
            self.proteins.popitem(last=False)
        return protein
