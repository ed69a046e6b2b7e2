"""The stats that a game can have, derived from its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.config.mutation import StatsMutation, StatsTarget
from pydantic import BaseModel

_OF_ANY_GAME = [
    "reward",
    "episode_length",
    "action.failed",
    "action.invalid_index",
    "cell.max_distance_from_spawn",
    "cell.unique_visited",
    "cell.visited",
    "status.max_steps_without_motion",
]


def possible_stats(env: MettaGridConfig) -> list[str]:
    """Name every stat that an episode of this game can have, the resources first.

    A stat is a mean over the agents: ``<resource>.gained``, ``.lost``, ``.deposited`` (taken from the agent by another)
    and ``.amount`` (held at the end), ``action.<action>.success`` and ``.failed``, the stats that mettagrid keeps for
    every game, ``reward`` and ``episode_length``, and those that the game's own handlers log, with ``game/`` before
    the name if they are logged for the game as a whole.
    """
    actions = [action.action_handler for action in _actions(env) if action.enabled]
    stats = [f"{name}.{what}" for what in ("gained", "lost", "deposited", "amount") for name in env.game.resource_names]
    stats += [f"action.{action}.{outcome}" for action in actions for outcome in ("success", "failed")]
    stats += _OF_ANY_GAME
    stats += [
        f"game/{mutation.stat}" if mutation.target is StatsTarget.GAME else mutation.stat
        for mutation in _stats_mutations(env.game)
    ]
    return list(dict.fromkeys(stats))


def _actions(env: MettaGridConfig) -> list[Any]:
    actions = env.game.actions
    return [getattr(actions, name) for name in type(actions).model_fields]


def _stats_mutations(node: object) -> Iterator[StatsMutation]:
    """Every `StatsMutation` anywhere in a configuration."""
    if isinstance(node, StatsMutation):
        yield node
    elif isinstance(node, BaseModel):
        yield from _stats_mutations(vars(node))
    elif isinstance(node, dict):
        for child in node.values():
            yield from _stats_mutations(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _stats_mutations(child)
