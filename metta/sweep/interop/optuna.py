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

    It holds nothing but the study's own trials: what it suggested is kept with each trial as a system attribute. So a
    study can be loaded and gone on with anywhere, and processes and threads that share one know of each other's
    running trials.

    Parameters that every finished trial has, with the same range, are searched together. Any other (a conditional
    one, one whose range changes, and all of the very first trial) is searched by itself, by a Protein of that one
    parameter. While some
    combination of values is untried, no two trials get the same one.

    A pruned trial is neither a failure nor a score of a whole run. Once there is one that reported, whoever pruned it,
    the sampler learns from learning curves: from where a trial was pruned, and from how far such values told the end of
    those that completed. A trial is a failure if it failed, if it was pruned before it reported anything, or if it
    violates a constraint.

    Args:
        seed: of all random draws; drawn once if left out.
        cost: what a trial costs: "duration" in seconds, or the name of a user attribute that every completed trial
            sets to a number of at least 0.
        max_cost: what all trials together may cost. With it, the first trials are cheap ones, and the last look for
            the best value that what is left can pay for. Without it, cost does not matter.
        settings: how to search.
        num_trials: how many trials there will be at most, where that is known. Without `max_cost`, `ProteinPruner` then
            prunes fewer, because what is saved is not spent on more trials.
        margin: the share of a range of real numbers, on its scale, that is kept free at either end. Programs often take
            the ends of a range for exclusive. With 0, values may lie exactly on them. Whole numbers, and numbers with a
            step, are not concerned.
        constraints_func: answers for a trial with numbers that are at most 0 where the trial meets its constraints, as
            in Optuna's samplers. Constraints that the objective itself sets count as well.

    Raises:
        UserError: a margin that is not at least 0 and below a half.

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
            self._say_why_alone(study, param_name, param_distribution)
            # Else all parameters' first values would be spread over the same diagonal
            seed = (self._seed + zlib.crc32(param_name.encode())) % 2**32
            params, _ = self._suggest(study, trial, {param_name: param_distribution}, seed)
            trials = study.get_trials(deepcopy=False)
        generator = random.Random(f"{seed}:{trial.number}")
        return untried(param_name, param_distribution, params[param_name], trial, trials, generator)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)

    def prunes(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `ProteinPruner` prunes a running trial. What is decided at a rung is kept with the trial.

        So each rung is decided once, and whoever asks again is given the same answer.
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
        """Protein over these parameters, with all trials of the study as they now are."""
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


class ProteinPruner(BasePruner):
    """Prunes the trials of a study that `ProteinSampler` samples, with the same model.

    Trials are compared at shares of a whole run, with the rules of `metta.sweep.protein.stopping`. "protein" learns how
    well an early value tells the end, and keeps the more of the trials the less it tells. Nothing is pruned before a
    first trial has completed.

    Args:
        rule: "protein", "asha", "hyperband" or "median".
        min_share: no trial is pruned before this share of a whole run.
        total_steps: how many steps a whole run reports; those of the longest completed trial if left out.

    Raises:
        UserError: another rule, or a number that is out of range.

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
            raise UserError(f"min_share must lie between 0 and 1, not {min_share}")
        if total_steps is not None and total_steps < 1:
            raise UserError(f"total_steps must be at least 1, not {total_steps}")
        self.rule: Rule = rule
        self.min_share = min_share
        self.total_steps = total_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """
        Raises:
            UserError: the study has another sampler.
        """
        if not isinstance(study.sampler, ProteinSampler):
            found = type(study.sampler).__name__
            raise UserError(f"ProteinPruner asks the study's sampler: it must be a ProteinSampler, not {found}")
        return study.sampler.prunes(study, trial)


def _watching(trials: Sequence[FrozenTrial], pruner: ProteinPruner | None) -> Watching:
    """How the curves of a study are looked at: not at all before one shows what is pruned, or could be."""
    reported = [trial for trial in trials if trial.state.is_finished() and trial.intermediate_values]
    if not any(pruner or trial.state is TrialState.PRUNED for trial in reported):
        return Watching()
    if pruner is None:
        return Watching("protein", MIN_SHARE, whole_run(reported))
    return Watching(pruner.rule, pruner.min_share, pruner.total_steps or whole_run(reported))


@dataclass
class _Memory:
    """What a sampler need not read again of a study.

    Attributes:
        space: the parameters that every finished trial has.
        proteins: by search space and how curves are looked at, those used last.
        said: parameters that the log has mentioned.
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
