"""What was found, and for what money: score against cost, and the best score as the sweep went on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metta.sweep.report.axes import is_wide, linear_axis, log_axis, numbers
from metta.sweep.report.plots.dots import cloud, dots, shares
from metta.sweep.report.plots.figure import Data, legend, or_empty, plot
from metta.sweep.report.plots.labels import cost_title, score_title
from metta.sweep.report.snapshot import Snapshot, by_cost, near_the_front
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.report.theme import ACCENT, ACCENT_FILL
from metta.sweep.trial import Trial


@plot(
    "Score against cost",
    "Each dot is a trial. The line is the Pareto front: no other trial scored better for no more cost. Trials in the "
    "shaded band are within the noise of one measurement of the front, so they may be just as good. Bars show what "
    "the model expects of a front trial if it is repeated.",
)
def score_against_cost(sweep: Snapshot) -> Data:
    trials = by_cost(sweep)
    front = pareto_front(trials, sweep.goal)
    near = near_the_front(sweep)
    on_front = [trial for trial in trials if trial.number in front]
    rest = [trial for trial in trials if trial.number not in front and trial.number not in near]
    traces = []
    if on_front:
        traces.append(_band(sweep, on_front, max(trial.cost or 0.0 for trial in trials)))
    costs = [trial.cost or 0.0 for trial in trials]
    log = is_wide(costs)
    traces.append(cloud(rest, "other trials", *_costs_and_scores(rest), log=log))
    within = [trial for trial in trials if trial.number in near]
    traces.append(dots(within, "within noise of the front", {"color": ACCENT, "size": 7, "opacity": 0.55}))
    traces.append(
        {
            **dots(on_front, "Pareto front", {"color": ACCENT, "size": 10, "line": {"width": 1.5, "color": "#ffffff"}}),
            "mode": "lines+markers+text",
            "line": {"color": ACCENT, "width": 2, "shape": "hv"},
            "text": _front_labels(trials, on_front, log),
            "textposition": "top left" if sweep.goal == "maximize" else "bottom left",
            "cliponaxis": False,
        }
    )
    traces.extend(_expectations(sweep, on_front))
    layout = {
        "xaxis": {
            "title": {"text": cost_title(sweep, "cost of a trial")},
            **(log_axis(costs) if log else linear_axis(costs)),
        },
        "yaxis": {"title": {"text": score_title(sweep)}},
        "height": 440,
        **legend(),
    }
    return {"data": [trace for trace in traces if trace], "layout": or_empty(layout, trials)}


def _costs_and_scores(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [trial.cost or 0.0 for trial in trials], [trial.score or 0.0 for trial in trials]


def _front_labels(trials: Sequence[Trial], on_front: Sequence[Trial], log: bool) -> list[str]:
    """Numbers of the trials on the front, from the dearest on, of those that are not too near to one that has it."""
    costs, scores = _costs_and_scores(trials)
    across, up = shares([math.log(cost) for cost in costs] if log else costs), shares(scores)
    places = {trial.number: (across[i], up[i]) for i, trial in enumerate(trials)}
    labelled: list[int] = []
    for trial in reversed(on_front):
        x, y = places[trial.number]
        if all(abs(x - places[n][0]) > 0.06 or abs(y - places[n][1]) > 0.07 for n in labelled):
            labelled.append(trial.number)
    return [str(trial.number) if trial.number in labelled else "" for trial in on_front]


def _band(sweep: Snapshot, on_front: Sequence[Trial], dearest: float) -> Data:
    """The band below the front that is as wide as the noise of one measurement."""
    if sweep.analysis is None:
        return {}
    sign = 1.0 if sweep.goal == "maximize" else -1.0
    expected = sweep.analysis.expected
    known = [trial for trial in on_front if trial.number in expected]
    if not known:
        return {}
    costs = [trial.cost or 0.0 for trial in known] + [dearest]
    tops = [trial.score or 0.0 for trial in known]
    floors = [top - sign * expected[trial.number].noise_std for top, trial in zip(tops, known, strict=True)]
    x, upper, lower = [costs[0]], [tops[0]], [floors[0]]
    for i in range(1, len(costs)):
        j = min(i, len(tops) - 1)
        x += [costs[i], costs[i]]
        upper += [tops[i - 1], tops[j]]
        lower += [floors[i - 1], floors[j]]
    return {
        "type": "scatter",
        "x": numbers([*x, *reversed(x)]),
        "y": numbers([*upper, *reversed(lower)]),
        "fill": "toself",
        "fillcolor": ACCENT_FILL,
        "mode": "none",
        "hoverinfo": "skip",
        "name": "noise of one measurement",
    }


def _expectations(sweep: Snapshot, on_front: Sequence[Trial]) -> list[Data]:
    """The model's 95% interval of the true score of each trial on the front, as a bar beside its dot."""
    if sweep.analysis is None:
        return []
    known = [
        (trial, sweep.analysis.expected[trial.number]) for trial in on_front if trial.number in sweep.analysis.expected
    ]
    if not known:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "what the model expects of a repeat (95%)",
            "x": numbers(trial.cost for trial, _ in known),
            "y": numbers(expected.score for _, expected in known),
            "error_y": {
                "type": "data",
                "array": numbers(1.96 * expected.score_std for _, expected in known),
                "color": ACCENT,
                "thickness": 1,
                "width": 4,
            },
            "marker": {"color": ACCENT, "symbol": "line-ew-open", "size": 9, "line": {"width": 2}},
            "hovertemplate": "the model expects %{y:.4g}<extra></extra>",
        }
    ]


@plot(
    "Best score against money spent",
    "The line is the best score measured so far, as the cost of all trials adds up; dots are the trials. Where the "
    "line stays flat, more trials bring little.",
)
def best_against_spent(sweep: Snapshot) -> Data:
    spent, best = 0.0, math.nan
    better = max if sweep.goal == "maximize" else min
    steps: list[tuple[float, float, int]] = []
    shown: list[tuple[float, Trial]] = []
    scored = {trial.number for trial in ranked(sweep.trials, sweep.goal)}
    for trial in sweep.ended:
        spent += trial.cost if trial.cost is not None and math.isfinite(trial.cost) else 0.0
        if trial.number not in scored or trial.score is None:
            continue
        shown.append((spent, trial))
        if math.isnan(best) or better(trial.score, best) != best:
            best = trial.score
            steps.append((spent, best, trial.number))
    line = [*steps, (spent, best, -1)] if steps else []
    trials = [trial for _, trial in shown]
    traces = [
        cloud(trials, "trials", [x for x, _ in shown], [trial.score or 0.0 for trial in trials]),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": numbers(x for x, _, _ in line),
            "y": numbers(y for _, y, _ in line),
            "line": {"color": ACCENT, "width": 2.5, "shape": "hv"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "a better trial",
            "x": numbers(x for x, _, _ in steps),
            "y": numbers(y for _, y, _ in steps),
            "customdata": [number for _, _, number in steps],
            "text": ["" for _ in steps[1:]] + [f"trial {steps[-1][2]}: {steps[-1][1]:.4g}"] if steps else [],
            "textposition": "top left" if sweep.goal == "maximize" else "bottom left",
            "marker": {"color": ACCENT, "size": 8},
            "hovertemplate": "trial %{customdata}<br>best so far %{y:.4g}<extra></extra>",
            "cliponaxis": False,
        },
    ]
    layout = {
        "xaxis": {"title": {"text": cost_title(sweep, "cost of all trials so far")}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": score_title(sweep)}},
        "showlegend": False,
        "height": 360,
    }
    return {"data": traces, "layout": or_empty(layout, trials)}
