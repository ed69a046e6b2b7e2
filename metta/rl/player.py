"""A policy that plays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from metta.common.errors import UserError
from metta.rl.environment import EnvironmentSpec
from metta.rl.policy import Policy, actor_of
from metta.rl.threads import torch_threads
from metta.rl.tokens import Vocabulary


class PolicyPlayer:
    """Plays with a trained policy, and draws each action from its distribution.

    Example:
        >>> player = load_policy("file:///runs/mine/checkpoints/000061")
        >>> player.reset(num_agents=24, seed=0)
        >>> actions = player.act(observations)

    Attributes:
        spec: the environment that the policy was trained in.
    """

    def __init__(self, policy: Policy, spec: EnvironmentSpec) -> None:
        self.spec = spec
        self._vocabulary = Vocabulary(spec)
        self._device = policy.device
        self._actor = actor_of(policy)
        self._generator = torch.Generator()
        self._policy = policy
        self._states = torch.zeros(0, policy.state_size, device=self._device)

    def __reduce__(self) -> tuple[type[PolicyPlayer], tuple[Policy, EnvironmentSpec]]:
        """Another process makes its own player of the policy, because the compiled kernel belongs to one process."""
        return PolicyPlayer, (self._policy, self.spec)

    def reset(self, num_agents: int, seed: int) -> None:
        """Begin an episode of `num_agents` agents; the seed fixes the actions that are drawn."""
        self._generator.manual_seed(seed)
        self._states = self._states.new_zeros(num_agents, self._states.shape[1])

    @torch.no_grad()
    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Draw the actions (int32 [agents]) of agents with the observations uint8 [agents, tokens, 3]."""
        with torch_threads(1):  # with a few hundred agents, threads wait for each other longer than they compute
            uniforms = torch.rand(len(observations), generator=self._generator).to(self._device)
            actions, _, _ = self._actor.act(
                self._vocabulary.encode(observations).to(self._device), uniforms, self._states
            )
            return actions.cpu().numpy()


def require_compatible(trained: EnvironmentSpec, played: EnvironmentSpec, name: str) -> None:
    """Check that a policy trained in one environment understands another.

    The number of agents and of tokens may differ; actions and the meaning of tokens may not.

    Raises:
        UserError: it does not; the message names the environment by `name`.
    """
    for what in ("actions", "features", "tags", "vibes", "view"):
        ours, theirs = getattr(trained, what), getattr(played, what)
        if ours != theirs:
            raise UserError(f"{name}: its {what} are {theirs}, but those of the policy's environment are {ours}")
