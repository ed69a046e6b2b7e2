"""What the commands that look at sweeps say, on a made sweep, at 80 columns."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metta.common.config import unflatten
from metta.sweep import RunningTrial, optimize
from metta.sweep.cli import main as metta_sweep
from metta.sweep.ranking import pareto_front, ranked
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Store
from metta.sweep.trial import Trial, TrialState
from tests.support.made_sweep import LEARNING_RATE, make_sweep

Say = Callable[..., str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('made') / 'sweeps.db'}")
    make_sweep(store, "one", 60, seed=2)
    make_sweep(store, "other", 30, seed=3)
    return store


@pytest.fixture(scope="module")
def trials(store: Store) -> list[Trial]:
    return store.trials("one")


@pytest.fixture
def say(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command on the store, and returns what it prints."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> str:
        assert metta_sweep([*words, "--store", store.url]) == 0
        return capsys.readouterr().out

    return run


def numbers(table: str) -> list[int]:
    """The first column of a table of trials."""
    below = table.partition("── \n")[2].splitlines()
    return [int(line.split()[0]) for line in below if line.strip() and line.split()[0].isdigit()]


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_show_has_the_best_of_many_trials_and_says_how_to_see_all(say: Say, trials: list[Trial]) -> None:
    told = say("show", "one")
    order = [trial.number for trial in ranked(trials, "maximize")]
    assert numbers(told)[:20] == order[:20]
    assert "the 20 top scores of 60 trials; --top 60 shows all" in told
    assert f"best trial: {order[0]}" in told
    table = told.partition("the 20 top")[0]
    assert all(len(line) <= 80 for line in table.splitlines())


def test_show_sorts_and_filters(say: Say, trials: list[Trial]) -> None:
    order = [trial.number for trial in ranked(trials, "maximize")]
    front = {trial.number for trial in pareto_front(ranked(trials, "maximize"))}
    failed = [trial.number for trial in trials if trial.state is TrialState.FAILED]
    assert len(failed) > 1
    assert numbers(say("show", "one", "--top", "3")) == order[:3]
    assert numbers(say("show", "one", "--pareto")) == [number for number in order if number in front]
    assert numbers(say("show", "one", "--state", "failed")) == failed
    by_rate = sorted(failed, key=lambda number: float(trials[number].params[LEARNING_RATE]))
    assert numbers(say("show", "one", "--state", "failed", "--sort", "learning_rate")) == by_rate
    by_cost = sorted(trials, key=lambda trial: trial.cost or math.inf)
    assert numbers(say("show", "one", "--sort", "cost", "--top", "4")) == [trial.number for trial in by_cost[:4]]
    shown = strictly(say("show", "one", "--state", "pruned", "--state", "failed", "--json"))["trials"]
    assert {trial["state"] for trial in shown} == {"failed", "pruned"}
    assert say("show", "one", "--state", "running").strip() == "none of 60 trials"


def test_a_narrow_terminal_gets_the_hyperparameters_that_fit(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    told = say("show", "one", "--top", "5")
    assert max(map(len, told.splitlines())) <= 60
    assert "no room for" in told.splitlines()[-1]


def test_nothing_to_sort_by(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert metta_sweep(["show", "one", "--sort", "learning_rat", "--store", store.url]) == 2
    assert "did you mean 'trainer.optimizer.learning_rate'" in capsys.readouterr().err


def test_a_trial_is_told_with_its_curve_its_evaluation_and_the_command_that_repeats_it(
    say: Say, store: Store, trials: list[Trial]
) -> None:
    best = ranked(trials, "maximize")[0]
    told = say("trial", "one", str(best.number))
    assert f"arena {best.score:.4g}" in told
    assert "the top score" in told
    assert f"{LEARNING_RATE}={best.params[LEARNING_RATE]!r}" in told
    assert "model, near trial" in told
    assert "arena/basic" in told
    assert "per agent gained: " in told
    assert "learning curve: reward" in told
    assert told.count("*") >= 10
    retrain = f"metta.tools.sweep.retrain --args sweep_name=one trial={best.number} store={store.url}"
    assert retrain in told
    whole = strictly(say("trial", "one", str(best.number), "--json"))
    assert [point["step"] for point in whole["curve"]] == [point.step for point in store.curve("one", best.number)]
    assert retrain in whole["commands"]["repeat it"]


def test_a_failed_trial_is_told_with_its_error_as_it_is(say: Say, trials: list[Trial]) -> None:
    failed = next(trial for trial in trials if trial.state is TrialState.FAILED)
    told = say("trial", "one", str(failed.number))
    assert failed.error
    assert failed.error.rstrip() in told, "nothing in it is taken for markup"
    assert f"metta-sweep retry one {failed.number}" in told


def test_a_trial_that_is_not_there(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert metta_sweep(["trial", "one", "60", "--store", store.url]) == 2
    assert "has trials 0-59, and no trial 60" in capsys.readouterr().err


def test_best_is_given_in_three_shapes(say: Say, trials: list[Trial]) -> None:
    by_score = ranked(trials, "maximize")[0]
    assert yaml.safe_load(say("best", "one", "--measured", "--yaml")) == unflatten(by_score.params)
    facts = strictly(say("best", "one", "--json"))
    assert facts["top"] == by_score.number
    assert facts["trial"] == facts["best"]
    assert 0 <= facts["belief"]["probability"] <= 1
    assert facts["belief"]["low"] <= facts["belief"]["score"] <= facts["belief"]["high"]
    assert facts["params"] == unflatten(trials[facts["best"]].params)
    overrides = say("best", "one", "--overrides").strip()
    assert overrides == facts["overrides"]
    pairs = dict(pair.split("=", 1) for pair in shlex.split(overrides))
    params = trials[facts["best"]].params
    assert {path: yaml.safe_load(text) for path, text in pairs.items()} == params


def test_best_within_a_cost(say: Say, store: Store, trials: list[Trial], capsys: pytest.CaptureFixture[str]) -> None:
    limit = sorted(trial.cost or 0.0 for trial in trials)[10]
    affordable = [trial for trial in ranked(trials, "maximize") if (trial.cost or 0.0) <= limit]
    measured = strictly(say("best", "one", "--max-cost", str(limit), "--measured", "--json"))
    assert measured["trial"] == affordable[0].number
    modelled = strictly(say("best", "one", "--max-cost", str(limit), "--json"))
    assert modelled["trial"] in [trial.number for trial in affordable]
    assert metta_sweep(["best", "one", "--max-cost", "1", "--store", store.url]) == 2
    said, cheapest = capsys.readouterr().err, min(affordable, key=lambda trial: trial.cost or 0.0)
    assert "no trial of 'one' has a score at a cost up to 1." in said
    assert f"The cheapest is trial {cheapest.number}: " in said


def test_best_within_a_cost_also_names_hyperparameters_with_a_length_that_was_not_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where one more step is worth the same for all, so that the best ones are known for any length."""

    def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        for step in range(1, 11):
            share = step / 10
            score = math.log(config["steps"] * share) - 20.0 * (config["rate"] - 0.4) ** 2
            metrics = {"score": score, "steps_done": config["steps"] * share}
            trial.report(round(config["steps"] * share), metrics)
        return metrics

    url = f"sqlite:///{tmp_path / 'sweeps.db'}"
    parameters = {
        "rate": {"min": 0, "max": 1, "distribution": "uniform"},
        "steps": {"min": 100, "max": 10_000, "distribution": "int_log_normal"},
    }
    fields: dict[str, Any] = {"cost_metric": "steps_done", "early_stopping": "protein", "store": url}
    optimize(train, parameters, "score", 12, name="lengths", seed=0, write_report=False, **fields)
    capsys.readouterr()

    def best(*words: str) -> str:
        assert metta_sweep(["best", "lengths", *words, "--store", url]) == 0
        return capsys.readouterr().out

    other, tried = strictly(best("--max-cost", "3000", "--json"))["other_length"], open_store(url).trials("lengths")
    assert other["params"]["rate"] == pytest.approx(tried[other["trial"]].params["rate"])
    assert other["params"]["steps"] == other["value"]
    assert other["value"] not in [trial.params["steps"] for trial in tried]
    assert other["cost"] <= 3000
    assert other["low"] < other["score"] < other["high"]
    said = best("--max-cost", "3000")
    assert f"trial {other['trial']} with steps={other['value']}" in " ".join(said.split())
    assert other["overrides"] in said
    assert strictly(best("--json"))["other_length"] is None
    assert strictly(best("--max-cost", "3000", "--measured", "--json"))["other_length"] is None
    cheapest = min(trial.cost or math.inf for trial in tried if trial.score is not None)
    assert metta_sweep(["best", "lengths", "--max-cost", f"{0.9 * cheapest}", "--store", url]) == 2
    assert re.search(r"The cheapest is trial \d+: .*Not tried, but probably better: trial", capsys.readouterr().err)


def test_two_sweeps_are_compared_by_their_regret(say: Say, store: Store, trials: list[Trial]) -> None:
    told = say("compare", "one", "other")
    assert max(map(len, told.splitlines())) <= 80
    whole = strictly(say("compare", "one", "other", "--json"))
    everything = [*trials, *store.trials("other")]
    best = max(trial.score or 0.0 for trial in ranked(everything, "maximize"))
    spent, reached = 0.0, -math.inf
    rows = [row for row in whole["regret"] if row["a"] is not None]
    assert rows
    assert whole["regret"][-1]["b"] is None, "the shorter one has ended by then"
    remaining = iter(trials)
    for row in rows:
        for trial in remaining:
            if spent + (trial.cost or 0.0) > row["spent"] * (1 + 1e-9):
                remaining = iter(trials[trial.number :])
                break
            spent += trial.cost or 0.0
            reached = max(reached, trial.score if trial.score is not None else -math.inf)
        assert row["a"] == pytest.approx(best - reached)
    assert whole["a"]["best_score"] == ranked(trials, "maximize")[0].score
    assert whole["differences"] == []


def test_sweeps_of_other_metrics_are_not_compared(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    config = store.sweep("other").config
    store.create_sweep("hearts", config | {"protein": config["protein"] | {"metric": "hearts"}})
    assert metta_sweep(["compare", "one", "hearts", "--store", store.url]) == 2
    assert "the metric is 'arena' and 'hearts'" in capsys.readouterr().err
    store.remove_sweep("hearts")


def test_help_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        metta_sweep(["--help"])
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    for command in ("show", "watch", "compare", "trial", "best", "pause", "resume", "stop", "retry", "confirm"):
        assert f"\n  {command} " in told
