"""The plots of a sweep: valid plotly figures that show what they say."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from metta.sweep.report import plots
from metta.sweep.report.curves import curve_numbers
from metta.sweep.report.plots.axes import tick_text
from metta.sweep.state import SweepState
from tests.sweep.report.conftest import EVIL

Take = Callable[[str], SweepState]


def _trace(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(trace for trace in data["data"] if trace.get("name") == name)


@pytest.mark.parametrize("name", ["made", EVIL], ids=["made", "hostile"])
def test_every_plot_is_a_valid_figure(snapshot: Take, name: str) -> None:
    sweep = snapshot(name)
    for plot in plots.all_plots(sweep).values():
        figure = plot(sweep)  # plotly refuses a property that it does not know
        assert figure.layout.title.text
        assert any(trace.x for trace in figure.data)
        json.dumps(plot.build(sweep), allow_nan=False)


@pytest.mark.parametrize("name", ["empty", "failing"])
def test_a_plot_of_nothing_says_why(snapshot: Take, name: str) -> None:
    sweep = snapshot(name)
    for plot in plots.OVERVIEW.values():
        data = plot.build(sweep)
        assert not any(trace["x"] for trace in data["data"])
        assert data["layout"]["annotations"][0]["text"].startswith("no trial")


def test_no_name_becomes_markup_or_a_template(snapshot: Take) -> None:
    sweep = snapshot(EVIL)
    for plot in plots.all_plots(sweep).values():
        text = json.dumps(plot.build(sweep))
        assert "<img" not in text
        assert "%{x}&lt;" not in text
    assert "&lt;img" in json.dumps(plots.score_against_cost.build(sweep))


def test_the_front_and_the_other_trials_are_told_apart(snapshot: Take) -> None:
    sweep = snapshot("made")
    data = plots.score_against_cost.build(sweep)
    names = ("other trials", "Pareto front", "may be as good", "the best trial")
    shown = {name: [d[0] for d in _trace(data, name)["customdata"]] for name in names}
    assert set(shown["Pareto front"]) == sweep.on_front
    everyone = [*shown["other trials"], *shown["Pareto front"]]
    assert sorted(everyone) == sorted(trial.number for trial in sweep.ranked)
    assert set(shown["may be as good"]) == {trial.number for trial in sweep.contenders} != set()
    best = sweep.best
    assert best is not None
    assert shown["the best trial"] == [best.number]
    costs = _trace(data, "Pareto front")["x"]
    assert costs == sorted(costs)


def test_money_spent_counts_failures_too(snapshot: Take) -> None:
    sweep = snapshot("made")
    data = plots.best_against_spent.build(sweep)
    best = _trace(data, "top so far")
    assert best["y"] == sorted(best["y"])
    assert best["y"][-1] == pytest.approx(sweep.ranked[0].score, rel=1e-5)
    spent = math.fsum(trial.cost or 0.0 for trial in sweep.trials)
    assert best["x"][-1] == pytest.approx(spent, rel=1e-5)


def test_each_line_of_parallel_coordinates_is_one_trial(snapshot: Take) -> None:
    sweep = snapshot("made")
    data = plots.parallel_coordinates.build(sweep)
    best = _trace(data, "the top trial")
    axes = len(data["layout"]["xaxis"]["tickvals"])
    assert axes == len(sweep.searched) + 2
    assert best["customdata"] == [sweep.ranked[0].number]
    assert best["x"] == [*range(axes), None]
    assert best["y"][axes - 1] == 1.0
    lines = sum(len(trace["customdata"]) for trace in data["data"])
    assert lines == len(sweep.ranked)
    assert all(y is None or -0.01 <= y <= 1.01 for trace in data["data"] for y in trace["y"])


def test_learning_curves_are_of_the_best_and_the_latest(snapshot: Take) -> None:
    sweep = snapshot("made")
    numbers = curve_numbers(sweep)
    order = [trial.number for trial in sweep.ranked]
    assert set(order[:5]) <= set(numbers)
    assert sweep.ended[-1].number in numbers
    data = plots.learning_curves.build(sweep)
    assert _trace(data, f"trial {order[0]}")["y"][-1] == pytest.approx(
        sweep.curves[order[0]][-1].metrics["reward"], rel=1e-5
    )
    assert data["layout"]["yaxis"]["title"]["text"] == "reward while training"


def _many(sweep: SweepState) -> SweepState:
    """A sweep of 3,000 trials: those of another again and again, a little shifted."""
    scored = [trial for trial in sweep.ranked if trial.cost is not None]
    trials = [
        replace(
            trial, number=number, score=(trial.score or 0.0) + 1e-4 * number, cost=(trial.cost or 0.0) + 1e-3 * number
        )
        for number, trial in enumerate(itertools.islice(itertools.cycle(scored), 3000))
    ]
    return replace(sweep, trials=trials, analysis=None)


def test_of_many_dots_those_on_one_another_are_one(snapshot: Take) -> None:
    sweep = _many(snapshot("made"))
    trace = _trace(plots.score_against_cost.build(sweep), "other trials")
    hidden = [int(text.split()[1]) if text else 0 for text in trace["text"]]
    assert len(trace["x"]) < 2000
    assert len(trace["x"]) + sum(hidden) == 3000 - len(sweep.on_front)
    darkness = dict(zip(hidden, trace["marker"]["opacity"], strict=True))
    assert [darkness[count] for count in sorted(darkness)] == sorted(darkness.values())
    numbers = {trial.number: trial for trial in sweep.trials}
    for (number, _), x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True):
        assert (x, y) == (pytest.approx(numbers[number].cost, rel=1e-5), pytest.approx(numbers[number].score, rel=1e-5))


def test_of_many_lines_the_best_and_some_of_the_others_are_shown(snapshot: Take) -> None:
    sweep = _many(snapshot("made"))
    others, best, winner = plots.parallel_coordinates.build(sweep)["data"]
    order = [trial.number for trial in sweep.ranked]
    assert [*winner["customdata"], *best["customdata"]] == order[:40]
    assert others["name"] == "one in 6 of the other trials"
    assert others["customdata"] == order[40::6]


def test_plots_that_would_be_empty_are_left_out(snapshot: Take) -> None:
    assert list(plots.all_plots(snapshot("empty"))) == []
    assert list(plots.all_plots(snapshot("failing"))) == ["learning_curves"]
    assert len(plots.all_plots(snapshot("made"))) == len(plots.OVERVIEW) + 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "0.001"),
        (1e-5, "1e-5"),
        (3.16e-4, "3.16e-4"),
        (32768.0, "32,800"),
        (0.0, "0"),
        (2e7, "2e7"),
        (-1.5, "-1.5"),
    ],
)
def test_ticks_read_well(value: float, text: str) -> None:
    assert tick_text(value) == text
