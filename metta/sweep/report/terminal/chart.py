"""A chart made of characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metta.sweep.report.format import number_text

Points = Sequence[tuple[float, float]]
"""Pairs of x and y, all finite."""


def chart(series: Mapping[str, Points], width: int, height: int, x_label: str) -> list[str]:
    """Draw each point as the character that names its series; a later series covers an earlier one.

    Args:
        series: points by character; at least one series has a point.
        width, height: columns and rows, axes included; at least 24 and 4.
        x_label: what x is, for the axis.
    """
    points = [point for each in series.values() for point in each]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    labels = [number_text(high), number_text(low)]
    margin = max(map(len, labels))
    columns, rows = width - margin - 2, height - 2
    cells = [[" "] * columns for _ in range(rows)]
    for character, each in series.items():
        for x, y in each:
            column = round((columns - 1) * ((x - left) / (right - left) if right > left else 0.0))
            row = round((rows - 1) * ((high - y) / (high - low) if high > low else 0.5))
            cells[row][column] = character
    names = {0: labels[0], rows - 1: labels[1]} if high > low else {rows // 2: labels[0]}
    lines = [f"{names.get(row, ''):>{margin}} |{''.join(cells[row])}".rstrip() for row in range(rows)]
    ends = number_text(left), number_text(right)
    gap = max(1, columns - len(ends[0]) - len(ends[1]) - len(x_label))
    axis = f"{' ' * (margin + 2)}{ends[0]}{' ' * (gap // 2)}{x_label}{' ' * (gap - gap // 2)}{ends[1]}"
    return [*lines, f"{' ' * margin} +{'-' * columns}", axis]
