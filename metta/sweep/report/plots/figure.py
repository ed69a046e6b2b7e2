"""A plot: a title, a caption, and a function that makes its figure from a sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.sweep.report.plots.axes import plain
from metta.sweep.report.plots.theme import LIGHT, NEUTRAL
from metta.sweep.state import SweepState

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Data = dict[str, Any]
"""A plotly figure as JSON data: ``{"data": [traces], "layout": {...}}``, or a part of one."""

TITLE_HEIGHT = 90


@dataclass(frozen=True)
class Plot:
    """A plot of a sweep. Called with a `SweepState`, it returns a plotly figure.

    Attributes:
        title: of the plot.
        caption: one or two sentences that explain it.
        build: makes the figure's data, whose layout gives a `height`; it needs no plotly.
    """

    title: str
    caption: str
    build: Callable[[SweepState], Data]

    def __call__(self, sweep: SweepState) -> Figure:
        """The plot as a figure.

        Raises:
            UserError: plotly is not installed.
        """
        return to_figure(self.build(sweep), self.title)


def plot(title: str, caption: str) -> Callable[[Callable[[SweepState], Data]], Plot]:
    return lambda build: Plot(title, caption, build)


def to_figure(data: Data, title: str) -> Figure:
    """A figure's data as a complete figure, with a title and the light theme."""
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise UserError(f"plots need plotly: {install_command('dashboard')}") from None
    figure = go.Figure(data)
    height = figure.layout.height + TITLE_HEIGHT
    figure.update_layout(template=LIGHT, title={"text": plain(title)}, margin={"t": TITLE_HEIGHT}, height=height)
    return figure


def legend() -> Data:
    """The part of a layout that puts a legend of one line above the plot."""
    position = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return {"showlegend": True, "legend": position, "margin": {"t": 52}}


def or_empty(layout: Data, shown: Sequence[Any], why: str = "no trial has a score yet") -> Data:
    """The layout, or one that says why nothing is shown."""
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
