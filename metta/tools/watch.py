"""PlayTool and ReplayTool: watch a policy. Torch and mettagrid's renderers are imported only when it plays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from metta.common.console import Console
from metta.common.errors import UserError
from metta.common.tool import Tool
from metta.sim.simulation_config import SimulationConfig

if TYPE_CHECKING:
    from mettagrid.simulator.interface import SimulatorEventHandler

    from metta.rl.player import PolicyPlayer
    from metta.sim.episodes import Player


class WatchTool(Tool):
    """Plays one episode of a simulation to watch.

    Attributes:
        simulation: the game to play; if it has opponents, against the first of them.
        policy_uri: the checkpoint's folder, for example ``file:///runs/mine/checkpoints/000061``; by default an
            untrained policy plays.
        seed: seed of the episode; the same seed gives the same map.
    """

    simulation: SimulationConfig
    policy_uri: str | None = None
    seed: int = 0

    def watch(self, watcher: SimulatorEventHandler) -> dict[str, float]:
        """Play, and return the mean amount of each resource that an agent gained.

        Raises:
            UserError: the policy does not exist, or cannot play the game.
        """
        from metta.rl.environment import EnvironmentSpec
        from metta.sim.league import TeamPlayer, matches
        from metta.sim.watch import watch

        player: Player = self._player()
        if match := matches(self.simulation)[:1]:
            player = TeamPlayer(player, match, EnvironmentSpec.of(self.simulation.env))
        return watch(player, self.simulation.env, self.seed, [watcher])

    def _player(self) -> PolicyPlayer:
        import torch

        from metta.rl.checkpoint import load_policy, make_policy
        from metta.rl.environment import EnvironmentSpec
        from metta.rl.player import PolicyPlayer, require_compatible
        from metta.rl.trainer_config import PolicyConfig

        spec = EnvironmentSpec.of(self.simulation.env)
        if self.policy_uri is None:
            torch.manual_seed(self.seed)
            return PolicyPlayer(make_policy(spec, PolicyConfig()), spec)
        player = load_policy(self.policy_uri)
        require_compatible(player.spec, spec, f"simulation {self.simulation.name}")
        return player

    def _print_gained(self, gained: dict[str, float]) -> None:
        amounts = ", ".join(f"{amount:.2f} {name}" for name, amount in gained.items())
        Console().print(
            f"{self.simulation.name}: gained per agent: {amounts}", highlight=False, markup=False, soft_wrap=True
        )


class PlayTool(WatchTool):
    """Shows an episode in the terminal with mettagrid's own renderer: space starts and pauses, ? lists the keys."""

    def invoke(self) -> int:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UserError("play needs a terminal; use replay to write an episode to a file")
        from mettagrid.renderer.renderer import create_renderer

        self._print_gained(self.watch(create_renderer("unicode")))
        return 0


class ReplayTool(WatchTool):
    """Writes an episode to a file.

    Attributes:
        to: ``.gif`` for an animation, ``.json.z`` for a replay that MettaScope, mettagrid's viewer, opens.
    """

    to: Path

    def invoke(self) -> int:
        if self.to.name.endswith(".gif"):
            self._print_gained(self.write_gif())
        elif self.to.name.endswith(".json.z"):
            self._print_gained(self.write_replay())
        else:
            raise UserError(f"to={self.to}: supported file types: .gif, .json.z")
        Console().print(f"written to {self.to}", highlight=False, markup=False, soft_wrap=True)
        return 0

    def write_gif(self) -> dict[str, float]:
        from metta.sim.gif import GifWriter

        return self.watch(GifWriter(self.to, counted=self.simulation.score.removesuffix(".gained")))

    def write_replay(self) -> dict[str, float]:
        from mettagrid.simulator.replay_log_writer import InMemoryReplayWriter

        writer = InMemoryReplayWriter()  # type: ignore[no-untyped-call]
        gained = self.watch(writer)
        self.to.parent.mkdir(parents=True, exist_ok=True)
        (replay,) = writer.get_completed_replays()
        replay.write_replay(str(self.to))
        return gained
