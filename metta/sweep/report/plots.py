"""The plots of a sweep, as plotly figures.

Example:
    >>> from metta.sweep.report import plots
    >>> from metta.sweep.report.snapshot import take_snapshot
    >>> from metta.sweep.store.loaded import load_sweep
    >>> sweep = take_snapshot(load_sweep("sqlite:///train_dir/sweeps.db", "my_arena_sweep"))  # doctest: +SKIP
    >>> plots.score_against_cost(sweep).show()  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metta.common.config import flatten
from metta.common.errors import UserError
from metta.sweep.protein.protein import Prediction
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.axes import (
    choice_index,
    choice_text,
    is_log,
    is_number,
    is_wide,
    linear_axis,
    log_axis,
    numbers,
    parameter_axis,
    placer,
    plain,
    spread,
    tick_text,
)
from metta.sweep.report.snapshot import Snapshot, by_cost, near_the_front
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.report.summary import short_names
from metta.sweep.report.theme import ACCENT, ACCENT_FILL, LIGHT, NEUTRAL, QUIET
from metta.sweep.store.protocol import CurvePoint
from metta.sweep.trial import Trial, TrialState

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Data = dict[str, Any]
"""A plotly figure as JSON data: ``{"data": [traces], "layout": {...}}``."""

TITLE_HEIGHT = 90
SHOWN_ERROR_BARS = 300
MOST_OF_THE_BEST = 40
CURVE_METRICS = ("reward", "loss")
"""What a learning curve shows of a run that does not report the sweep's metric while it trains."""


@dataclass(frozen=True)
class Plot:
    """A plot of a sweep. Called with a `Snapshot`, it returns a plotly figure.

    Attributes:
        title: of the plot.
        caption: how to read it, in a sentence or two.
        build: makes the figure's data, which needs no plotly.
    """

    title: str
    caption: str
    build: Callable[[Snapshot], Data]

    def __call__(self, sweep: Snapshot) -> Figure:
        """The plot as a figure.

        Raises:
            UserError: plotly is not installed.
        """
        return to_figure(self.build(sweep), self.title)


def plot(title: str, caption: str) -> Callable[[Callable[[Snapshot], Data]], Plot]:
    return lambda build: Plot(title, caption, build)


def to_figure(data: Data, title: str) -> Figure:
    """A figure's data as a figure that stands alone, with a title and the light theme."""
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise UserError("plots need plotly; install metta-sweep[dashboard]") from None
    figure = go.Figure(data)
    height = figure.layout.height + TITLE_HEIGHT
    figure.update_layout(template=LIGHT, title={"text": plain(title)}, margin={"t": TITLE_HEIGHT}, height=height)
    return figure


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
    traces.append(_dots(rest, "other trials", _cloud(len(rest))))
    within = [trial for trial in trials if trial.number in near]
    traces.append(_dots(within, "within noise of the front", {"color": ACCENT, "size": 7, "opacity": 0.55}))
    traces.append(
        {
            **_dots(
                on_front, "Pareto front", {"color": ACCENT, "size": 10, "line": {"width": 1.5, "color": "#ffffff"}}
            ),
            "mode": "lines+markers+text",
            "line": {"color": ACCENT, "width": 2, "shape": "hv"},
            "text": _front_labels(trials, on_front, is_wide([trial.cost or 0.0 for trial in trials])),
            "textposition": "top left" if sweep.goal == "maximize" else "bottom left",
            "cliponaxis": False,
        }
    )
    traces.extend(_expectations(sweep, on_front))
    layout = {
        "xaxis": _cost_axis(sweep, [trial.cost or 0.0 for trial in trials], "cost of a trial"),
        "yaxis": {"title": {"text": _score_title(sweep)}},
        "height": 440,
        **_legend(),
    }
    return {"data": [trace for trace in traces if trace], "layout": _or_empty(layout, trials)}


def _front_labels(trials: Sequence[Trial], on_front: Sequence[Trial], log: bool) -> list[str]:
    """Numbers of the trials on the front, from the dearest on, of those that are not too near to one that has it."""
    places = {
        trial.number: (x, y)
        for trial, x, y in zip(
            trials,
            _shares([math.log(trial.cost or 1.0) if log else trial.cost or 0.0 for trial in trials]),
            _shares([trial.score or 0.0 for trial in trials]),
            strict=True,
        )
    }
    labelled: list[int] = []
    for trial in reversed(on_front):
        x, y = places[trial.number]
        if all(abs(x - places[n][0]) > 0.06 or abs(y - places[n][1]) > 0.07 for n in labelled):
            labelled.append(trial.number)
    return [str(trial.number) if trial.number in labelled else "" for trial in on_front]


def _shares(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return [(value - low) / ((high - low) or 1.0) for value in values]


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
        {**_dots(trials, "trials", _cloud(len(trials))), "x": numbers(x for x, _ in shown)},
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
        "xaxis": {"title": {"text": f"cost of all trials so far{_unit_in_brackets(sweep)}"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": _score_title(sweep)}},
        "showlegend": False,
        "height": 360,
    }
    return {"data": traces, "layout": _or_empty(layout, trials)}


@plot(
    "All parameters at once",
    "Each line is a trial, from its cost and hyperparameters to its score. Blue are the best of them; where blue lines "
    "bundle, that range is good. Drag a box over an axis to pick out the trials that pass through it; double-click to "
    "show all.",
)
def parallel_coordinates(sweep: Snapshot) -> Data:
    trials = [trial for trial in ranked(sweep.trials, sweep.goal) if trial.cost is not None]
    axes = [_parallel_cost(sweep, trials), *_parallel_parameters(sweep, trials), _parallel_score(sweep, trials)]
    top = min(len(trials), max(3, round(0.1 * len(trials))), MOST_OF_THE_BEST)
    groups = [
        ("other trials", range(top, len(trials)), {"color": NEUTRAL, "width": 0.7}, 0.3),
        (f"the best {top}", range(1, top), {"color": ACCENT, "width": 1.2}, 0.8),
        ("the best trial", range(min(1, len(trials))), {"color": ACCENT, "width": 4}, 1.0),
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
    ticks = [
        {
            "x": j,
            "y": height,
            "text": plain(text),
            "showarrow": False,
            "xanchor": "left" if j < len(axes) - 1 else "right",
            "xshift": 5 if j < len(axes) - 1 else -5,
            "font": {"size": 10.5},
            "bgcolor": QUIET,
            "borderpad": 1,
        }
        for j, axis in enumerate(axes)
        for height, text in axis.ticks
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
        "annotations": ticks if trials else [],
        "dragmode": "select",
        "height": 420,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top"},
    }
    return {"data": traces, "layout": _or_empty(layout, trials)}


@dataclass(frozen=True)
class _ParallelAxis:
    name: str
    heights: list[float]
    ticks: list[tuple[float, str]]


def _parallel_cost(sweep: Snapshot, trials: Sequence[Trial]) -> _ParallelAxis:
    costs = [trial.cost or 0.0 for trial in trials]
    return _numeric_axis(f"cost{_unit_in_brackets(sweep)}", costs, is_wide(costs), None)


def _parallel_score(sweep: Snapshot, trials: Sequence[Trial]) -> _ParallelAxis:
    return _numeric_axis(sweep.metric, [trial.score or 0.0 for trial in trials], False, None)


def _parallel_parameters(sweep: Snapshot, trials: Sequence[Trial]) -> list[_ParallelAxis]:
    names = parameter_names(sweep)
    axes = []
    for path, parameter in searched(sweep).items():
        values = [trial.params.get(path) for trial in trials]
        if parameter.choices is not None:
            count = len(parameter.choices)
            places = {i: (i + 0.5) / count for i in range(count)}
            heights = [places.get(choice_index(parameter, value), math.nan) for value in values]
            ticks = [(places[i], choice_text(choice)) for i, choice in enumerate(parameter.choices)]
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


def parameter_against_score(path: str) -> Plot:
    """The plot of one parameter, named by its dotted path, against the score."""

    def build(sweep: Snapshot) -> Data:
        parameter = searched(sweep)[path]
        name = parameter_names(sweep)[path]
        trials = [trial for trial in ranked(sweep.trials, sweep.goal) if path in trial.params]
        place = placer(parameter)
        placed = [trial for trial in trials if place(trial.params[path]) is not None]
        best = sweep.analysis.recommended if sweep.analysis else None
        others = [trial for trial in placed if trial.number != best]
        chosen = [trial for trial in placed if trial.number == best]
        traces: list[Data] = []
        if sweep.analysis and path in sweep.analysis.slices:
            cut = sweep.analysis.slices[path]
            traces += _slice_traces([place(value) for value in cut.values], cut.predictions, parameter)
        for group, label, marker in (
            (others, "trials", _cloud(len(others))),
            (chosen, "recommended", {"color": ACCENT, "size": 11, "line": {"width": 1.5, "color": "#ffffff"}}),
        ):
            jitter = 0.0 if parameter.choices is None else 0.5
            x = [(place(trial.params[path]) or 0.0) + jitter * spread(trial.number) for trial in group]
            traces.append({**_dots(group, label, marker), "x": numbers(x)})
            traces[-1]["hovertemplate"] = "trial %{customdata[0]}<br>score %{y:.4g}<br>%{x:.4g}<extra></extra>"
            if parameter.choices is not None:
                traces[-1]["hovertemplate"] = "trial %{customdata[0]}<br>score %{y:.4g}<extra></extra>"
        layout: Data = {
            "xaxis": {"title": {"text": plain(name)}, **parameter_axis(parameter)},
            "yaxis": {"title": {"text": _score_title(sweep)}, "range": _score_range(trials)},
            "showlegend": False,
            "height": 300,
        }
        return {"data": traces, "layout": _or_empty(layout, placed)}

    return Plot(
        f"{path} against score",
        "Dots are trials, the large one the recommended trial. The line is what the model expects as this parameter "
        "alone changes from there, with its 95% interval.",
        build,
    )


def _slice_traces(
    places: Sequence[float | None], expected: Sequence[Prediction], parameter: ParameterConfig
) -> list[Data]:
    x = numbers(places)
    low = [each.score - 1.96 * each.score_std for each in expected]
    high = [each.score + 1.96 * each.score_std for each in expected]
    if parameter.choices is not None:
        bars = {
            "type": "data",
            "array": numbers(1.96 * each.score_std for each in expected),
            "color": ACCENT,
            "width": 8,
        }
        marker = {"color": ACCENT, "symbol": "line-ew-open", "size": 18, "line": {"width": 2.5}}
        centres = {"type": "scatter", "mode": "markers", "x": x, "y": numbers(each.score for each in expected)}
        return [{**centres, "error_y": bars, "marker": marker, "name": "the model expects", "hoverinfo": "skip"}]
    band = {
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": numbers([*high, *reversed(low)]),
        "fill": "toself",
        "fillcolor": ACCENT_FILL,
        "mode": "none",
        "hoverinfo": "skip",
        "name": "95%",
    }
    line = {"type": "scatter", "mode": "lines", "x": x, "y": numbers(each.score for each in expected)}
    return [band, {**line, "line": {"color": ACCENT, "width": 2}, "name": "the model expects", "hoverinfo": "skip"}]


@plot(
    "What matters",
    "The share of the variation of the score, and of the cost, that each parameter takes part in over the whole search "
    "space, by the model. Shares add up to more than 100% where parameters work together.",
)
def importance(sweep: Snapshot) -> Data:
    shares = sweep.analysis.importance if sweep.analysis else {}
    names = parameter_names(sweep)
    order = sorted(shares, key=lambda path: shares[path].score)
    labels = [plain(names[path]) for path in order]
    bars = [
        ("cost", [shares[path].cost for path in order], NEUTRAL),
        ("score", [shares[path].score for path in order], ACCENT),
    ]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": labels,
            "x": numbers(values),
            "text": [f"{value:.0%}" for value in values],
            "textposition": "outside",
            "cliponaxis": False,
            "marker": {"color": colour},
            "hovertemplate": f"%{{y}}: %{{x:.0%}} of the {name}<extra></extra>",
        }
        for name, values, colour in bars
    ]
    largest = max((max(each.score, each.cost) for each in shares.values()), default=1.0)
    layout = {
        "xaxis": {"tickformat": ".0%", "range": [0, 1.15 * max(largest, 0.1)], "title": {"text": "share of variation"}},
        "yaxis": {"automargin": True, "ticks": "", "showgrid": False},
        "barmode": "group",
        "bargap": 0.35,
        "bargroupgap": 0.08,
        "height": max(360, 90 + 48 * len(order)),
        **_legend(),
    }
    layout["legend"]["traceorder"] = "reversed"
    return {"data": traces, "layout": _or_empty(layout, order)}


@plot(
    "Is the model any good?",
    "What the model predicted of trials before they ran, against what was measured, with one standard deviation. On "
    "the line, it was right. Two in three bars should cross the line.",
)
def predicted_against_measured(sweep: Snapshot) -> Data:
    layout: Data = {"height": 360, "showlegend": False}
    if sweep.analysis is None or not sweep.analysis.forecasts.numbers:
        return {"data": [], "layout": _or_empty(layout, [], "no trial was predicted before it ran")}
    forecasts = sweep.analysis.forecasts
    ends = numbers(
        [
            min(forecasts.predicted.min(), forecasts.measured.min()),
            max(forecasts.predicted.max(), forecasts.measured.max()),
        ]
    )
    points: Data = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(forecasts.predicted),
        "y": numbers(forecasts.measured),
        "customdata": forecasts.numbers,
        "marker": {**_cloud(len(forecasts.numbers)), "color": ACCENT},
        "hovertemplate": "trial %{customdata}<br>predicted %{x:.4g}<br>measured %{y:.4g}<extra></extra>",
        "name": "trials",
    }
    if len(forecasts.numbers) <= SHOWN_ERROR_BARS:
        points["error_x"] = {
            "type": "data",
            "array": numbers(forecasts.deviations),
            "color": NEUTRAL,
            "thickness": 1,
            "width": 0,
        }
    right = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "name": "right"}
    layout |= {
        "xaxis": {"title": {"text": f"predicted {_score_title(sweep)}"}},
        "yaxis": {"title": {"text": f"measured {_score_title(sweep)}"}},
    }
    if forecasts.rank_correlation is not None:
        layout["annotations"] = [
            {
                "xref": "paper",
                "yref": "paper",
                "x": 0.02,
                "y": 0.98,
                "xanchor": "left",
                "yanchor": "top",
                "align": "left",
                "showarrow": False,
                "text": f"rank correlation {forecasts.rank_correlation:.2f}<br>"
                f"{forecasts.within_one_deviation:.0%} within one deviation",
                "bgcolor": QUIET,
                "borderpad": 4,
            }
        ]
    return {"data": [{**right, "line": {"color": NEUTRAL, "width": 1.5, "dash": "dash"}}, points], "layout": layout}


@plot(
    "Learning curves",
    "How trials learnt: the best in blue, what runs in bold, others behind them. Of many trials, the best, the "
    "Pareto front and the latest.",
)
def learning_curves(sweep: Snapshot) -> Data:
    order = [trial.number for trial in ranked(sweep.trials, sweep.goal) if trial.number in sweep.curves]
    running = {trial.number for trial in sweep.with_state(TrialState.RUNNING)}
    return _curves(sweep, list(sweep.curves), order[0] if order else None, running)


def trial_curve(number: int) -> Plot:
    """The plot of one trial's learning curve."""
    return Plot(f"How trial {number} learnt", "", lambda sweep: _curves(sweep, [number], number, set()))


def _curves(sweep: Snapshot, numbered: Sequence[int], best: int | None, running: set[int]) -> Data:
    metric = curve_metric(sweep.metric, [point for number in numbered for point in sweep.curves[number]])
    traces: list[Data] = []
    for number in sorted(numbered, key=lambda number: (number == best, number in running, -number)):
        points = [point for point in sweep.curves[number] if metric in point.metrics]
        lead = number == best or number in running
        label = f"trial {number}" + (" (runs)" if number in running else "")
        if not points:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": [point.step for point in points],
                "y": numbers(point.metrics[metric] for point in points),
                "customdata": [number] * len(points),
                "line": {"color": ACCENT if number == best else NEUTRAL, "width": 2.5 if lead else 1.2},
                "opacity": 1.0 if lead else 0.5,
                "hovertemplate": f"trial {number}<br>%{{x:.4s}} steps: %{{y:.4g}}<extra></extra>",
            }
        )
        if lead and len(numbered) > 1:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "text",
                    "x": [points[-1].step],
                    "y": numbers([points[-1].metrics[metric]]),
                    "text": [f"{label} "],
                    "textposition": "top left",
                    "textfont": {"color": ACCENT if number == best else NEUTRAL},
                    "hoverinfo": "skip",
                }
            )
    layout = {
        "xaxis": {"title": {"text": "steps"}, "tickformat": "~s", "rangemode": "tozero"},
        "yaxis": {"title": {"text": plain(metric)}},
        "showlegend": False,
        "height": 360,
    }
    return {"data": traces, "layout": _or_empty(layout, traces, "no trial has reported progress")}


def curve_metric(metric: str, points: Sequence[CurvePoint]) -> str:
    """Which metric learning curves show: the sweep's own where trials report it as they train, else the reward."""
    named = {name for point in points for name in point.metrics}
    return next((name for name in (metric, *CURVE_METRICS) if name in named), min(named, default=metric))


OVERVIEW: dict[str, Plot] = {
    "score_against_cost": score_against_cost,
    "best_against_spent": best_against_spent,
    "importance": importance,
    "predicted_against_measured": predicted_against_measured,
    "learning_curves": learning_curves,
    "parallel_coordinates": parallel_coordinates,
}
"""The plots that every sweep has, by name."""

PARAMETER = "parameter:"
"""What the names of the parameters' own plots begin with."""


def all_plots(sweep: Snapshot) -> dict[str, Plot]:
    """Every plot of a sweep by name: those of `OVERVIEW`, and each parameter against the score.

    Those that would be empty are left out.
    """
    own = {f"{PARAMETER}{path}": parameter_against_score(path) for path in searched(sweep)}
    scored = bool(ranked(sweep.trials, sweep.goal))
    empty = {
        "importance": sweep.analysis is None,
        "predicted_against_measured": sweep.analysis is None or not sweep.analysis.forecasts.numbers,
        "learning_curves": not sweep.trials,
    }
    return {name: plot for name, plot in {**OVERVIEW, **own}.items() if not empty.get(name, not scored)}


def searched(sweep: Snapshot) -> dict[str, ParameterConfig]:
    """What is searched, by dotted path."""
    leaves = flatten(sweep.definition.protein.parameters)
    return {path: leaf for path, leaf in leaves.items() if isinstance(leaf, ParameterConfig)}


def parameter_names(sweep: Snapshot) -> dict[str, str]:
    """The shortest clear name of each searched parameter, by dotted path."""
    return short_names(list(searched(sweep)))


def _cloud(count: int) -> Data:
    """The marker of trials that are many: the more, the smaller and fainter."""
    return {"color": NEUTRAL, "size": 4 if count > 1000 else 6, "opacity": 0.35 if count > 1000 else 0.55}


def _dots(trials: Sequence[Trial], name: str, marker: Data) -> Data:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": numbers(trial.cost for trial in trials),
        "y": numbers(trial.score for trial in trials),
        "customdata": [[trial.number, None if trial.cost is None else f"{trial.cost:,.4g}"] for trial in trials],
        "marker": marker,
        "hovertemplate": "trial %{customdata[0]}<br>score %{y:.4g}<br>cost %{customdata[1]}<extra></extra>",
    }


def _score_range(trials: Sequence[Trial]) -> list[float] | None:
    """From the lowest to the highest score with some room: the model's far ends would squeeze what was measured."""
    scores = [trial.score for trial in trials if trial.score is not None]
    if not scores:
        return None
    room = 0.12 * (max(scores) - min(scores)) or 0.1 * abs(max(scores)) or 1.0
    return [min(scores) - room, max(scores) + room]


def _cost_axis(sweep: Snapshot, costs: Sequence[float], title: str) -> Data:
    axis: Data = {"title": {"text": f"{title}{_unit_in_brackets(sweep)}"}}
    if is_wide(costs):
        return {**axis, **log_axis(costs)}
    return {**axis, **linear_axis(costs)}


def _unit_in_brackets(sweep: Snapshot) -> str:
    return f" ({plain(sweep.definition.cost_metric)})"


def _score_title(sweep: Snapshot) -> str:
    return plain(sweep.metric)


def _legend() -> Data:
    return {"showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}}


def _or_empty(layout: Data, shown: Sequence[Any], why: str = "no trial has a score yet") -> Data:
    """The layout, or where there is nothing to show one that says why."""
    if shown:
        return layout
    note = {"text": why, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return {
        "annotations": [{**note, "font": {"color": NEUTRAL, "size": 15}}],
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
        "showlegend": False,
        "height": 240,
    }
