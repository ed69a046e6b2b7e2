"""The names of an evaluation's metrics, and a check of the simulations that they come from.

===============================  ========================================================================
``avg_category_score``           mean over the categories
``arena``                        a category: mean over the scores of its simulations
``arena/basic``                  the score of a simulation: mean over its episodes
``arena/basic/heart.gained``     a stat of a simulation: mean over its episodes, 0 where it did not occur
``<score>.stderr``               standard error of one of the first three, if each simulation had two episodes
``<simulation>.episodes``        episodes that ended
===============================  ========================================================================

The last two are reported, but a sweep cannot optimise them.
"""

from __future__ import annotations

from collections.abc import Sequence

from metta.common.errors import UserError
from metta.sim.simulation_config import SimulationConfig

AVERAGE = "avg_category_score"


def check_simulations(simulations: Sequence[SimulationConfig]) -> None:
    """Check that the simulations have different names.

    Raises:
        UserError: there are none, two have the same name, or a category has the name of the average.
    """
    if not simulations:
        raise UserError("there are no simulations to evaluate on")
    names = [simulation.name for simulation in simulations]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two simulations are named {name!r}")
    if any(simulation.category == AVERAGE for simulation in simulations):
        raise UserError(f"no category may be named {AVERAGE!r}: that is the mean over all categories")


def categories(simulations: Sequence[SimulationConfig]) -> dict[str, list[SimulationConfig]]:
    """The simulations of each category, in the given order."""
    grouped: dict[str, list[SimulationConfig]] = {}
    for simulation in simulations:
        grouped.setdefault(simulation.category, []).append(simulation)
    return grouped


def metric_names(simulations: Sequence[SimulationConfig]) -> list[str]:
    """Every metric that a sweep over these simulations may optimise, scores first."""
    scores = [AVERAGE, *categories(simulations), *(simulation.name for simulation in simulations)]
    stats = [f"{simulation.name}/{stat}" for simulation in simulations for stat in simulation.stats]
    return scores + stats
