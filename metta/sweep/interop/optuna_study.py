"""Converts Optuna's studies to sweeps, and sweeps to studies."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from metta.common.config import flatten
from metta.common.errors import UserError, nearest
from metta.sweep.abstract_sweep import AbstractSweep
from metta.sweep.curve import Point, watched_curve
from metta.sweep.definition import SweepDefinition, open_sweep
from metta.sweep.distributions import KINDS
from metta.sweep.interop.optuna_protein import DURATION, cost_of, curve_of, whole_run
from metta.sweep.observations import ObservationReader
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.store import open_store
from metta.sweep.store.loaded import LoadedSweep
from metta.sweep.store.protocol import CurvePoint, Outcome
from metta.sweep.trial import Trial, TrialState

ARTEFACT = "optuna"
_STATES = {
    OptunaState.COMPLETE: TrialState.COMPLETED,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
}
_OPTUNA_STATES = {state: other for other, state in _STATES.items()}


# ---- From a study


def import_study(
    study: Study, sweep: AbstractSweep, cost: str = DURATION, names: Mapping[str, str] | None = None
) -> list[int]:
    """Add a study's finished trials to a sweep, which learns from them and counts them among its own.

    The sweep is created if the store has none of that name. Trials that were imported before are skipped, so a growing
    study can be imported again. Trials that failed before they had all their parameters are skipped as well.

    Intermediate values become learning curves of the metric that the sweep watches: its score, or the progress metric
    that stands for it. A pruned trial is pruned here too: it has no score, but a share of a whole run.

    Args:
        study: a study with one objective, in the direction of the sweep's goal.
        sweep: any kind of sweep, before it is run.
        cost: the cost of a trial, in the unit of the sweep's cost metric: "duration" in seconds, or a user attribute.
        names: dotted paths of the sweep by the study's parameter names, if these differ.

    Returns:
        The numbers of the trials in the sweep.

    Raises:
        UserError: the study does not fit the sweep; the message names the first such trial, and nothing is added.
        SweepChangedError: the store has a sweep of that name whose settings give scores another meaning.
    """
    definition = sweep.definition()
    _check_direction(study, definition)
    imported = _imported(study, definition, cost, names or {})
    with closing(open_store(sweep.store)) as store:
        open_sweep(store, sweep.sweep_name, definition, sweep.stored_entry_point(), sweep.on_change)
        known = {trial.artefacts.get(ARTEFACT) for trial in store.trials(sweep.sweep_name)}
        new = [each for each in imported if each.outcome.artefacts[ARTEFACT] not in known]
        curves = {place: each.curve for place, each in enumerate(new)}
        return store.append(sweep.sweep_name, [(each.params, each.outcome) for each in new], curves)


@dataclass(frozen=True)
class _Imported:
    """A trial of a study, converted for the sweep."""

    params: dict[str, Any]
    outcome: Outcome
    curve: list[CurvePoint]


def _check_direction(study: Study, definition: SweepDefinition) -> None:
    if len(study.directions) != 1:
        raise UserError(f"study {study.study_name!r} has {len(study.directions)} objectives; a sweep has one")
    goal = "maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize"
    if goal != definition.protein.goal:
        raise UserError(
            f"study {study.study_name!r} must {goal}, but the sweep must {definition.protein.goal} "
            f"{definition.protein.metric}"
        )


def _imported(study: Study, definition: SweepDefinition, cost: str, names: Mapping[str, str]) -> list[_Imported]:
    """The finished trials that the sweep can learn from, each checked."""
    reader, trials = ObservationReader(definition), study.get_trials(deepcopy=False, states=tuple(_STATES))
    imported, total = [], whole_run(trials)
    for trial in trials:
        params = {names.get(name, name): value for name, value in trial.params.items()}
        outcome = _outcome(study, trial, definition, cost, total)
        unknown = next((path for path in params if path not in reader.paths), None)
        refusal = reader.refusal(params, outcome)
        if unknown is not None:
            refusal = f"the sweep has no parameter {unknown!r}; {nearest(unknown, reader.paths)}"
        if refusal and outcome.state is TrialState.COMPLETED:
            raise UserError(f"study {study.study_name!r}, trial {trial.number}: {refusal}")
        if refusal is None:
            imported.append(_Imported(params, outcome, _curve(trial, definition)))
    return imported


def _curve(trial: FrozenTrial, definition: SweepDefinition) -> list[CurvePoint]:
    """Its intermediate values, which have the study's direction, as values of the watched metric, which has its own."""
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    metric, sign = definition.watched_metric, definition.watched_sign
    return [CurvePoint(1, int(step), spent, {metric: sign * value}) for step, spent, value in curve_of(trial, seconds)]


def _outcome(study: Study, trial: FrozenTrial, definition: SweepDefinition, cost: str, total: float | None) -> Outcome:
    """How a trial ended.

    Args:
        total: steps of a whole run, if known.
    """
    metric = definition.protein.metric
    score, state, error = trial.value, _STATES[trial.state], None
    stopped, share = None, 1.0 if state is TrialState.COMPLETED else None
    if state is TrialState.PRUNED:
        curve = curve_of(trial)
        share = min(1.0, curve[-1][0] / total) if curve and total else None
        score, stopped = None, f"trial {trial.number} of study {study.study_name!r} was pruned"
    if state is TrialState.COMPLETED and score is not None and not math.isfinite(score):
        state, error = TrialState.FAILED, f"the score {metric} is {score}"
    elif state is TrialState.FAILED:
        error = f"trial {trial.number} of study {study.study_name!r} failed"
    return Outcome(
        state=state,
        score=score,
        cost=cost_of(trial, cost),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        metrics={} if score is None else {metric: score},
        artefacts={ARTEFACT: f"optuna:{study.study_name}/{trial.number}"},
        error=error,
        cost_metric=definition.cost_metric,
        stopped=stopped,
        share=share,
    )


# ---- To a study


def export_study(sweep: LoadedSweep, storage: str | BaseStorage | None = None, study_name: str | None = None) -> Study:
    """Create an Optuna study from a sweep's ended trials, for Optuna's plots, importances and dashboard.

    Each trial has its learning curve as intermediate values, and `cost`, `attempts`, `number` (in the sweep), `error`,
    `stopped`, `share` and its metrics (as ``metrics.NAME``) as user attributes. The curve is that of the metric that
    the sweep watches: its score, or the progress metric that stands for it. A pruned trial is pruned there, and has no
    value. Ranges are wide enough for all trials; powers of two become whole numbers on a log scale, and choices that
    are lists or mappings become JSON text.

    Args:
        sweep: as `load_sweep` loads it.
        storage: Optuna's storage or the URL of one; by default the study is in memory.
        study_name: by default the sweep's name.

    Raises:
        UserError: the storage has a study of that name.
    """
    state = sweep.state()
    definition = state.definition
    trials = [trial for trial in state.trials if trial.counted and trial.number not in state.problems]
    name = study_name or sweep.record.name
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=definition.protein.goal)
    except optuna.exceptions.DuplicatedStudyError:
        raise UserError(f"a study {name!r} already exists; give another study_name, or delete that study") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([definition.protein.metric])
    space = {
        path: _distribution(config, [trial.params[path] for trial in trials if path in trial.params])
        for path, config in flatten(definition.protein.parameters).items()
        if isinstance(config, ParameterConfig)
    }
    curves = sweep.store.curves(sweep.record.name)
    for trial in trials:
        points = [
            point for point in watched_curve(curves.get(trial.number, []), definition) if not math.isnan(point[2])
        ]
        study.add_trial(_frozen(trial, space, points))
    return study


def _distribution(config: ParameterConfig, values: Sequence[Any]) -> BaseDistribution:
    """An Optuna distribution that contains the range and all values."""
    if config.distribution == "categorical":
        assert config.choices is not None
        return CategoricalDistribution(list(dict.fromkeys(map(_scalar, [*config.choices, *values]))))
    assert config.min is not None
    assert config.max is not None
    low, high = min(config.min, *values, config.max), max(config.max, *values, config.min)
    kind = KINDS[config.distribution]
    whole = kind.step == "integer" or (kind.step == "power of two" and low >= 1)
    log = kind.scale == "log" and low > 0
    if whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution], curve: Sequence[Point]) -> FrozenTrial:
    ended = trial.ended_at or trial.started_at or trial.created_at
    assert ended is not None
    attributes = {
        "number": trial.number,
        "cost": trial.cost,
        "attempts": trial.attempts,
        "error": trial.error,
        "stopped": trial.stopped,
        "share": trial.share,
        **{f"metrics.{name}": value for name, value in trial.metrics.items()},
    }
    params = {path: _scalar(value) for path, value in trial.params.items() if path in space}
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=_OPTUNA_STATES[trial.state],
        value=trial.score if trial.state is TrialState.COMPLETED else None,
        datetime_start=_local(trial.started_at or ended),
        datetime_complete=_local(ended),
        params=params,
        distributions={path: space[path] for path in params},
        user_attrs={name: value for name, value in attributes.items() if value is not None},
        system_attrs={},
        intermediate_values={int(step): value for step, _, value in curve if step >= 0},
    )


def _local(moment: datetime) -> datetime:
    """Optuna's times are local times without a zone."""
    return moment.astimezone().replace(tzinfo=None)
