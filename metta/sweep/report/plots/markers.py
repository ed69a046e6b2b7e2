"""Trials as markers: each one is drawn, unless so many would overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from metta.sweep.report.plots.axes import jitter, numbers
from metta.sweep.report.plots.figure import Data
from metta.sweep.report.plots.theme import NEUTRAL
from metta.sweep.trial import Trial

MANY = 1000
"""Of more trials than this, overlapping ones share a marker: a browser takes half a second to draw 5,000 markers."""

COLUMNS, ROWS = 100, 50
"""The grid of cells, each about as large as a marker, within which markers are then merged."""

FAINT = 0.35
COST_HOVER = "score %{y:.4g}<br>cost %{customdata[1]}"


def markers(
    trials: Sequence[Trial],
    name: str,
    marker: Data,
    x: Iterable[float | None] | None = None,
    y: Iterable[float | None] | None = None,
    hover: str = COST_HOVER,
) -> Data:
    """A trace of markers, one for each trial, with the trials' numbers and costs.

    Args:
        trials: to draw.
        name: of the trace.
        marker: as plotly has it.
        x, y: of each trial; its cost and score if left out.
        hover: a plotly template of what the pointer shows besides the trial's number.
    """
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": numbers((trial.cost for trial in trials) if x is None else x),
        "y": numbers((trial.score for trial in trials) if y is None else y),
        "customdata": [[trial.number, None if trial.cost is None else f"{trial.cost:,.4g}"] for trial in trials],
        "marker": marker,
        "hovertemplate": f"trial %{{customdata[0]}}<br>{hover}<extra></extra>",
    }


def cloud(
    trials: Sequence[Trial],
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    hover: str = COST_HOVER,
    *,
    log: bool = False,
    colour: str = NEUTRAL,
) -> Data:
    """A trace of small markers for any number of trials.

    If there are many, those in one cell of the plot share a marker, which is as dark as all of them would be.

    Args:
        trials, name, hover: as for `markers`.
        x, y: of each trial, finite.
        log: whether the axis of x is logarithmic.
        colour: of the markers.
    """
    if len(trials) <= MANY:
        return markers(trials, name, {"color": colour, "size": 6, "opacity": 0.55}, x, y, hover)
    piles = _piles([math.log(value) for value in x] if log else x, y)
    shown = [min(pile, key=lambda i: jitter(trials[i].number)) for pile in piles]  # the first ones would form a line
    opacity = numbers(1.0 - (1.0 - FAINT) ** len(pile) for pile in piles)
    marker = {"color": colour, "size": 4, "opacity": opacity}
    trace = markers(
        [trials[i] for i in shown], name, marker, [x[i] for i in shown], [y[i] for i in shown], f"%{{text}}{hover}"
    )
    return {**trace, "text": ["" if len(pile) == 1 else f"and {len(pile) - 1} more here<br>" for pile in piles]}


def _piles(x: Sequence[float], y: Sequence[float]) -> list[list[int]]:
    """The indices of the points in each cell that has any, in the order of the first point."""
    cells: dict[tuple[int, int], list[int]] = {}
    for i, (across, up) in enumerate(zip(shares(x), shares(y), strict=True)):
        cells.setdefault((int(across * COLUMNS), int(up * ROWS)), []).append(i)
    return list(cells.values())


def shares(values: Sequence[float]) -> list[float]:
    """Where values lie between the least and the largest of them, 0..1."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return [(value - low) / ((high - low) or 1.0) for value in values]
