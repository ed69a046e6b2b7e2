"""Colours and fonts of the plots: one accent that is legible on white and black; the rest is grey."""

from __future__ import annotations

from typing import Any

ACCENT = "#3b7dd8"
ACCENT_FILL = "rgba(59, 125, 216, 0.13)"
NEUTRAL = "#8a94a3"
QUIET = "rgba(128, 128, 128, 0.10)"
"""Background of small text over lines."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'


def _template(text: str, background: str, grid: str, line: str, hover: str) -> dict[str, Any]:
    axis = {
        "gridcolor": grid,
        "linecolor": line,
        "tickcolor": line,
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 12, "color": text},
            "title": {"font": {"size": 18}, "x": 0.01, "xanchor": "left", "y": 1.0, "yanchor": "top", "pad": {"t": 18}},
            "paper_bgcolor": background,
            "plot_bgcolor": background,
            "xaxis": axis,
            "yaxis": axis,
            "margin": {
                "l": 60,
                "r": 24,
                "t": 16,
                "b": 58,
            },  # enough for most; plotly draws twice to widen them
            "hoverlabel": {"bgcolor": hover, "bordercolor": line, "font": {"color": text, "family": FONT}},
            "hovermode": "closest",
            "colorway": [ACCENT, NEUTRAL],
        }
    }


LIGHT = _template("#333b47", "#ffffff", "#e9edf2", "#aab4c0", "#ffffff")
DARK = _template("#c9d1db", "#161b22", "#262d36", "#4a5563", "#1f2630")
