"""Score against cost, and the top score as the sweep went on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metta.sweep.analysis.progress import spending
from metta.sweep.report.plots.axes import is_wide, linear_axis, log_axis, numbers
from metta.sweep.report.plots.figure import Data, legend, or_empty, plot
from metta.sweep.report.plots.labels import cost_title, score_title
from metta.sweep.report.plots.markers import cloud, markers, shares
from metta.sweep.report.plots.theme import ACCENT
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial

LABEL_WIDTH, LABEL_HEIGHT = 0.06, 0.07
"""Labels that are nearer to each other than these shares of the plot would overlap."""


@plot(
    "Score against cost",
    "Each dot is a trial. The line is the Pareto front: no other trial scored better at no more cost. "
    "Bars show where a front trial's score should average if it is run again (95% sure).",
)
def score_against_cost(sweep: SweepState) -> Data:
    trials = _by_cost(sweep)
    found, front = sweep.conclusions, sweep.on_front
    may_be_as_good = {trial.number for trial in found.contenders}
    on_front = [trial for trial in trials if trial.number in front]
    contenders = [trial for trial in trials if trial.number in may_be_as_good]
    rest = [trial for trial in trials if trial.number not in front]
    best = [trial for trial in trials if found.best is not None and trial.number == found.best.number]
    costs = [trial.cost or 0.0 for trial in trials]
    log = is_wide(costs)
    front_marker = {"color": ACCENT, "size": 10, "line": {"width": 1.5, "color": "#ffffff"}}
    ring = {"color": ACCENT, "size": 15, "symbol": "circle-open", "line": {"width": 1.5}}
    traces = [
        cloud(rest, "other trials", *_costs_and_scores(rest), log=log),
        {
            **markers(on_front, "Pareto front", front_marker),
            "mode": "lines+markers+text",
            "line": {"color": ACCENT, "width": 2, "shape": "hv"},
            "text": _front_labels(trials, on_front, log),
            "textposition": "top left" if sweep.sign > 0 else "bottom left",
            "cliponaxis": False,
        },
        markers(best, "the best trial", {"color": ACCENT, "size": 13, "symbol": "diamond"}),
        markers(contenders, "may be as good", ring),
        *_expectations(sweep, on_front),
    ]
    layout = {
        "xaxis": {
            "title": {"text": cost_title(sweep, "cost of a trial")},
            **(log_axis(costs) if log else linear_axis(costs)),
        },
        "yaxis": {"title": {"text": score_title(sweep)}},
        "height": 440,
        **legend(),
    }
    return {"data": [trace for trace in traces if trace["x"]], "layout": or_empty(layout, trials)}


def _by_cost(sweep: SweepState) -> list[Trial]:
    """Scored trials with a cost, from cheap to expensive; of equal cost the better one first."""
    costed = [trial for trial in sweep.ranked if trial.cost is not None]
    return sorted(costed, key=lambda trial: trial.cost or 0.0)


def _costs_and_scores(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [trial.cost or 0.0 for trial in trials], [trial.score or 0.0 for trial in trials]


def _front_labels(trials: Sequence[Trial], on_front: Sequence[Trial], log: bool) -> list[str]:
    """Numbers of the trials on the front. Those too near to each other share a label at the first of them.

    There it covers no trial, because none is cheaper and better.
    """
    costs, scores = _costs_and_scores(trials)
    across, up = shares([math.log(cost) for cost in costs] if log else costs), shares(scores)
    positions = {trial.number: (across[i], up[i]) for i, trial in enumerate(trials)}
    labels: list[list[int]] = []
    for trial in on_front:
        x, y = positions[trial.number]
        first = positions[labels[-1][0]] if labels else (-1.0, -1.0)
        if abs(x - first[0]) < LABEL_WIDTH and abs(y - first[1]) < LABEL_HEIGHT:
            labels[-1].append(trial.number)
        else:
            labels.append([trial.number])
    texts = {label[0]: ", ".join(map(str, label[:3])) + (" ..." if len(label) > 3 else "") for label in labels}
    return [texts.get(trial.number, "") for trial in on_front]


def _expectations(sweep: SweepState, on_front: Sequence[Trial]) -> list[Data]:
    """The model's 95% interval of the true score of each trial on the front, as a bar beside its marker."""
    found = sweep.conclusions
    known = [
        (trial, expected.score, interval[1])
        for trial in on_front
        if (expected := found.expected(trial)) is not None and (interval := found.interval_of(trial)) is not None
    ]
    if not known:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "average if run again (95% sure)",
            "x": numbers(trial.cost for trial, _, _ in known),
            "y": numbers(score for _, score, _ in known),
            "error_y": {
                "type": "data",
                "array": numbers(high - score for _, score, high in known),
                "color": ACCENT,
                "thickness": 1,
                "width": 4,
            },
            "marker": {"color": ACCENT, "symbol": "line-ew-open", "size": 9, "line": {"width": 2}},
            "hovertemplate": "should average %{y:.4g}<extra></extra>",
        }
    ]


@plot(
    "Top score as the sweep went on",
    "The line is the top score measured so far; dots are the trials. Where it stays flat, more trials bring little.",
)
def best_against_spent(sweep: SweepState) -> Data:
    entries = spending(sweep)
    shown = [(each.spent, each.score, each.trial) for each in entries if each.score is not None]
    steps = [
        (each.spent, each.score, each.trial.number) for each in entries if each.is_better and each.score is not None
    ]
    line = [*steps, (entries[-1].spent, steps[-1][1], -1)] if steps else []
    trials = [trial for _, _, trial in shown]
    traces = [
        cloud(trials, "trials", [x for x, _, _ in shown], [y for _, y, _ in shown]),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "top so far",
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
            "textposition": "top left" if sweep.sign > 0 else "bottom left",
            "marker": {"color": ACCENT, "size": 8},
            "hovertemplate": "trial %{customdata}<br>top so far %{y:.4g}<extra></extra>",
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
