"""Protein as a sampler and a pruner of Optuna."""

from __future__ import annotations

import logging
import random
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from metta.common.errors import UserError, nearest
from metta.sweep.interop.optuna_protein import (
    DECISIONS_ATTRIBUTE,
    DURATION,
    MIN_SHARE,
    SUGGESTION_ATTRIBUTE,
    Parameter,
    StudyProtein,
    Watching,
    cost_of,
    curve_of,
    whole_run,
)
from metta.sweep.interop.optuna_untried import untried
from metta.sweep.protein import Protein
from metta.sweep.protein.types import Rule
from metta.sweep.protein_config import ParameterConfig, ProteinConfig, ProteinSettings

MAX_PROTEINS = 32
MARGIN = 1e-6

log = logging.getLogger(__name__)


class ProteinSampler(BaseSampler):
    """Samples with Protein, the cost-aware optimiser, for studies of one objective.

    Its only state is the study: each suggestion is stored with its trial as a system attribute. So a study can be
    loaded and continued anywhere, and processes and threads that share one see each other's running trials.

    Parameters that every finished trial has, with the same range, are searched together. Every other parameter (a
    conditional one, one whose range changes, and all of the first trial) is searched separately, by a Protein of that
    one parameter. As long as a combination of values is untried, no two trials get the same one.

    A pruned trial is neither a failure nor a score of a whole run. After the first pruned trial that reported, with any
    pruner, the sampler learns from learning curves: from the value at which a trial was pruned, and from how well such
    values predicted the end of those that completed. A trial is a failure if it failed, if it was pruned before it
    reported anything, or if it violates a constraint.

    Args:
        seed: seed of all random draws; by default drawn once.
        cost: the cost of a trial: "duration" in seconds, or the name of a user attribute that every completed trial
            sets to a number of at least 0.
        max_cost: the budget for all trials together. With it, the first trials are cheap ones, and the last ones look
            for the best value that the remaining budget allows. Without it, cost does not matter.
        settings: how to search.
        num_trials: the maximum number of trials, if known. Without `max_cost`, `ProteinPruner` then prunes fewer,
            because the savings are not spent on more trials.
        margin: the share of a range of real numbers, on its scale, that is not searched at either end, because programs
            often treat the ends as exclusive. With 0, values may be exactly at the ends. It does not apply to whole
            numbers, or to numbers with a step.
        constraints_func: returns numbers for a trial, which are at most 0 if the trial meets its constraints, as in
            Optuna's samplers. Constraints that the objective itself sets apply as well.

    Raises:
        UserError: the margin is not at least 0 and below a half.

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
        num_trials: int | None = None,
        margin: float = MARGIN,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        if not 0 <= margin < 0.5:
            raise UserError(f"margin must be at least 0 and below 0.5, not {margin}")
        any_space = ProteinConfig(
            metric="value", parameters={"x": ParameterConfig(min=0, max=1, distribution="uniform")}
        )
        self._seed = Protein(any_space, seed, num_trials, max_cost).seed
        self._cost = cost
        self._max_cost, self._num_trials = max_cost, num_trials
        self._settings = settings or ProteinSettings()
        self._margin = margin
        self._constraints_func = constraints_func
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
            self._log_separate_search(study, param_name, param_distribution)
            # Otherwise the first values of all parameters would lie on one diagonal
            seed = (self._seed + zlib.crc32(param_name.encode())) % 2**32
            params, _ = self._suggest(study, trial, {param_name: param_distribution}, seed)
            trials = study.get_trials(deepcopy=False)
        generator = random.Random(f"{seed}:{trial.number}")
        return untried(param_name, param_distribution, params[param_name], trial, trials, generator)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)

    def prunes(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `ProteinPruner` prunes a running trial.

        The decision at a rung is stored with the trial, so each rung is decided once, and later calls return the same.
        """
        self._raise_error_if_multi_objective(study)
        decisions = trial.system_attrs.get(DECISIONS_ATTRIBUTE, [])
        if decisions and not decisions[-1]["go_on"]:
            return True
        with self._lock:
            space = self.infer_relative_search_space(study, trial)
            curve = curve_of(trial)
            if not space or not curve:
                return False
            protein = self._protein_for(study, space, self._seed)
            decision = protein.decide(trial, decisions[-1]["step"] if decisions else 0)
        if decision is None or decision.share is None:
            return False
        decisions = [*decisions, {"step": curve[-1][0], **asdict(decision)}]
        study._storage.set_trial_system_attr(trial._trial_id, DECISIONS_ATTRIBUTE, decisions)
        return not decision.go_on

    def _suggest(
        self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution], seed: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._protein_for(study, space, seed).suggest(trial.number)

    def _protein_for(self, study: Study, space: Mapping[str, BaseDistribution], seed: int) -> StudyProtein:
        """Protein over these parameters, with all trials of the study in their current state."""
        trials, pruner = study.get_trials(deepcopy=False), study.pruner
        watching = _watching(trials, pruner if isinstance(pruner, ProteinPruner) else None)
        key = repr((space, watching))
        protein = self._remember(study).protein_for(key, lambda: self._protein_of(study, space, seed, watching))
        protein.tell(trials)
        return protein

    def _protein_of(
        self, study: Study, space: Mapping[str, BaseDistribution], seed: int, watching: Watching
    ) -> StudyProtein:
        parameters = {
            name: Parameter.of(f"p{i}", distribution, self._margin)
            for i, (name, distribution) in enumerate(space.items())
        }
        config = ProteinConfig(
            metric="value",
            goal="maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize",
            parameters={parameter.key: parameter.config for parameter in parameters.values()},
            settings=self._settings,
        )
        protein = Protein(
            config,
            seed,
            self._num_trials,
            self._max_cost,
            early_stopping=watching.rule,
            min_share=watching.min_share,
        )
        return StudyProtein(parameters, protein, watching, lambda trial: cost_of(trial, self._cost))

    def _remember(self, study: Study) -> _Memory:
        """The cache for this study; a sampler may be used with several studies."""
        memory = self._memory
        if memory is None or memory.storage is not study._storage or memory.study_id != study._study_id:
            memory = self._memory = _Memory(study._storage, study._study_id)
        return memory

    def _log_separate_search(self, study: Study, name: str, distribution: BaseDistribution) -> None:
        memory = self._remember(study)
        if name in memory.said or memory.space.calculate(study).get(name) == distribution:
            return
        if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            memory.said.add(name)
            log.warning(
                "parameter %r is searched separately: not every finished trial of study %r has it with the same range",
                name,
                study.study_name,
            )


class ProteinPruner(BasePruner):
    """Prunes the trials of a study that `ProteinSampler` samples, with the same model.

    Trials are compared at shares of a whole run, with the rules of `metta.sweep.protein.stopping`. "protein" learns how
    well an early value predicts the end, and the worse it predicts, the fewer trials it prunes. Nothing is pruned
    before a trial has completed.

    Args:
        rule: "protein", "asha", "hyperband" or "median".
        min_share: no trial is pruned before this share of a whole run.
        total_steps: how many steps a whole run reports; by default those of the longest completed trial.

    Raises:
        UserError: the rule is unknown, or a number is out of range.

    Example:
        >>> import optuna
        >>> def objective(trial):
        ...     x = trial.suggest_float("x", -10, 10)
        ...     for step in range(10):
        ...         trial.report((x - 2) ** 2 + 10 - step, step)
        ...         if trial.should_prune():
        ...             raise optuna.TrialPruned
        ...     return (x - 2) ** 2
        >>> study = optuna.create_study(sampler=ProteinSampler(seed=0), pruner=ProteinPruner())
        >>> study.optimize(objective, n_trials=30)
        >>> any(trial.state is TrialState.PRUNED for trial in study.trials)
        True
    """

    def __init__(self, rule: Rule = "protein", min_share: float = MIN_SHARE, total_steps: int | None = None) -> None:
        rules = [name for name in get_args(Rule) if name != "off"]
        if rule not in rules:
            raise UserError(f"rule: {rule!r} is not supported; {nearest(rule, rules)}")
        if not 0 < min_share < 1:
            raise UserError(f"min_share must be between 0 and 1, not {min_share}")
        if total_steps is not None and total_steps < 1:
            raise UserError(f"total_steps must be at least 1, not {total_steps}")
        self.rule: Rule = rule
        self.min_share = min_share
        self.total_steps = total_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """
        Raises:
            UserError: the study has a different sampler.
        """
        if not isinstance(study.sampler, ProteinSampler):
            found = type(study.sampler).__name__
            raise UserError(f"ProteinPruner needs a ProteinSampler as the study's sampler, not {found}")
        return study.sampler.prunes(study, trial)


def _watching(trials: Sequence[FrozenTrial], pruner: ProteinPruner | None) -> Watching:
    """How the curves of a study are used: not at all until a trial was pruned or a pruner could prune one."""
    reported = [trial for trial in trials if trial.state.is_finished() and trial.intermediate_values]
    if not any(pruner or trial.state is TrialState.PRUNED for trial in reported):
        return Watching()
    if pruner is None:
        return Watching("protein", MIN_SHARE, whole_run(reported))
    return Watching(pruner.rule, pruner.min_share, pruner.total_steps or whole_run(reported))


@dataclass
class _Memory:
    """A sampler's cache for a study.

    Attributes:
        space: the parameters that every finished trial has.
        proteins: the last used ones, by search space and use of curves.
        said: parameters that were mentioned in the log.
    """

    storage: BaseStorage
    study_id: int
    space: IntersectionSearchSpace = field(default_factory=lambda: IntersectionSearchSpace(include_pruned=True))
    proteins: OrderedDict[str, StudyProtein] = field(default_factory=OrderedDict)
    said: set[str] = field(default_factory=set)

    def protein_for(self, key: str, make: Callable[[], StudyProtein]) -> StudyProtein:
        protein = self.proteins.pop(key, None) or make()
        self.proteins[key] = protein
        if len(self.proteins) > MAX_PROTEINS:
            self.proteins.popitem(last=False)
        return protein
