"""When a sweep ends before its limits of trials, cost or time: at its target, or when its grid is complete."""

from __future__ import annotations

from metta.common.counts import count_text
from metta.common.errors import UserError
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein.grid import Grid
from metta.sweep.protein.space import Space, SpaceError
from metta.sweep.protein_config import ProteinConfig
from metta.sweep.state import SweepState
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.trial import Trial, TrialState


def trials_of(sweep: SweepConfig) -> int:
    """How many trials a sweep has: for a grid, at most its number of points.

    Raises:
        UserError: the space has no grid; the message says what to add.
    """
    if sweep.protein.method == "grid":
        points = grid_size(sweep.protein)
        return points if sweep.num_trials is None else min(points, sweep.num_trials)
    assert sweep.num_trials is not None
    return sweep.num_trials


def grid_size(config: ProteinConfig) -> int:
    """The number of points in the grid of a search.

    Raises:
        UserError: the space has no grid; the message says what to add.
    """
    try:
        return Grid(Space(config.parameters, config.constraints)).size
    except SpaceError as error:
        raise UserError(str(error)) from None


def on_target(state: SweepState) -> Trial | None:
    """The first completed trial whose score is at least as good as the target."""
    target = state.definition.target
    if target is None:
        return None
    reached = (
        trial
        for trial in state.ended
        if trial.state is TrialState.COMPLETED and trial.score is not None and state.sign * (trial.score - target) >= 0
    )
    return next(reached, None)


def ending_text(state: SweepState) -> str:
    """Why the sweep ended, if not because of its number of trials or of time; "" otherwise."""
    trial = on_target(state)
    if trial is not None:
        relation = ">=" if state.sign > 0 else "<="
        target = f"{state.metric} {relation} {state.definition.target:g}"
        return f"the sweep has ended: trial {trial.number} reached the target {target} with {trial.score:g}"
    if state.spent_budgets and not state.complete:
        spent = " and ".join(f"{name}={limit:g}" for name, limit in state.spent_budgets.items())
        return f"the sweep has ended: {spent} is spent"
    if state.complete and is_whole_grid(state.definition):
        return f"the sweep has ended: all {count_text(state.definition.num_trials, 'point')} of the grid were tried"
    return ""


def is_whole_grid(definition: SweepDefinition) -> bool:
    """Whether a sweep tries every point of a grid."""
    config = definition.protein
    return config.method == "grid" and definition.num_trials >= grid_size(config)


def may_be_extended(state: SweepState) -> bool:
    """Whether a complete sweep could use more trials."""
    return on_target(state) is None and not is_whole_grid(state.definition)
