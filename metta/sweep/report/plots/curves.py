"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from metta.sweep.report.curves import CURVES, curve_metric, curve_points
from metta.sweep.report.plots.axes import numbers, plain
from metta.sweep.report.plots.figure import Data, Plot, or_empty, plot
from metta.sweep.report.plots.theme import ACCENT, NEUTRAL
from metta.sweep.state import SweepState
from metta.sweep.trial import TrialState


@plot(
    "Learning curves",
    "What trials measured while they trained; scores are measured afterwards. The best is blue, running trials bold. "
    f"Of more than {CURVES} trials these are the best, the Pareto front and the latest.",
)
def learning_curves(sweep: SweepState) -> Data:
    found = sweep.conclusions.best
    best = found.number if found is not None and found.number in sweep.curves else None
    running = {trial.number for trial in sweep.with_state(TrialState.RUNNING)}
    return _curves(sweep, list(sweep.curves), best, running)


def trial_curve(number: int) -> Plot:
    """The plot of one trial's learning curve."""
    return Plot(f"How trial {number} learnt", "", lambda sweep: _curves(sweep, [number], number, set()))


def _curves(sweep: SweepState, numbered: Sequence[int], best: int | None, running: set[int]) -> Data:
    shown = [point for number in numbered for point in sweep.curves[number]]
    watched = sweep.definition.progress_metric
    metric = curve_metric(sweep.metric, shown, sweep.definition.traits, watched=watched) or sweep.metric
    traces: list[Data] = []
    for number in sorted(numbered, key=lambda number: (number == best, number in running, -number)):
        points = curve_points(sweep.curves[number], metric)
        lead = number == best or number in running
        label = f"trial {number}" + (" (runs)" if number in running else "")
        if not points:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": [step for step, _ in points],
                "y": numbers(value for _, value in points),
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
                    "x": [points[-1][0]],
                    "y": numbers([points[-1][1]]),
                    "text": [f"{label} "],
                    "textposition": "top left",
                    "textfont": {"color": ACCENT if number == best else NEUTRAL},
                    "hoverinfo": "skip",
                }
            )
    notes = [note for path, note in sweep.definition.traits.step_notes.items() if path in sweep.searched]
    steps = f"steps ({notes[0]})" if notes and len(numbered) > 1 else "steps"
    layout = {
        "xaxis": {"title": {"text": steps}, "tickformat": "~s", "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"{plain(metric)} while training"}},
        "showlegend": False,
        "height": 360,
    }
    return {"data": traces, "layout": or_empty(layout, traces, "no trial has reported progress")}
