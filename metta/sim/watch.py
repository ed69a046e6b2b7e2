"""Plays one episode to watch, in mettagrid's own simulator, which sends events to watchers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.map_builder.map_builder import HasSeed
from mettagrid.renderer.miniscope.symbol import DEFAULT_SYMBOL_MAP
from mettagrid.renderer.renderer import Renderer
from mettagrid.simulator.interface import SimulatorEventHandler
from mettagrid.simulator.simulator import Buffers, Simulation

from metta.rl.environment import TOKEN_DIM
from metta.sim.symbols import characters

if TYPE_CHECKING:
    from metta.sim.episodes import Player

OF_EVERY_GAME = ("empty", "cursor", "?")
"""Kinds in mettagrid's terminal that are not objects."""


def watch(
    player: Player, env: MettaGridConfig, seed: int, watchers: Sequence[SimulatorEventHandler]
) -> dict[str, float]:
    """Play one episode and return what each agent gained in it, by resource, as the mean over agents.

    Args:
        player: the policy that plays.
        env: the game.
        seed: fixes the map, the game's random events and the drawn actions; the same seed gives the same episode.
        watchers: notified of the start, each step and the end. A `Renderer` among them draws after each step, and the
            user's actions in it replace the policy's.
    """
    config = _drawable(_seeded(env, seed))
    buffers = _allocate(config)
    simulation = Simulation(config, seed, event_handlers=watchers, buffers=buffers)
    renderers = [watcher for watcher in watchers if isinstance(watcher, Renderer)]
    player.reset(config.game.num_agents, seed)
    try:
        for renderer in renderers:
            renderer.render()
        while not simulation.is_done():
            actions = player.act(buffers.observations)
            for agent, action in zip(simulation.agents(), actions, strict=True):
                agent.set_action(simulation.action_names[action])
            for renderer in renderers:
                renderer.apply_deferred_user_actions()
            simulation.step()
            for renderer in renderers:
                renderer.render()
    finally:  # the simulator reports the end only after its last step, not when the user ends the episode
        for renderer in renderers:
            renderer.on_episode_end()
    return {name: _gained(simulation, name) for name in config.game.resource_names}


def _gained(simulation: Simulation, resource: str) -> float:
    agents = simulation.episode_stats["agent"]
    return sum(agent.get(f"{resource}.gained", 0.0) for agent in agents) / len(agents)


def _seeded(env: MettaGridConfig, seed: int) -> MettaGridConfig:
    """The game with a map drawn from the seed, because the simulator's own seed does not reach the map."""
    config = env.model_copy(deep=True)
    if isinstance(config.game.map_builder, HasSeed):
        config.game.map_builder.seed = seed
    return config


def _drawable(config: MettaGridConfig) -> MettaGridConfig:
    """The game with a character for each kind of object that has none in the game itself.

    The terminal's legend lists all kinds that mettagrid has a character for; those that the game lacks get none.
    """
    kinds = ["agent", *config.game.objects]
    absent = dict.fromkeys(set(DEFAULT_SYMBOL_MAP) - {*kinds, *OF_EVERY_GAME}, "")
    config.game.render.symbols = {**absent, **characters(kinds), **config.game.render.symbols}
    return config


def _allocate(config: MettaGridConfig) -> Buffers:
    """Arrays that the simulator writes into, in the layout that the policy was trained on."""
    agents, tokens = config.game.num_agents, config.game.obs.num_tokens
    return Buffers(
        observations=np.zeros((agents, tokens, TOKEN_DIM), dtype=np.uint8),
        terminals=np.zeros(agents, dtype=np.bool_),
        truncations=np.zeros(agents, dtype=np.bool_),
        rewards=np.zeros(agents, dtype=np.float32),
        masks=np.ones(agents, dtype=np.bool_),
        actions=np.zeros(agents, dtype=np.int32),
        teacher_actions=np.zeros(agents, dtype=np.int32),
    )
