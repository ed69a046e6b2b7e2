"""Predictions of the model against measurements."""

from __future__ import annotations

from metta.sweep.analysis.model import DEVIATIONS_95
from metta.sweep.report.plots.axes import numbers
from metta.sweep.report.plots.figure import Data, or_empty, plot
from metta.sweep.report.plots.labels import score_title
from metta.sweep.report.plots.markers import cloud
from metta.sweep.report.plots.theme import ACCENT, NEUTRAL, QUIET
from metta.sweep.state import SweepState

SHOWN_ERROR_BARS = 300


@plot(
    "How good is the model?",
    "What the model predicted for trials before they ran, against what was measured. On the line it was right. Bars "
    "show the 95% intervals of one run: 19 of 20 should cross the line.",
)
def predicted_against_measured(sweep: SweepState) -> Data:
    layout: Data = {"height": 360, "showlegend": False}
    if sweep.analysis is None or not sweep.analysis.forecasts.numbers:
        return {"data": [], "layout": or_empty(layout, [], "no trial was predicted before it ran")}
    forecasts = sweep.analysis.forecasts
    ends = numbers(
        [
            min(forecasts.predicted.min(), forecasts.measured.min()),
            max(forecasts.predicted.max(), forecasts.measured.max()),
        ]
    )
    trials = [sweep.by_number[number] for number in forecasts.numbers]
    hover = "predicted %{x:.4g}<br>measured %{y:.4g}"
    points = cloud(trials, "trials", list(forecasts.predicted), list(forecasts.measured), hover, colour=ACCENT)
    if len(forecasts.numbers) <= SHOWN_ERROR_BARS:
        points["error_x"] = {
            "type": "data",
            "array": numbers(DEVIATIONS_95 * forecasts.deviations),
            "color": NEUTRAL,
            "thickness": 1,
            "width": 0,
        }
    right = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "name": "right"}
    layout |= {
        "xaxis": {"title": {"text": f"predicted {score_title(sweep)}"}},
        "yaxis": {"title": {"text": f"measured {score_title(sweep)}"}},
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
                "text": f"rank correlation {forecasts.rank_correlation:.2f}<br>(1: perfect order, 0: chance)",
                "bgcolor": QUIET,
                "borderpad": 4,
            }
        ]
    return {"data": [{**right, "line": {"color": NEUTRAL, "width": 1.5, "dash": "dash"}}, points], "layout": layout}
