"""The table: defaults, random search and recommended, with ratios and their intervals."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from scipy.stats import t as student

Row = dict[str, Any]
OF, OVER = "protein", ("defaults", "random")


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown, one for each game and cost that has trainings."""
    scores: dict[tuple[str, float], dict[str, dict[tuple[int, int], Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        key = row["key"]
        if key["kind"] != "sweep":
            scores[key["game"], key["cost"]][key["kind"]][key["sweep"], key["seed"]] = row
    lines = [
        "| game | at most, s | trained, s | defaults | random search | recommended | over defaults | over random |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (game, cost), kinds in sorted(scores.items()):
        means = [_mean(kinds[kind], "score") for kind in ("defaults", "random", OF)]
        ratios = [ratio(kinds[OF], kinds[other]) for other in OVER]
        cells = [f"arena/{game}", f"{cost:g}", _mean(kinds[OF], "seconds"), *means, *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratio(ours: dict[tuple[int, int], Row], theirs: dict[tuple[int, int], Row]) -> str:
    """The ratio of scores of the same sweep and seed, as a geometric mean with its 95 % interval.

    Seeds of one sweep train the same hyperparameters, so with several sweeps only these are independent.
    """
    logs: dict[int, list[float]] = defaultdict(list)
    for key in sorted(ours.keys() & theirs.keys()):
        if min(ours[key]["score"], theirs[key]["score"]) <= 0:
            return "a score is 0"
        logs[key[0]].append(math.log(ours[key]["score"] / theirs[key]["score"]))
    values = [statistics.fmean(each) for each in logs.values()] if len(logs) > 1 else [*logs.values(), []][0]
    return _interval(values)


def _interval(logs: Sequence[float]) -> str:
    """The geometric mean of ratios, given their logarithms, with Student's interval."""
    if len(logs) < 2:
        return "" if not logs else f"{math.exp(logs[0]):.2f}"
    mean, stderr = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    width = float(student.ppf(0.975, len(logs) - 1)) * stderr
    return f"{math.exp(mean):.2f} ({math.exp(mean - width):.2f} to {math.exp(mean + width):.2f})"


def _mean(rows: dict[tuple[int, int], Row], what: str) -> str:
    values = [row[what] for row in rows.values()]
    return f"{statistics.fmean(values):.1f}" if values else ""
