"""Protein in Ray Tune: what it makes of search spaces and results, and real experiments."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.utils import flatten_dict

from metta.common.errors import UserError
from metta.sweep.interop.ray_tune import ProteinSearch
from metta.sweep.protein_config import ProteinSettings

QUICK = ProteinSettings(num_random_samples=4, random_suggestions=128)
SPACE = {
    "optimizer": {"lr": tune.loguniform(1e-5, 1e-1), "name": tune.choice(["sgd", "adam"])},
    "layers": tune.randint(1, 9),
    "fixed": {"epochs": 4},
}


def make_search(space: Any = None, **fields: Any) -> ProteinSearch:
    return ProteinSearch(space or SPACE, "score", "max", seed=0, settings=QUICK, **fields)


def feed(search: ProteinSearch, start: int, end: int) -> list[dict[str, Any]]:
    configs = []
    for number in range(start, end):
        configs.append(search.suggest(f"trial{number}"))
        score = -abs(configs[-1]["layers"] - 5) - (configs[-1]["optimizer"]["name"] != "adam")
        search.on_trial_complete(f"trial{number}", {"score": score, "time_total_s": 1.0 + number})
    return configs


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (tune.uniform(-1.0, 2.0), (-1.0, 2.0, float)),
        (tune.loguniform(1e-4, 1e-1), (1e-4, 1e-1, float)),
        (tune.randint(3, 6), {3, 4, 5}),
        (tune.lograndint(1, 4), {1, 2, 3}),
        (tune.quniform(0.0, 1.0, 0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
        (tune.qloguniform(1.0, 4.0, 1.0), {1.0, 2.0, 3.0, 4.0}),
        (tune.qrandint(4, 12, 4), {4, 8, 12}),
        (tune.qrandint(5, 13, 4), {8, 12}),
        (tune.qrandint(3, 6, 1), {3, 4, 5}),
        (tune.qlograndint(2, 8, 2), {2, 4, 6, 8}),
        (tune.randn(1.0, 0.5), (-0.5, 2.5, float)),
        (tune.qrandn(1.0, 0.5, 0.5), {-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5}),
        (tune.uniform(2, 2), {2.0}),
        (tune.randint(3, 4), {3}),
        (tune.qrandint(4, 7, 4), {4}),
        (tune.choice(["a", None, 3, [1, 2]]), ["a", None, 3, [1, 2]]),
    ],
)
def test_values_are_those_of_tune(domain: Any, values: Any) -> None:
    search = make_search({"x": domain})
    drawn = [search.suggest(str(number))["x"] for number in range(60)]
    if isinstance(values, tuple):
        low, high, kind = values
        assert all(isinstance(value, kind) and low <= value <= high for value in drawn)
        assert len(set(drawn)) == 60
    elif isinstance(values, set):
        assert set(drawn) == values
        assert {type(value) for value in drawn} == {type(value) for value in values}
    else:
        assert all(value in values for value in drawn)
        assert all(value in drawn for value in values)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({"a": {"x": tune.grid_search([1, 2])}}, "a/x: grid_search cannot be searched"),
        ({"x": tune.qrandint(5, 7, 4)}, "x: its range is empty"),
        ({"x": tune.sample_from(lambda config: 1)}, "x: Function .* cannot be searched"),
        ({"x": 3}, "the search space is empty"),
    ],
)
def test_what_cannot_be_searched_is_named(space: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make_search(space)


def test_it_searches_and_keeps_fixed_values() -> None:
    configs = feed(make_search(), 0, 16)
    assert all(config["fixed"] == {"epochs": 4} for config in configs)
    assert [config["layers"] for config in configs[-6:]].count(5) >= 3
    assert [config["optimizer"]["name"] for config in configs[-6:]].count("adam") >= 4


def test_concurrent_trials_differ() -> None:
    search = make_search()
    feed(search, 0, 8)
    assert len({str(search.suggest(f"more{i}")) for i in range(5)}) == 5


def test_a_saved_search_goes_on_as_the_first(tmp_path: Path) -> None:
    first = make_search()
    feed(first, 0, 7)
    first.suggest("running")
    first.on_trial_complete("running", None, error=True)
    first.suggest("still running")
    first.save(str(tmp_path / "state.json"))
    json.loads((tmp_path / "state.json").read_text())
    second = ProteinSearch(SPACE, "score", "max", settings=QUICK)
    third = ProteinSearch(settings=QUICK)  # as Tune restores one that had its space of `param_space`
    for search in (second, third):
        search.restore(str(tmp_path / "state.json"))
    expected = feed(first, 10, 13)
    assert feed(second, 10, 13) == expected
    assert [{**config, "fixed": {"epochs": 4}} for config in feed(third, 10, 13)] == expected


@pytest.mark.parametrize("again", ["failed", "another id"])
@pytest.mark.parametrize("told_of_end", [True, False])
def test_a_failed_trial_that_tune_tries_again_is_no_failure_any_more(again: str, told_of_end: bool) -> None:
    search, without_failure = make_search(), make_search()
    for each in (search, without_failure):
        feed(each, 0, 5)
        config = each.suggest("failed")
    result = flatten_dict({"score": 0.5, "time_total_s": 2.0, "config": config})
    search.on_trial_complete("failed", None, error=True)
    if told_of_end:
        search.on_trial_complete(again, result)
    else:
        search.on_trial_result(again, {**result, "score": 0.1})
        search.on_trial_result(again, result)
    without_failure.on_trial_result("failed", {**result, "score": 0.1})
    without_failure.on_trial_complete("failed", result)
    assert feed(search, 6, 9) == feed(without_failure, 6, 9)


def test_a_trial_of_which_nothing_is_known_teaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    search, other = make_search(), make_search()
    for each in (search, other):
        feed(each, 0, 5)
    config = search.suggest("mine")
    other.suggest("mine")
    search.on_trial_complete("stranger", flatten_dict({"score": 9.0, "time_total_s": 2.0, "config": config}))
    assert "trial stranger was not suggested here" in caplog.text
    assert search.suggest("next") == other.suggest("next")


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    make_search().save(str(path))
    with pytest.raises(UserError, match="saved with another search space"):
        make_search({"x": tune.uniform(0, 1)}).restore(str(path))
    unpicklable = [threading.Lock(), threading.Lock()]
    make_search({"x": tune.choice(unpicklable)}).save(str(path))
    with pytest.raises(UserError, match=r"x: its categories .* were not saved; give the search space"):
        ProteinSearch().restore(str(path))
    make_search({"x": tune.choice(unpicklable)}).restore(str(path))
    path.write_text('{"trials": 3}')
    with pytest.raises(UserError, match="not a saved ProteinSearch"):
        make_search().restore(str(path))


def test_points_to_evaluate_come_first() -> None:
    point = {"optimizer": {"lr": 1e-3, "name": "adam"}, "layers": 2}
    search = make_search(points_to_evaluate=[point])
    assert search.suggest("a") == {**point, "fixed": {"epochs": 4}}
    assert search.suggest("b")["optimizer"]["lr"] != 1e-3


def test_what_a_point_to_evaluate_leaves_out_is_suggested(tmp_path: Path) -> None:
    points = [{"layers": np.int64(2)}, {"optimizer": {"name": "sgd"}}, {}]
    search = make_search(points_to_evaluate=points)
    first, second, third = feed(search, 0, 3)
    assert first["layers"] == 2
    assert second["optimizer"]["name"] == "sgd"
    assert len({config["optimizer"]["lr"] for config in (first, second, third)}) == 3
    assert all(1e-5 <= config["optimizer"]["lr"] <= 1e-1 for config in (first, second, third))
    search.save(str(tmp_path / "state.json"))
    again = make_search(points_to_evaluate=points)
    again.restore(str(tmp_path / "state.json"))
    assert again.suggest("next") == search.suggest("next")


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ({"optimizer": {"lr": 1, "name": "x"}}, "optimizer/name: 'x' is not one of"),
        ({"layers": "many"}, "layers: 'many' is not a number"),
        ({"layer": 2}, "layer is not in the search space; did you mean 'layers'"),
    ],
)
def test_a_wrong_point_to_evaluate_is_refused_before_work_starts(point: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make_search(points_to_evaluate=[point])
    with pytest.raises(UserError, match=reason):
        ProteinSearch(points_to_evaluate=[point]).set_search_properties("score", "max", SPACE)


# ---- Results of any kind


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None, "high", np.float32("nan")])
def test_a_score_that_is_no_finite_number_is_a_failure(
    score: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = make_search()
    feed(search, 0, 3)
    search.suggest("a")
    search.on_trial_result("a", {"score": score, "time_total_s": 1.0, "training_iteration": 1})
    search.on_trial_complete("a", {"score": score, "time_total_s": 1.0, "training_iteration": 1})
    assert "trial a ended with" in caplog.text
    search.save(str(tmp_path / "state.json"))
    again = make_search()
    again.restore(str(tmp_path / "state.json"))
    assert [each.is_failure for each in again._ready()[1].observations] == [False] * 3 + [True]
    assert again.suggest("b") == search.suggest("b")


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1, "much"])
def test_a_cost_that_is_none_is_unknown(cost: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search = make_search(cost="tokens", max_cost=100.0)
    search.suggest("a")
    search.on_trial_complete("a", {"score": 1.0, "tokens": cost})
    assert "is not a finite number of at least 0: it has no cost" in caplog.text
    search.save(str(tmp_path / "state.json"))
    again = make_search(cost="tokens", max_cost=100.0)
    again.restore(str(tmp_path / "state.json"))
    (seen,) = again._ready()[1].observations
    assert (seen.score, seen.cost, seen.is_failure) == (1.0, None, False)


def test_a_state_that_an_earlier_version_saved_is_restored(tmp_path: Path) -> None:
    """It kept NaN as a score of a trial that did not fail, and costs as they came."""
    search, path = make_search(), tmp_path / "state.json"
    feed(search, 0, 3)
    search.save(str(path))
    state = json.loads(path.read_text())
    for trial, changed in zip(state["trials"].values(), [{"score": None}, {"cost": math.nan}, {}], strict=True):
        for name in ("stopped", "curve"):
            del trial[name]
        trial.update(changed)
    path.write_text(json.dumps(state))
    again = make_search()
    again.restore(str(path))
    seen = again._ready()[1].observations
    assert [(each.is_failure, each.cost is None) for each in seen] == [(True, False), (False, True), (False, False)]
    again.suggest("next")


def test_choices_of_any_type_are_restored_without_the_space(tmp_path: Path) -> None:
    """Tune restores a searcher that had its space of `param_space` without that space."""
    choices: list[Any] = [(1, 2), torch_like, math.nan, {"a": (3,)}]
    search = make_search({"x": tune.choice(choices), "y": tune.uniform(0, 1)})
    search.suggest("a")
    search.on_trial_complete("a", {"score": 1.0, "time_total_s": 1.0})
    search.save(str(tmp_path / "state.json"))
    again = ProteinSearch(settings=QUICK)
    again.restore(str(tmp_path / "state.json"))
    assert {repr(again.suggest(str(i))["x"]) for i in range(12)} <= {repr(choice) for choice in choices}
    make_search({"x": tune.choice(choices), "y": tune.uniform(0, 1)}).restore(str(tmp_path / "state.json"))


def torch_like() -> None:
    """A choice that JSON cannot hold."""


# ---- Trials that a scheduler stopped


def run(search: ProteinSearch, trial_id: str, steps: int, ends: str, sign: float = 1.0) -> float:
    """A trial as Tune reports it: the result at which a scheduler stops it is shown at its end only."""
    x: float = search.suggest(trial_id)["x"]
    result: dict[str, Any] = {}
    for step in range(1, steps + 1):
        score = sign * (step - 10 * (x - 0.7) ** 2)
        result = {"score": score, "time_total_s": float(step), "training_iteration": step}
        if step < steps or ends != "stopped":
            search.on_trial_result(trial_id, result)
    search.on_trial_complete(trial_id, None if ends == "paused" else result, error=ends == "error")
    return x


@pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
def test_a_stopped_trial_is_neither_a_failure_nor_a_score(mode: Any, sign: float, tmp_path: Path) -> None:
    search = ProteinSearch({"x": tune.uniform(0, 1)}, "score", mode, seed=0, settings=QUICK)
    for number, (steps, ends) in enumerate(
        [(9, "itself"), (3, "stopped"), (9, "stopped"), (4, "paused"), (5, "itself"), (2, "error")] * 2
    ):
        run(search, str(number), steps, ends, sign)
    for each in (search, restored(search, tmp_path)):
        protein = each._ready()[1]
        seen = protein.observations
        assert [one.stopped for one in seen] == [False, True, False, True, False, False] * 2
        assert [one.is_failure for one in seen] == [False, False, False, False, False, True] * 2
        assert [one.score is None for one in seen] == [False, True, False, True, False, False] * 2
        assert [one.cost for one in seen] == [9, 3, 9, 4, 5, 2] * 2
        shares = [trial.curve.share for _, trial in sorted(protein._trials.items()) if trial.curve]
        assert shares == pytest.approx([1, 3 / 9, 1, 4 / 9, 1, 1] * 2)


def restored(search: ProteinSearch, folder: Path) -> ProteinSearch:
    search.save(str(folder / "state.json"))
    again = ProteinSearch(settings=QUICK)
    again.restore(str(folder / "state.json"))
    return again


def test_what_stopped_trials_showed_teaches() -> None:
    search = ProteinSearch({"x": tune.uniform(0, 1)}, "score", "max", seed=0, settings=QUICK)
    for number in range(4):
        run(search, f"whole{number}", 10, "itself")
    for number in range(10):
        run(search, f"stopped{number}", 3, "stopped")
    xs = [search.suggest(f"next{number}")["x"] for number in range(6)]
    assert sum(0.4 < x < 1.0 for x in xs) >= 4


def test_a_result_without_its_cost_is_refused() -> None:
    search = make_search(cost="epochs")
    search.suggest("a")
    with pytest.raises(UserError, match="trial a: its results do not have the cost 'epochs'"):
        search.on_trial_complete("a", {"score": 1.0, "time_total_s": 2.0})


def test_it_says_what_is_missing() -> None:
    with pytest.raises(UserError, match="no search space"):
        ProteinSearch(metric="score", mode="max").suggest("a")
    with pytest.raises(UserError, match="metric"):
        ProteinSearch(SPACE).suggest("a")


# ---- Real experiments


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield tmp_path_factory.mktemp("results")
    ray.shutdown()


def test_a_real_experiment_with_asha_and_its_restored_search(cluster: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        if config["x"] < 0.05:
            raise RuntimeError("x is too small")
        for step in range(1, 5):
            tune.report({"score": (1 - (config["x"] - config["centre"]) ** 2) * (0.5 + step / 8)})

    search = ProteinSearch(seed=0, settings=QUICK, points_to_evaluate=[{"x": 0.0}])
    tuner = tune.Tuner(
        train,
        param_space={"x": tune.uniform(0, 1), "centre": 0.7},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=search,
            scheduler=ASHAScheduler(max_t=4, grace_period=1, reduction_factor=2),
            num_samples=9,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="asha", storage_path=str(cluster), verbose=0),
    )
    grid = tuner.fit()
    results = [grid[i] for i in range(len(grid))]
    metrics = [result.metrics or {} for result in results]
    assert [result.error is not None for result in results].count(True) == 1
    assert (grid.get_best_result().config or {})["x"] == pytest.approx(0.7, abs=0.15)
    iterations = [each["training_iteration"] for each in metrics if "score" in each]
    assert len(iterations) == 8
    assert min(iterations) < max(iterations) == 4

    (saved,) = (cluster / "asha").glob("searcher-state-*.json")
    trials = sorted(json.loads(saved.read_text())["trials"].values(), key=lambda trial: trial["number"])
    assert [trial["failed"] for trial in trials] == [True] + [False] * 8
    order = {trial["params"]["p0"]: trial["number"] for trial in trials}
    assert [len(trial["curve"]) for trial in trials[1:]] == [
        each["training_iteration"]
        for each in sorted((m for m in metrics if "score" in m), key=lambda m: order[m["config"]["x"]])
    ]
    told = {trial["params"]["p0"]: (trial["score"], trial["cost"]) for trial in trials[1:]}
    assert told == {each["config"]["x"]: (each["score"], each["time_total_s"]) for each in metrics if "score" in each}
    again = ProteinSearch({"x": tune.uniform(0, 1), "centre": 0.7}, "score", "max", settings=QUICK)
    again.restore_from_dir(str(cluster / "asha"))
    assert again.suggest("next")["x"] == search.suggest("next")["x"]
