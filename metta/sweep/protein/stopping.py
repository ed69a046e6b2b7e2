"""When to stop a run early: rules that compare runs at the same point of their curves.

Each rule looks at a run when it passes a rung, which is a share of a whole run, and compares its value there with the
values of all other runs that passed it, or, where whole runs differ in length, that came to the same step. A rule says
go on or stop, and why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metta.sweep.protein.curves import Rung
from metta.sweep.protein.evidence import Readings
from metta.sweep.protein.types import ETA, Decision, Rule

Array = NDArray[np.float64]

PROTEIN_RUNGS = (1.0, 2.5, 7.5, 12.5)
"""Rungs of "protein" in multiples of the smallest share: 0.04, 0.1, 0.3 and 0.5 of a run by default. Tuned on
`benchmarks/curves` (its tuned-on tables) as part of the whole policy; fewer were no better, see docs/benchmarks.md."""
LATER_ETA = 2.0
"""Reduction factor of "protein" at later rungs until it has learnt its own. Tuned as the rungs were."""
FIRST_SLOPE, LATER_SLOPE = 6.0, 2.0
"""How the reduction factor grows with the signal that a value at a rung has of the end, at the first rung and later.
From simulated sweeps, see docs/benchmarks.md."""
MAX_SIGNAL = 2.5
"""The largest signal that counts, so that one in 16 goes on at least. Tuned as the rungs were."""
SCARCE_R2, SCARCE_SLOPE = 0.25, 2.0
"""Where trials are scarce and cost is not: R² from which on the reduction factor is above 1, and how it grows then.
Measured on `benchmarks/curves`, see docs/benchmarks.md."""
FIRST_RUNS = 3.0
"""Whole runs' worth of cost before "protein" uses what it has learnt of how early values predict the end. Tuned as the
rungs were."""
MIN_MEDIAN_RUNS = 5
"""Trials at a rung before the median rule stops any. Chosen by hand."""
_TOLERANCE = 1e-9
"""Differences of shares that are rounding errors."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Multiples of it, modulo 1, fill 0..1 evenly (Weyl's equidistribution), so brackets are spread evenly over trials."""


class Peers(Protocol):
    """What a rule may ask of the other trials of the sweep."""

    @property
    def whole_runs(self) -> float:
        """What was spent so far, in whole runs."""

    def readings(self, rung: Rung) -> Readings:
        """What all trials that reached a rung showed there."""

    def averages(self, rung: Rung) -> Array:
        """Mean values [n], up to a rung, of all trials that reached it, without repeats."""

    def r2(self, rung: Rung) -> float | None:
        """How well values at a rung predict the end; None while nothing can be learnt."""


@dataclass(frozen=True)
class Asked:
    """A run at a rung.

    Attributes:
        number: of the trial.
        share: of its run that it has come to, one of `rungs`.
        rung: where it is compared.
        best: the best of its values so far.
        draw: a random number in 0..1, which decides between equal values.
        before: the last rung at which it was judged before, if any.
    """

    number: int
    share: float
    rung: Rung
    best: float
    draw: float
    before: Rung | None = None


def rungs(rule: Rule, min_share: float, number: int, eta: float = ETA) -> list[float]:
    """The shares of a whole run at which a trial may be stopped."""
    if rule == "off":
        return []
    if rule == "median":
        count = math.floor((1.0 - _TOLERANCE) / min_share)
        return [min_share * (i + 1) for i in range(count)]
    if rule == "protein":
        return [share for share in (min_share * multiple for multiple in PROTEIN_RUNGS) if share < 1.0 - _TOLERANCE]
    first = min_share * eta ** bracket(number, min_share, eta) if rule == "hyperband" else min_share
    shares = []
    while first < 1.0 - _TOLERANCE:
        shares.append(first)
        first *= eta
    return shares


def bracket(number: int, min_share: float, eta: float = ETA) -> int:
    """Hyperband's bracket of a trial: how many of the first rungs it passes without being judged.

    Brackets are drawn evenly by cost: those that stop later have fewer trials (Li et al. 2018, "Hyperband",
    algorithm 1: eta^s trials in proportion).
    """
    brackets = max(1, math.ceil(math.log(1.0 / min_share, eta) - _TOLERANCE))
    weights = [round(eta ** (brackets - 1 - s)) for s in range(brackets)]
    position = number * _GOLDEN % 1.0 * sum(weights)
    return int(np.searchsorted(np.cumsum(weights), position, side="right"))


def decide(
    rule: Rule, min_share: float, run: Asked, peers: Peers, scarce_trials: bool = False, eta: float = ETA
) -> Decision:
    """Whether a run goes on beyond a rung.

    Args:
        scarce_trials: the number of trials ends the sweep, and their cost does not. Then "protein" stops fewer, because
            the cost that it saves is not spent on more trials.
        eta: reduction factor of "asha" and "hyperband".
    """
    if rule == "median":
        return _median(run, peers)
    readings = peers.readings(run.rung)
    compared = ~readings.repeats
    if rule == "hyperband":
        own = bracket(run.number, min_share, eta)
        others = [bracket(number, min_share, eta) for number in readings.numbers.tolist()]
        compared &= np.array(others, dtype=np.intp) == own
    why = ""
    if rule == "protein":
        eta, why = _scarce_eta(run, peers) if scarce_trials else _learnt_eta(run, peers)
    return _halve(eta, why, run, readings.by_number[run.number], readings.scores[compared])


def _learnt_eta(run: Asked, peers: Peers) -> tuple[float, str]:
    """The reduction factor that suits how well values at this rung predict the end of runs in this sweep.

    With R² of the end on those values, sqrt(R² / (1 - R²)) is the ratio of signal to noise. At a later rung R² is the
    partial one: what the value there predicts beyond the value at the rung before, by which trials were selected
    already. The factor is 1 + `FIRST_SLOPE` or `LATER_SLOPE` times that ratio.
    """
    first = run.before is None
    found = peers.r2(run.rung) if peers.whole_runs >= FIRST_RUNS else None
    if found is None:
        return (ETA if first else LATER_ETA), ", before enough whole runs ended"
    known = 0.0 if run.before is None else peers.r2(run.before) or 0.0
    partial = min(max(0.0, (found - known) / (1.0 - known)), 1.0 - _TOLERANCE)
    signal = min(math.sqrt(partial / (1.0 - partial)), MAX_SIGNAL)
    eta = 1.0 + (FIRST_SLOPE if first else LATER_SLOPE) * signal
    return eta, f", because {'' if first else 'partial '}R² of the end on values there is {partial:.2f}"


def _scarce_eta(run: Asked, peers: Peers) -> tuple[float, str]:
    """The reduction factor where saved cost buys no more trials: above 1 only where early values predict well."""
    found = peers.r2(run.rung) if peers.whole_runs >= FIRST_RUNS else None
    if found is None:
        return 1.0, ", before enough whole runs ended"
    eta = 1.0 + SCARCE_SLOPE * max(0.0, found - SCARCE_R2)
    return eta, f", because R² of the end on values there is {found:.2f} and trials are scarce"


def _halve(eta: float, why: str, run: Asked, own: float, scores: Array) -> Decision:
    """Go on among the best 1 / eta of the trials that reached the rung (Li et al. 2020, arXiv 1810.05934).

    Among trials with equal values, as on a plateau at zero, a random share goes on.
    """
    compared = len(scores)
    if compared < eta:
        return Decision(True, f"{compared} trials at {run.rung}, fewer than {eta:.1f}", run.share)
    kept = max(1, int(compared / eta))
    above, equal = int((scores > own).sum()), max(1, int((scores == own).sum()))
    rank = above + 1 + int(run.draw * equal)
    go_on = rank <= kept
    reason = f"{_ordinal(rank)} of {compared} at {run.rung}; the best {kept} go on (1/{eta:.1f}{why})"
    return Decision(go_on, reason, run.share, rank, compared, kept)


def _median(run: Asked, peers: Peers) -> Decision:
    """Stop where the best value so far is below the median of the others' averages.

    Golovin et al. 2017, "Google Vizier", section 3.2.2.
    """
    averages = peers.averages(run.rung)
    if len(averages) < MIN_MEDIAN_RUNS:
        return Decision(True, f"{len(averages)} trials at {run.rung}, fewer than {MIN_MEDIAN_RUNS}", run.share)
    below, go_on = int((averages <= run.best).sum()), bool(run.best >= np.median(averages))
    relation = "as good as their median" if go_on else "worse than their median"
    reason = f"its best value is as good as {below} of {len(averages)} averages at {run.rung}, so {relation}"
    return Decision(go_on, reason, run.share, None, len(averages), None)


def passed(shares: Sequence[float], before: float, now: float) -> float | None:
    """The last rung that a run passed between two of its reports."""
    between = [share for share in shares if before < share - _TOLERANCE <= now]
    return between[-1] if between else None


def _ordinal(rank: int) -> str:
    suffix = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{suffix}"
