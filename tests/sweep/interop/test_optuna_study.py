from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study

from metta.common.errors import UserError
from metta.sweep.function import FunctionSweep, function_sweep
from metta.sweep.interop.optuna import ProteinSampler
from metta.sweep.interop.optuna_study import export_study, import_study
from metta.sweep.store import open_store
from metta.sweep.store.loaded import LoadedSweep, load_sweep
from metta.sweep.store.transfer import copy_sweep
from metta.sweep.trial import TrialState
from tests.support.functions import parabola
from tests.support.made_sweep import LEARNING_RATE, TOTAL_TIMESTEPS, make_sweep

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_study(direction: Literal["maximize", "minimize"] = "maximize") -> Study:
    """Five trials: three completed, one pruned, one that failed before it had parameters."""
    study = optuna.create_study(direction=direction, study_name="old", sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 4:
            raise RuntimeError
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("epochs", 2.0 + trial.number)
        if trial.number == 3:
            trial.report(0.5, step=1)
            raise optuna.TrialPruned
        return 1 - (x - 0.7) ** 2

    study.optimize(objective, n_trials=5, catch=RuntimeError)
    return study


def make_sweep_of(tmp_path: Path, name: str = "x", **fields: Any) -> FunctionSweep:
    parameters = {name: {"min": 0, "max": 1, "distribution": "uniform"}}
    store = f"sqlite:///{tmp_path}/sweeps.sqlite"
    return function_sweep(parabola, parameters, "accuracy", 6, name="new", seed=0, store=store, **fields)


def test_a_sweep_learns_from_a_study_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    study, sweep = make_study(), make_sweep_of(tmp_path)
    assert import_study(study, sweep, cost="epochs") == [0, 1, 2, 3]
    result = sweep.run()
    imported, new = result.trials[:4], result.trials[4:]
    assert [trial.params["x"] for trial in imported] == [trial.params["x"] for trial in study.trials[:4]]
    assert [trial.score for trial in imported[:3]] == [trial.value for trial in study.trials[:3]]
    assert [trial.cost for trial in imported] == [2.0, 3.0, 4.0, 5.0]
    assert [trial.state for trial in imported] == [TrialState.COMPLETED] * 3 + [TrialState.PRUNED]
    assert imported[3].score is None
    assert imported[3].stopped == "trial 3 of study 'old' was pruned"
    assert len(new) == 2
    assert new[0].suggestion["source"] != "search centre"


def test_only_what_is_new_is_imported_again(tmp_path: Path) -> None:
    study, sweep = make_study(), make_sweep_of(tmp_path)
    import_study(study, sweep)
    assert import_study(study, sweep) == []
    study.add_trial(study.trials[0])
    assert import_study(study, sweep) == [4]


def test_names_are_translated(tmp_path: Path) -> None:
    sweep = make_sweep_of(tmp_path, name="model.x")
    import_study(make_study(), sweep, names={"x": "model.x"})
    assert set(load_sweep(sweep.store, "new").trials()[0].params) == {"model.x"}


@pytest.mark.parametrize(
    ("study", "fields", "cost", "reason"),
    [
        (make_study("minimize"), {}, "duration", "must minimize, but the sweep must maximize accuracy"),
        (make_study(), {"name": "xs"}, "duration", "trial 0: the sweep has no parameter 'x'.*xs"),
        (make_study(), {}, "epoch", "the cost of trial 0 is the user attribute 'epoch'"),
        (optuna.create_study(directions=["minimize"] * 2), {}, "duration", "has 2 objectives"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(
    tmp_path: Path, study: Study, fields: dict[str, Any], cost: str, reason: str
) -> None:
    sweep = make_sweep_of(tmp_path, **fields)
    with pytest.raises(UserError, match=reason):
        import_study(study, sweep, cost=cost)
    assert not (tmp_path / "sweeps.sqlite").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LoadedSweep:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('made')}/sweeps.sqlite")
    make_sweep(store, "made", 60)
    return LoadedSweep(store, store.sweep("made"))


def test_a_sweep_becomes_a_study(made: LoadedSweep) -> None:
    study, trials = export_study(made), made.trials()
    assert study.study_name == "made"
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert len(study.trials) == 60
    best = max((trial for trial in trials if trial.state is TrialState.COMPLETED), key=lambda trial: trial.score or 0)
    assert study.best_value == best.score
    assert study.best_params == best.params
    assert study.best_trial.user_attrs["cost"] == best.cost
    assert best.ended_at
    assert best.started_at
    assert study.best_trial.duration == best.ended_at - best.started_at
    assert list(study.best_trial.intermediate_values)[-1] == TOTAL_TIMESTEPS  # of the reward, which it watches
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "FAIL", "PRUNED"}
    space = study.best_trial.distributions
    assert space[LEARNING_RATE] == FloatDistribution(1e-5, 1e-2, log=True)
    assert space["trainer.batch_size"] == IntDistribution(4096, 32768)
    assert space["trainer.optimizer.type"] == CategoricalDistribution(["adam", "muon"])


def test_optuna_reads_the_study_again_and_goes_on(made: LoadedSweep, tmp_path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))
    exported = export_study(made, storage, "mine")
    study = optuna.load_study(study_name="mine", storage=storage, sampler=ProteinSampler(seed=0, cost="cost"))
    assert study.best_params == exported.best_params
    asked = study.ask(study.best_trial.distributions)
    assert 3e-4 < asked.params[LEARNING_RATE] < 1e-2
    importances = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    assert max(importances, key=importances.__getitem__) == LEARNING_RATE
    with pytest.raises(UserError, match="a study 'mine' already exists"):
        export_study(made, storage, "mine")


# ---- Pruned trials, in both directions


def pruned_study(direction: Literal["maximize", "minimize"]) -> Study:
    """Trials of 10 steps, of which every other one is pruned after 4."""
    study = optuna.create_study(direction=direction, study_name="pruned", sampler=optuna.samplers.RandomSampler(seed=0))
    sign = 1.0 if direction == "maximize" else -1.0

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("epochs", 4 if trial.number % 2 else 10)
        for step in range(1, 11):
            trial.report(sign * step * (1 - (x - 0.7) ** 2), step)
            if trial.number % 2 and step == 4:
                raise optuna.TrialPruned
        return sign * 10 * (1 - (x - 0.7) ** 2)

    study.optimize(objective, n_trials=12)
    return study


@pytest.mark.parametrize("watched", [{}, {"progress_metric": "p", "progress_goal": "minimize"}])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_pruned_trial_is_pruned_in_the_sweep_and_in_a_study_of_the_sweep(
    tmp_path: Path, direction: Literal["maximize", "minimize"], watched: dict[str, str]
) -> None:
    """Intermediate values have the study's direction, whatever the sweep watches."""
    study = pruned_study(direction)
    sweep = make_sweep_of(tmp_path, goal=direction, early_stopping="protein", **watched)
    import_study(study, sweep, cost="epochs")
    loaded = load_sweep(sweep.store, "new")
    trials = loaded.trials()
    assert [(trial.state, trial.share, trial.cost) for trial in trials] == [
        (TrialState.COMPLETED, 1.0, 10.0),
        (TrialState.PRUNED, 0.4, 4.0),
    ] * 6
    assert [trial.score is None for trial in trials] == [trial.state is TrialState.PRUNED for trial in trials]
    seen = loaded.state().learner.protein
    assert [each.stopped for each in seen.observations] == [False, True] * 6
    assert not any(each.is_failure for each in seen.observations)
    assert [(curve.share, curve.values[-1]) for trial in seen._trials.values() if (curve := trial.curve)] == [
        (
            trial.share,
            (1 if direction == "maximize" else -1) * theirs.intermediate_values[max(theirs.intermediate_values)],
        )
        for trial, theirs in zip(trials, study.trials, strict=True)
    ]
    back = export_study(loaded)
    for ours, theirs in zip(back.trials, study.trials, strict=True):
        assert ours.state is theirs.state
        assert ours.intermediate_values == pytest.approx(theirs.intermediate_values)
        assert ours.value == (theirs.value if theirs.state is optuna.trial.TrialState.COMPLETE else None)


def test_an_imported_curve_is_kept_when_the_sweep_is_copied(tmp_path: Path) -> None:
    sweep = make_sweep_of(tmp_path)
    import_study(pruned_study("maximize"), sweep)
    loaded = load_sweep(sweep.store, "new")
    other = open_store(f"sqlite:///{tmp_path}/other.sqlite")
    copy_sweep(loaded.store, other, "new")
    assert other.curves("new") == loaded.store.curves("new")
    assert [len(curve) for curve in other.curves("new").values()] == [10, 4] * 6
    other.close()
