"""What the parameters do: each one against the score, and how much each matters."""

from __future__ import annotations

from collections.abc import Sequence

from metta.sweep.protein.protein import Prediction
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.report.axes import is_log, numbers, parameter_axis, placer, plain, spread
from metta.sweep.report.plots.dots import cloud, dots
from metta.sweep.report.plots.figure import Data, Plot, legend, or_empty, plot
from metta.sweep.report.plots.labels import score_title
from metta.sweep.report.snapshot import Snapshot
from metta.sweep.report.standing import ranked
from metta.sweep.report.theme import ACCENT, ACCENT_FILL, NEUTRAL
from metta.sweep.trial import Trial


def parameter_against_score(path: str) -> Plot:
    """The plot of one parameter, named by its dotted path, against the score."""

    def build(sweep: Snapshot) -> Data:
        parameter = sweep.searched[path]
        name = sweep.parameter_names[path]
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
        hover = "score %{y:.4g}" if parameter.choices else "score %{y:.4g}<br>%{x:.4g}"
        jitter = 0.5 if parameter.choices else 0.0

        def places(group: Sequence[Trial]) -> tuple[list[float], list[float]]:
            x = [(place(trial.params[path]) or 0.0) + jitter * spread(trial.number) for trial in group]
            return x, [trial.score or 0.0 for trial in group]

        traces.append(cloud(others, "trials", *places(others), hover, log=is_log(parameter)))
        marker = {"color": ACCENT, "size": 11, "line": {"width": 1.5, "color": "#ffffff"}}
        traces.append(dots(chosen, "recommended", marker, *places(chosen), hover))
        layout: Data = {
            "xaxis": {"title": {"text": plain(name)}, **parameter_axis(parameter)},
            "yaxis": {"title": {"text": score_title(sweep)}, "range": _score_range(trials)},
            "showlegend": False,
            "height": 300,
        }
        return {"data": traces, "layout": or_empty(layout, placed)}

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
    """From the lowest to the highest score with some room: the model's far ends would squeeze what was measured."""
    scores = [trial.score for trial in trials if trial.score is not None]
    if not scores:
        return None
    room = 0.12 * (max(scores) - min(scores)) or 0.1 * abs(max(scores)) or 1.0
    return [min(scores) - room, max(scores) + room]
