"""Evaluating a trained policy."""

from __future__ import annotations

import statistics

import torch
from pydantic import TypeAdapter, ValidationError

from metta.common.errors import UserError
from metta.rl.checkpoint import policy_config, read_policy
from metta.rl.gymnasium.config import GymnasiumSimulation
from metta.rl.gymnasium.environments import GymnasiumEnvironments
from metta.rl.gymnasium.policy import GymnasiumPolicy
from metta.rl.gymnasium.spaces import GymnasiumSpec
from metta.rl.policy import policy_class


def load_policy(uri: str) -> tuple[GymnasiumPolicy, GymnasiumSpec]:
    """Load a policy, with the statistics that normalise its observations, and the spec of its environment.

    Args:
        uri: a checkpoint's folder: a path, or a URL that `metta.common.shared_files` reads.

    Raises:
        UserError: there is no policy, or it plays another kind of game.
    """
    weights, description = read_policy(uri)
    try:
        spec = TypeAdapter(GymnasiumSpec).validate_python(description["environment"])
    except ValidationError:
        raise UserError(f"policy {uri}: it does not play environments of Gymnasium") from None
    config = policy_config(description)
    policy = policy_class(config, GymnasiumPolicy)(spec, config.hidden_size, True, config.memory)
    policy.load_state_dict(weights)
    return policy.eval(), spec


def require_playable(trained: GymnasiumSpec, played: GymnasiumSpec, name: str) -> None:
    """Check that a policy trained in one environment can play another. Only the number of agents may differ.

    Raises:
        UserError: it cannot; the message names the environment by `name`.
    """
    for what in ("leaves", "actions"):
        ours, theirs = getattr(trained, what), getattr(played, what)
        if ours != theirs:
            kind = "observations" if what == "leaves" else "actions"
            raise UserError(f"{name}: its {kind} are {theirs}, but those of the policy's environment are {ours}")


@torch.no_grad()
def evaluate(policy: GymnasiumPolicy, spec: GymnasiumSpec, simulation: GymnasiumSimulation) -> list[dict[str, float]]:
    """Play the episodes of a simulation side by side, and return the stats of each: ``reward``, ``episode_length``."""
    with GymnasiumEnvironments(simulation.env, range(simulation.num_episodes), [simulation.seed]) as environments:
        require_playable(spec, environments.spec, f"simulation {simulation.name}")
        generator = None if simulation.greedy else torch.Generator().manual_seed(simulation.seed)
        shape = environments.shape
        episodes: dict[int, dict[str, float]] = {}
        states = torch.zeros(*shape, policy.state_size)
        while len(episodes) < simulation.num_episodes:
            observations = torch.from_numpy(environments.arrays.observations.reshape(-1, spec.size).copy())
            heads, _ = policy(observations, states.flatten(0, 1))
            ended = environments.step(policy.sample(heads, generator).view(*shape, -1).numpy())
            states[list(ended)] = 0.0
            episodes = ended | episodes  # of each environment, the first one counts
        return [episodes[index] for index in range(simulation.num_episodes)]


def evaluation_metrics(name: str, episodes: list[dict[str, float]]) -> dict[str, float]:
    """``NAME`` (the mean reward), its standard error ``NAME.stderr``, ``NAME.episodes``, ``NAME/episode_length``."""
    rewards = [episode["reward"] for episode in episodes]
    metrics = {
        name: statistics.fmean(rewards),
        f"{name}.episodes": float(len(episodes)),
        f"{name}/episode_length": statistics.fmean(episode["episode_length"] for episode in episodes),
    }
    if len(rewards) > 1:
        metrics[f"{name}.stderr"] = statistics.stdev(rewards) / len(rewards) ** 0.5
    return metrics
