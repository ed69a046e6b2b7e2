"""Trials as dots: each one drawn, or of very many those that can be told apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from metta.sweep.report.axes import numbers, spread
from metta.sweep.report.plots.figure import Data
from metta.sweep.report.theme import NEUTRAL
from metta.sweep.trial import Trial

MANY = 1000
"""Of more trials than this, those whose dots would lie on one another are drawn as one dot: a browser takes half a
second for each plot of 5,000 dots."""

COLUMNS, ROWS = 100, 50
"""The cells into which a plot is then divided, each about as large as a dot."""

FAINT = 0.35
COST_HOVER = "score %{y:.4g}<br>cost %{customdata[1]}"


def dots(
    trials: Sequence[Trial],
    name: str,
    marker: Data,
    x: Iterable[float | None] | None = None,
    y: Iterable[float | None] | None = None,
    hover: str = COST_HOVER,
) -> Data:
    """Trials as a trace of markers, which know the trials' numbers and costs.

    Args:
        trials: to draw.
        name: of the trace.
        marker: as plotly has it.
        x, y: of each trial; its cost and score if left out.
        hover: what is said of a dot under the pointer besides the trial's number, as a plotly template.
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
    """Any number of trials as small dots.

    Of many, the dots in one cell of the plot are one, as dark as all of them on one another.

    Args:
        trials, name, hover: as for `dots`.
        x, y: of each trial, finite.
        log: whether the axis of x is logarithmic.
        colour: of the dots.
    """
    if len(trials) <= MANY:
        return dots(trials, name, {"color": colour, "size": 6, "opacity": 0.55}, x, y, hover)
    piles = _piles([math.log(value) for value in x] if log else x, y)
    tops = [min(pile, key=lambda i: spread(trials[i].number)) for pile in piles]  # any: the first ones would line up
    opacity = numbers(1.0 - (1.0 - FAINT) ** len(pile) for pile in piles)
    marker = {"color": colour, "size": 4, "opacity": opacity}
    trace = dots(
        [trials[i] for i in tops], name, marker, [x[i] for i in tops], [y[i] for i in tops], f"%{{text}}{hover}"
    )
    return {**trace, "text": ["" if len(pile) == 1 else f"and {len(pile) - 1} more here<br>" for pile in piles]}


def _piles(x: Sequence[float], y: Sequence[float]) -> list[list[int]]:
    """Which dots lie in one cell, by their places in the sequences; each cell once, in the order of the first."""
    cells: dict[tuple[int, int], list[int]] = {}
    for i, (across, up) in enumerate(zip(shares(x), shares(y), strict=True)):
        cells.setdefault((int(across * COLUMNS), int(up * ROWS)), []).append(i)
    return list(cells.values())


def shares(values: Sequence[float]) -> list[float]:
    """Where values stand between the least and the largest of them, 0..1."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return [(value - low) / ((high - low) or 1.0) for value in values]
