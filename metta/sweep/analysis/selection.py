"""Selects and sorts trials of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from metta.common.errors import UserError, nearest
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState

SORTS: dict[str, Callable[[Trial], Any]] = {
    "number": lambda trial: trial.number,
    "cost": lambda trial: trial.cost,
    "attempts": lambda trial: trial.attempts,
    "ended": lambda trial: trial.ended_at,
}
"""Sort keys besides the score, hyperparameters and metrics."""


def select(
    state: SweepState,
    *,
    states: Collection[TrialState] = (),
    pareto: bool = False,
    sort: str | None = None,
    top: int | None = None,
) -> list[Trial]:
    """Some of the trials, ordered by number unless `sort`, `top` or `pareto` says otherwise.

    Args:
        state: the sweep.
        states: only trials in one of these states.
        pareto: only trials on the Pareto front.
        sort: "score" (the best first), one of `SORTS`, or a hyperparameter or metric, by its full name or any
            unique ending of it. Trials without it come last.
        top: only this many of the first, in the order of `sort`, or else of the score.

    Raises:
        UserError: `sort` is not the name of anything.
    """
    chosen = list(state.trials)
    if pareto:
        chosen = [trial for trial in chosen if trial.number in state.on_front]
    if states:
        chosen = [trial for trial in chosen if trial.state in states]
    if sort is None and (top is not None or pareto):
        sort = "score"
    if sort == "score":
        left = {trial.number: trial for trial in chosen}
        chosen = [left.pop(trial.number) for trial in state.ranked if trial.number in left] + list(left.values())
    elif sort is not None:
        key = _key(sort, state.trials)
        chosen = sorted((t for t in chosen if key(t) is not None), key=key) + [t for t in chosen if key(t) is None]
    return chosen[:top]


def _key(sort: str, trials: Sequence[Trial]) -> Callable[[Trial], Any]:
    if sort in SORTS:
        return SORTS[sort]
    params = {name for trial in trials for name in trial.params}
    metrics = {name for trial in trials for name in trial.metrics}
    name = unique_ending(
        sort, [*params, *(metrics - params)], f"trials cannot be sorted by {sort!r}", ["score", *SORTS]
    )

    def key(trial: Trial) -> Any:
        value = trial.params.get(name) if name in params else trial.metrics.get(name)
        return value if value is None or name in metrics - params else (isinstance(value, str), value)

    return key


def unique_ending(name: str, names: Collection[str], problem: str, others: Sequence[str] = ()) -> str:
    """The one of `names` that equals `name`, or that ends with it after a dot or slash.

    Raises:
        UserError: none does, or several do; the message begins with `problem`.
    """
    if name in names:
        return name
    matches = [each for each in names if each.endswith((f".{name}", f"/{name}"))]
    if len(matches) != 1:
        raise UserError(f"{problem}; {nearest(name, matches or [*others, *names])}")
    return matches[0]
