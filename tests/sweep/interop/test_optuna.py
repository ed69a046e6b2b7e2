from __future__ import annotations

import copy
import logging
import math
import pickle
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import Trial

from metta.common.errors import UserError
from metta.sweep.interop.optuna import ProteinSampler, _Parameter
from metta.sweep.protein_config import ProteinSettings

optuna.logging.set_verbosity(optuna.logging.ERROR)

QUICK = ProteinSettings(num_random_samples=4, random_suggestions=128)
SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "layers": IntDistribution(1, 9, step=2),
    "activation": CategoricalDistribution(["relu", "gelu", None]),
}


def make_study(sampler: ProteinSampler | None = None, **fields: Any) -> Study:
    return optuna.create_study(sampler=sampler or ProteinSampler(seed=0, settings=QUICK), **fields)


def loss(params: dict[str, Any]) -> float:
    """0 at lr = 1e-3, layers = 5, activation = gelu."""
    distance: float = math.log10(params["lr"] / 1e-3) ** 2 + 0.05 * (params["layers"] - 5) ** 2
    return distance + (0.0 if params["activation"] == "gelu" else 1.0)


def objective(trial: Trial) -> float:
    return loss({name: trial._suggest(name, distribution) for name, distribution in SPACE.items()})


@pytest.fixture(scope="module")
def searched() -> Study:
    study = make_study()
    study.optimize(objective, n_trials=20)
    return study


def test_it_finds_the_minimum(searched: Study) -> None:
    assert searched.best_params["activation"] == "gelu"
    assert searched.best_value < 0.1


def test_it_finds_the_maximum() -> None:
    study = make_study(direction="maximize")
    study.optimize(lambda trial: -((trial.suggest_float("x", -10, 10) - 2) ** 2), n_trials=15)
    assert study.best_params["x"] == pytest.approx(2, abs=0.2)


def test_a_sampler_made_anew_goes_on_with_the_study_as_the_old_one_does(searched: Study) -> None:
    other = optuna.create_study(sampler=ProteinSampler(seed=0, settings=QUICK))
    other.add_trials(searched.trials)
    mine = copy.deepcopy(searched)
    assert other.ask(SPACE).params == mine.ask(SPACE).params


def test_the_seed_decides() -> None:
    first, again, other = (
        [study.ask(SPACE).params for _ in range(3)]
        for study in (make_study(ProteinSampler(seed=seed)) for seed in (1, 1, 2))
    )
    assert first == again != other


@pytest.mark.parametrize("known", [0, 8])
def test_trials_that_run_at_once_differ_whoever_suggests(known: int) -> None:
    study = make_study()
    study.optimize(objective, n_trials=known)
    asked = []
    for _ in range(6):
        study.sampler = ProteinSampler(seed=0, settings=QUICK)
        asked.append(study.ask(SPACE).params["lr"])
    assert len(set(asked)) == 6


@pytest.mark.parametrize("known", [0, 2, 8])
def test_processes_that_suggest_at_the_same_moment_suggest_different_things(known: int) -> None:
    study = make_study()
    study.optimize(objective, n_trials=known)
    drawn = []
    for place in range(3):  # three views of one study, in none of which the others' suggestions have arrived
        view = copy.deepcopy(study)
        trials = [view.ask() for _ in range(3)]
        drawn.append(trials[place].suggest_float("lr", 1e-5, 1e-1, log=True))
    assert len(set(drawn)) == 3


def test_threads_share_a_study() -> None:
    study = make_study()
    study.optimize(objective, n_trials=16, n_jobs=4)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 16


def test_failures_teach() -> None:
    def fails_above_zero(trial: Trial) -> float:
        x = trial.suggest_float("x", -1, 1)
        if x > 0:
            raise RuntimeError
        return (x + 0.4) ** 2

    study = make_study()
    study.optimize(fails_above_zero, n_trials=12, catch=RuntimeError)
    assert any(trial.state is optuna.trial.TrialState.FAIL for trial in study.trials)
    said = study.trials[-1].system_attrs["protein"]
    assert said["source"] == "model"
    assert 0 < said["success"] < 1


def test_a_pruned_trial_counts_with_its_last_value() -> None:
    def pruned(trial: Trial) -> float:
        trial.report((trial.suggest_float("x", -10, 10) - 2) ** 2, step=1)
        raise optuna.TrialPruned

    study = make_study()
    study.optimize(pruned, n_trials=15)
    assert study.trials[-1].params["x"] == pytest.approx(2, abs=0.5)


def test_a_budget_makes_the_first_trials_cheap() -> None:
    def total_cost(max_cost: float | None) -> float:
        study = make_study(ProteinSampler(seed=0, cost="steps", max_cost=max_cost))
        for _ in range(8):
            trial = study.ask({"steps": FloatDistribution(1, 1000, log=True)})
            trial.set_user_attr("steps", trial.params["steps"])
            study.tell(trial, 1.0)
        return math.fsum(trial.params["steps"] for trial in study.trials)

    assert total_cost(500.0) < 0.2 * total_cost(None)


@pytest.mark.parametrize(("attributes", "found"), [({}, "has none"), ({"cost": "much"}, "has 'much'")])
def test_a_trial_without_its_cost_is_refused(attributes: dict[str, Any], found: str) -> None:
    study = make_study(ProteinSampler(cost="cost"))
    distributions: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    study.add_trial(
        optuna.create_trial(value=1.0, params={"x": 0.5}, distributions=distributions, user_attrs=attributes)
    )
    with pytest.raises(UserError, match=f"trial 0 costs the user attribute 'cost'.*{found}"):
        study.ask(distributions)


def test_a_range_that_changes_is_searched_by_itself_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def dynamic(trial: Trial) -> float:
        high = 10 + trial.number
        return trial.suggest_float("still", 0, 1) + abs(trial.suggest_int("moving", 0, high) - 7)

    study = make_study()
    with caplog.at_level(logging.WARNING, logger="metta.sweep.interop.optuna"):
        study.optimize(dynamic, n_trials=14)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "parameter 'moving' is searched by itself"
    ]
    assert study.best_params["moving"] == 7


def test_a_space_that_stays_the_same_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="metta.sweep.interop.optuna"):
        make_study().optimize(objective, n_trials=3)
    assert not caplog.records


def test_enqueued_values_are_learnt_from() -> None:
    study = make_study()
    study.enqueue_trial({"x": 2.0})
    study.optimize(lambda trial: (trial.suggest_float("x", -10, 10) - 2) ** 2, n_trials=8)
    assert study.trials[0].params == {"x": 2.0}
    assert all(abs(trial.params["x"] - 2) < 2 for trial in study.trials[6:])


def test_names_may_hold_dots() -> None:
    study = make_study()
    study.optimize(lambda trial: trial.suggest_float("a", 0, 1) + trial.suggest_float("a.b", 0, 1), n_trials=3)
    assert set(study.best_params) == {"a", "a.b"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copied_sampler_suggests_the_same(
    searched: Study, copied: Callable[[ProteinSampler], ProteinSampler]
) -> None:
    study = copy.deepcopy(searched)
    study.sampler = copied(study.sampler)  # type: ignore[arg-type]
    assert study.ask(SPACE).params == copy.deepcopy(searched).ask(SPACE).params


def test_one_sampler_serves_one_study_after_another() -> None:
    sampler = ProteinSampler(seed=0, settings=QUICK)
    first, second = (make_study(sampler) for _ in range(2))
    assert first.ask(SPACE).params == second.ask(SPACE).params


@st.composite
def distributions(draw: st.DrawFn) -> BaseDistribution:
    low, steps, log = draw(st.integers(1, 50)), draw(st.integers(1, 20)), draw(st.booleans())
    step = draw(st.sampled_from([1, 2, 3])) if not log else 1
    kind = draw(st.sampled_from(["int", "float", "stepped", "categorical"]))
    if kind == "categorical":
        return CategoricalDistribution(("a", 1, None, 0.5, False)[: draw(st.integers(2, 5))])
    if kind == "int":
        return IntDistribution(low, low + steps * step, log=log, step=step)
    if kind == "stepped":
        return FloatDistribution(low * 0.25, (low + steps * step) * 0.25, step=0.25 * step)
    return FloatDistribution(low * 0.1, low + steps, log=log)


@given(distributions(), st.floats(0, 1))
def test_values_come_back_from_protein_as_they_went(distribution: BaseDistribution, share: float) -> None:
    parameter = _Parameter.of("p", distribution)
    config = parameter.config
    if config.choices is not None:
        inner: Any = config.choices[int(share * (len(config.choices) - 1))]
    else:
        assert config.min is not None
        assert config.max is not None
        inner = config.min + share * (config.max - config.min)
        inner = round(inner) if config.distribution.startswith("int") else inner
    value = parameter.from_protein(inner)
    assert distribution._contains(distribution.to_internal_repr(value))
    assert parameter.to_protein(value) == pytest.approx(inner, abs=1e-6)
