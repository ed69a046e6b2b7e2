"""SimTool: evaluate a policy. Torch is imported only when the evaluation starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from metta.common.console import Console
from metta.common.tool import Tool
from metta.sim.metrics import AVERAGE
from metta.sim.simulation_config import SimulationConfig

if TYPE_CHECKING:
    from metta.sim.evaluation import Evaluation, Score


class SimTool(Tool):
    """Evaluates a policy on simulations.

    Attributes:
        policy_uri: the checkpoint's folder, for example ``file:///runs/mine/checkpoints/000061``.
        simulations: the games to play.
    """

    policy_uri: str
    simulations: list[SimulationConfig]

    def evaluate(self) -> Evaluation:
        """Play the simulations and return the results.

        Raises:
            UserError: the policy does not exist, or cannot play one of the games.
        """
        from metta.rl.checkpoint import load_policy
        from metta.rl.environment import EnvironmentSpec
        from metta.rl.player import require_compatible
        from metta.sim.evaluate import evaluate
        from metta.sim.league import require_opponents

        player = load_policy(self.policy_uri)
        for simulation in self.simulations:
            require_compatible(player.spec, EnvironmentSpec.of(simulation.env), f"simulation {simulation.name}")
            require_opponents(simulation)
        return evaluate(player, self.simulations)

    def invoke(self) -> int:
        evaluation = self.evaluate()
        console = Console()
        console.print(_table(evaluation))
        for line in evaluation.summary():
            console.print(line, highlight=False, markup=False)
        return 0


def _table(evaluation: Evaluation) -> Table:
    table = Table("score of", "mean", "standard error", "episodes")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, score in evaluation.simulation_scores.items():
        _add(table, name, score)
    table.add_section()
    for name, score in evaluation.category_scores.items():
        _add(table, name, score)
    table.add_section()
    _add(table, AVERAGE, evaluation.average)
    return table


def _add(table: Table, name: str, score: Score) -> None:
    table.add_row(
        name, f"{score.mean:.3f}", "" if score.stderr is None else f"± {score.stderr:.3f}", f"{score.episodes}"
    )
