"""What Protein learns from the trials of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metta.common.config import flatten
from metta.common.errors import UserError
from metta.sweep.constraints import ConstraintError
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein import Protein
from metta.sweep.protein.space import Space, SpaceError
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.trial import Trial, TrialState


class Learner:
    """Protein, told of a sweep's trials as the store has them.

    Trials of before a changed search space still teach it: a hyperparameter that is no longer searched is left out,
    and one that was not searched yet had the Tool's own value.

    Attributes:
        protein: the optimiser, as it was told.
    """

    def __init__(self, definition: SweepDefinition) -> None:
        self._metric, self._seeds_per_trial = definition.protein.metric, definition.seeds_per_trial
        self.protein = Protein(
            definition.protein,
            seed=definition.seed,
            num_trials=definition.num_trials,
            max_cost=definition.max_cost,
        )
        self._paths = hyperparameter_paths(definition.protein)
        defaults = flatten(definition.tool)
        self._defaults = {path: defaults[path] for path in self._paths if path in defaults}

    def tell(self, trial: Trial) -> None:
        """Tell of a trial as it now stands; a trial may be told of again as it changes."""
        params = {path: trial.params.get(path, self._defaults.get(path)) for path in self._paths}
        if trial.state.ended:
            score = score_of(trial, self._metric)
            failed = trial.state is not TrialState.COMPLETED or score is None
            self.protein.observe(
                params,
                score,
                trial.cost,
                is_failure=failed,
                noise=self._noise(trial),
                number=trial.number,
                info=trial.suggestion,
            )
        else:
            self.protein.suggested(trial.number, params, info=trial.suggestion)

    def _noise(self, trial: Trial) -> float | None:
        """Standard error of a trial's score, where measured: that of its mean over seeds, or of its evaluation."""
        if self._seeds_per_trial > 1:
            noise = trial.metrics.get(f"{self._metric}.std", math.nan) / math.sqrt(self._seeds_per_trial)
        else:
            noise = trial.metrics.get(f"{self._metric}.stderr", math.nan)
        return noise if math.isfinite(noise) and noise >= 0 else None

    def suggest(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next hyperparameters, flat with dotted keys, and what Protein says of them."""
        params, info = self.protein.suggest()
        return {path: _at(params, path) for path in self._paths}, info

    def best(self, max_cost: float | None = None) -> int | None:
        """Number of the trial, of those that cost no more, which the model recommends; None if none completed."""
        try:
            return self.protein.best(max_cost).number
        except LookupError:
            return None


def hyperparameter_paths(config: ProteinConfig) -> list[str]:
    """The dotted paths of everything that a suggestion sets."""
    return list(flatten(config.parameters))


def search_centre(config: ProteinConfig) -> dict[str, Any]:
    """The hyperparameters in the middle of the space, flat with dotted keys.

    Raises:
        UserError: no hyperparameters meet the constraints, or a constraint compares what cannot be compared.
    """
    space = Space(config.parameters, config.constraints)
    try:
        params = space.decode(space.centre)
    except (ConstraintError, SpaceError) as error:
        raise UserError(str(error)) from None
    return {path: _at(params, path) for path in hyperparameter_paths(config)}


def recommended_trial(
    definition: SweepDefinition, trials: Sequence[Trial], max_cost: float | None = None
) -> int | None:
    """The trial, of those that cost no more, whose hyperparameters the model trusts most.

    The best measured score may be luck.
    """
    learner = Learner(definition)
    for trial in trials:
        learner.tell(trial)
    return learner.best(max_cost)


def measured(metrics: Mapping[str, float], metric: str) -> float | None:
    """The metric as measured, or None where the run did not measure it."""
    value = metrics.get(metric)
    return None if value is None else float(value)


def score_of(trial: Trial, metric: str) -> float | None:
    """The trial's score in a metric, which need not be the one it was first judged by."""
    return measured(trial.metrics, metric) if trial.metrics else trial.score


def _at(nested: Mapping[str, Any], path: str) -> Any:
    node: Any = nested
    for key in path.split("."):
        node = node[key]
    return node
