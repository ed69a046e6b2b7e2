"""All parameters at once: a line for each trial, through an axis for each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from metta.sweep.report.format import choice_text
from metta.sweep.report.plots.axes import choice_index, is_log, is_number, is_wide, numbers, plain, tick_text
from metta.sweep.report.plots.figure import Data, or_empty, plot
from metta.sweep.report.plots.theme import ACCENT, NEUTRAL, QUIET
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial

MOST_OF_THE_BEST = 40
MOST_OTHERS = 500
"""More lines than this hide each other and are slow to draw; of more trials, every n-th by score is shown."""


@plot(
    "All parameters at once",
    "Each line is a trial, from its cost and hyperparameters to its score; the top scores are blue. Drag a box over an "
    "axis to keep the trials that pass through it; double-click to show all.",
)
def parallel_coordinates(sweep: SweepState) -> Data:
    trials = [trial for trial in sweep.ranked if trial.cost is not None]
    axes = [_parallel_cost(sweep, trials), *_parallel_parameters(sweep, trials), _parallel_score(sweep, trials)]
    top = min(len(trials), max(3, round(0.1 * len(trials))), MOST_OF_THE_BEST)
    step = max(1, math.ceil((len(trials) - top) / MOST_OTHERS))
    others = "other trials" if step == 1 else f"one in {step} of the other trials"
    groups = [
        (others, range(top, len(trials), step), {"color": NEUTRAL, "width": 0.7}, 0.3),
        (f"the {top} top scores", range(1, top), {"color": ACCENT, "width": 1.2}, 0.8),
        ("the top trial", range(min(1, len(trials))), {"color": ACCENT, "width": 4}, 1.0),
    ]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": [x for _ in rows for x in (*range(len(axes)), None)],
            "y": [y for row in rows for y in (*(axis.heights[row] for axis in axes), None)],
            "customdata": [trials[row].number for row in rows],
            "line": line,
            "opacity": opacity,
            "hoverinfo": "skip",
        }
        for name, rows, line, opacity in groups
    ]
    layout = {
        "xaxis": {
            "tickvals": list(range(len(axes))),
            "ticktext": [plain(axis.name) for axis in axes],
            "range": [-0.15, len(axes) - 0.85],
            "showgrid": True,
            "gridwidth": 1.5,
            "side": "top",
            "showline": False,
            "ticks": "",
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
        "annotations": _tick_labels(axes) if trials else [],
        "dragmode": "select",
        "margin": {"t": 30},
        "height": 420,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top"},
    }
    return {"data": traces, "layout": or_empty(layout, trials)}


@dataclass(frozen=True)
class _ParallelAxis:
    name: str
    heights: list[float]
    ticks: list[tuple[float, str]]


def _tick_labels(axes: Sequence[_ParallelAxis]) -> list[Data]:
    """The labels of all axes; those of the last one are on its left."""
    last = len(axes) - 1
    return [
        {
            "x": j,
            "y": height,
            "text": plain(text),
            "showarrow": False,
            "xanchor": "left" if j < last else "right",
            "xshift": 5 if j < last else -5,
            "font": {"size": 10.5},
            "bgcolor": QUIET,
            "borderpad": 1,
        }
        for j, axis in enumerate(axes)
        for height, text in axis.ticks
    ]


def _parallel_cost(sweep: SweepState, trials: Sequence[Trial]) -> _ParallelAxis:
    costs = [trial.cost or 0.0 for trial in trials]
    return _numeric_axis(f"cost ({sweep.definition.cost_metric})", costs, is_wide(costs), None)


def _parallel_score(sweep: SweepState, trials: Sequence[Trial]) -> _ParallelAxis:
    return _numeric_axis(sweep.metric, [trial.score or 0.0 for trial in trials], False, None)


def _parallel_parameters(sweep: SweepState, trials: Sequence[Trial]) -> list[_ParallelAxis]:
    names = sweep.parameter_names
    axes = []
    for path, parameter in sweep.searched.items():
        values = [trial.params.get(path) for trial in trials]
        if parameter.choices is not None:
            count = len(parameter.choices)
            centres = {i: (i + 0.5) / count for i in range(count)}
            heights = [centres.get(choice_index(parameter, value), math.nan) for value in values]
            ticks = [(centres[i], choice_text(choice)) for i, choice in enumerate(parameter.choices)]
            axes.append(_ParallelAxis(names[path], numbers(heights), ticks))
        else:
            floats = [math.nan if value is None or not is_number(value) else float(value) for value in values]
            bounds = (parameter.min or 0.0, parameter.max or 0.0)
            axes.append(_numeric_axis(names[path], floats, is_log(parameter), bounds))
    return axes


def _numeric_axis(name: str, values: Sequence[float], log: bool, bounds: tuple[float, float] | None) -> _ParallelAxis:
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = bounds or (min(known, default=0.0), max(known, default=1.0))
    scale = math.log if log else float
    span = (scale(high) - scale(low)) or 1.0
    inverse = math.exp if log else float

    def height(value: float) -> float:
        return (scale(value) - scale(low)) / span if math.isfinite(value) and (value > 0 or not log) else math.nan

    ticks = [(share, tick_text(inverse(scale(low) + share * span))) for share in (0.0, 0.5, 1.0)]
    return _ParallelAxis(name, numbers(height(value) for value in values), ticks)
