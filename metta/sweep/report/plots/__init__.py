"""The plots of a sweep, as plotly figures.

Example:
    >>> from metta.sweep.report import plots
    >>> from metta.sweep import load_sweep
    >>> sweep = load_sweep("sqlite:///train_dir/sweeps.db", "my_arena_sweep").state().analysed()  # doctest: +SKIP
    >>> plots.score_against_cost(sweep).show()  # doctest: +SKIP
"""

from __future__ import annotations

from metta.sweep.report.curves import curve_metric
from metta.sweep.report.plots.cost import best_against_spent, score_against_cost
from metta.sweep.report.plots.curves import learning_curves, trial_curve
from metta.sweep.report.plots.figure import Plot
from metta.sweep.report.plots.model import predicted_against_measured
from metta.sweep.report.plots.parallel import parallel_coordinates
from metta.sweep.report.plots.parameters import CAPTION as PARAMETER_CAPTION
from metta.sweep.report.plots.parameters import importance, parameter_against_score
from metta.sweep.state import SweepState

__all__ = [
    "OVERVIEW",
    "PARAMETER",
    "PARAMETER_CAPTION",
    "Plot",
    "all_plots",
    "best_against_spent",
    "curve_metric",
    "importance",
    "learning_curves",
    "parallel_coordinates",
    "parameter_against_score",
    "predicted_against_measured",
    "score_against_cost",
    "trial_curve",
]

OVERVIEW: dict[str, Plot] = {
    "score_against_cost": score_against_cost,
    "best_against_spent": best_against_spent,
    "importance": importance,
    "predicted_against_measured": predicted_against_measured,
    "learning_curves": learning_curves,
    "parallel_coordinates": parallel_coordinates,
}
"""The plots that every sweep has, by name."""

PARAMETER = "parameter:"
"""The prefix of the names of plots of one parameter."""


def all_plots(sweep: SweepState) -> dict[str, Plot]:
    """Every plot of a sweep by name: those of `OVERVIEW`, and each parameter against the score.

    Those that would be empty are left out.
    """
    own = {f"{PARAMETER}{path}": parameter_against_score(path) for path in sweep.searched}
    scored = bool(sweep.ranked)
    empty = {
        "importance": sweep.analysis is None,
        "predicted_against_measured": sweep.analysis is None or not sweep.analysis.forecasts.numbers,
        "learning_curves": not sweep.trials,
    }
    return {name: plot for name, plot in {**OVERVIEW, **own}.items() if not empty.get(name, not scored)}
