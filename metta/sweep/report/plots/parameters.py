"""Each parameter against the score, and how much each matters."""

from __future__ import annotations

from collections.abc import Sequence

from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.plots.axes import axis_position, is_log, jitter, numbers, parameter_axis, plain
from metta.sweep.report.plots.figure import Data, Plot, legend, or_empty, plot
from metta.sweep.report.plots.labels import score_title
from metta.sweep.report.plots.markers import cloud, markers
from metta.sweep.report.plots.theme import ACCENT, ACCENT_FILL, NEUTRAL
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial

PILE = 0.2
"""A larger share of the trials at one end of a range is noted there."""

CAPTION = (
    "Grey dots are trials, which differ in other parameters too. The line is the prediction as only this "
    "parameter changes from the best setting; the band is the 95% interval of that average. The blue dot is the "
    "best setting as expected, the ring as measured."
)


def parameter_against_score(path: str) -> Plot:
    """The plot of one parameter, named by its dotted path, against the score."""

    def build(sweep: SweepState) -> Data:
        parameter = sweep.searched[path]
        name, found = sweep.parameter_names[path], sweep.conclusions
        position = axis_position(parameter)
        trials = [trial for trial in sweep.ranked if path in trial.params]
        shown = [trial for trial in trials if position(trial.params[path]) is not None]
        others = [trial for trial in shown if found.best is None or trial.number != found.best.number]
        best = [trial for trial in shown if found.best is not None and trial.number == found.best.number]
        hover = "score %{y:.4g}" if parameter.choices else "score %{y:.4g}<br>%{x:.4g}"
        offset = 0.5 if parameter.choices else 0.0

        def positions(group: Sequence[Trial]) -> list[float]:
            return [(position(trial.params[path]) or 0.0) + offset * jitter(trial.number) for trial in group]

        scores = [trial.score or 0.0 for trial in others]
        traces = _slice_traces(sweep, path)
        traces.append(cloud(others, "trials", positions(others), scores, hover, log=is_log(parameter)))
        ring = {"color": ACCENT, "size": 10, "symbol": "circle-open", "line": {"width": 1.5}}
        measured = [trial.score or 0.0 for trial in best]
        traces.append(markers(best, "best setting, measured", ring, positions(best), measured, hover))
        if sweep.analysis:
            expected = [sweep.analysis.expected[trial.number].score for trial in best]
            marker = {"color": ACCENT, "size": 11, "line": {"width": 1.5, "color": "#ffffff"}}
            expects = "should average %{y:.4g}"
            traces.append(markers(best, "best setting, expected", marker, positions(best), expected, expects))
        layout: Data = {
            "xaxis": {"title": {"text": plain(name)}, **parameter_axis(parameter)},
            "yaxis": {"title": {"text": score_title(sweep)}, "range": _score_range(trials)},
            "showlegend": False,
            "height": 300,
            "annotations": _piles(parameter, [trial.params[path] for trial in shown]),
        }
        return {"data": traces, "layout": or_empty(layout, shown)}

    return Plot(f"{path} against score", CAPTION, build)


def _piles(parameter: ParameterConfig, values: Sequence[float]) -> list[Data]:
    """Notes of how many trials lie at an end of the range, where there are many."""
    if parameter.choices is not None:
        return []
    notes = []
    for end, anchor, x in ((parameter.min, "left", 0.0), (parameter.max, "right", 1.0)):
        count = sum(value == end for value in values)
        if count >= max(3, PILE * len(values)):
            corner = {"xref": "paper", "yref": "paper", "x": x, "y": 1.0, "xanchor": anchor, "yanchor": "bottom"}
            text = f"{count} of {len(values)} at this end"
            notes.append({**corner, "text": text, "showarrow": False, "font": {"size": 11}})
    return notes


def _slice_traces(sweep: SweepState, path: str) -> list[Data]:
    """What the model expects as only this parameter changes, with its 95% interval; nothing without an analysis."""
    if sweep.analysis is None or path not in sweep.analysis.slices:
        return []
    parameter, cut = sweep.searched[path], sweep.analysis.slices[path]
    position = axis_position(parameter)
    x = numbers(position(value) for value in cut.values)
    expected = [prediction.score for prediction in cut.predictions]
    low, high = zip(*(sweep.analysis.interval(prediction) for prediction in cut.predictions), strict=True)
    if parameter.choices is not None:
        bars = {
            "type": "data",
            "array": numbers(top - middle for top, middle in zip(high, expected, strict=True)),
            "color": ACCENT,
            "width": 8,
        }
        marker = {"color": ACCENT, "symbol": "line-ew-open", "size": 18, "line": {"width": 2.5}}
        centres = {"type": "scatter", "mode": "markers", "x": x, "y": numbers(expected)}
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
    line = {"type": "scatter", "mode": "lines", "x": x, "y": numbers(expected)}
    return [band, {**line, "line": {"color": ACCENT, "width": 2}, "name": "the model expects", "hoverinfo": "skip"}]


@plot(
    "What matters",
    "The share of the variation of the score, and of the cost, over the whole search space that involves each "
    "parameter, by the model. Some involves several parameters, so shares may add up to over 100%.",
)
def importance(sweep: SweepState) -> Data:
    shares = sweep.analysis.importance if sweep.analysis else {}
    names = sweep.parameter_names
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
        **legend(),
    }
    layout["legend"]["traceorder"] = "reversed"
    return {"data": traces, "layout": or_empty(layout, order)}


def _score_range(trials: Sequence[Trial]) -> list[float] | None:
    """The range of the measured scores with a margin. With the model's extremes, the measurements would be squeezed."""
    scores = [trial.score for trial in trials if trial.score is not None]
    if not scores:
        return None
    room = 0.12 * (max(scores) - min(scores)) or 0.1 * abs(max(scores)) or 1.0
    return [min(scores) - room, max(scores) + room]
