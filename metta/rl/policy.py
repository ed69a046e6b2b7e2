"""The network that plays: token embeddings, one hidden layer, and one head each for actions and value."""

from __future__ import annotations

import importlib
import inspect
import math
from abc import ABC, abstractmethod
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metta.common.errors import UserError
from metta.rl.kernel.build import Unavailable
from metta.rl.kernel.functions import kernel
from metta.rl.kernel.network import KernelNetwork
from metta.rl.memory import Memory, MinGRU, Sequences, unpacked
from metta.rl.tokens import NUM_DIRECTIONS, TokenBatch, Vocabulary, sum_embeddings
from metta.rl.trainer_config import PolicyConfig

TYPICAL_TOKENS = 32
"""Approximate tokens in an observation. Initial embeddings are so small that a sum of this many has unit variance."""


class ActorCritic(nn.Module, ABC):
    """The network that PPO trains: it computes the probability of an action and the value of a state.

    Attributes:
        hidden_size: width of its layers.
        memory: its recurrent layer, or None if it sees only the current observation.
    """

    hidden_size: int
    memory: MinGRU | None

    @abstractmethod
    def evaluate(self, observations: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities [batch] of the actions, entropies [batch] of their distributions, values [batch].

        With memory the observations are `Sequences`.
        """

    @property
    def state_size(self) -> int:
        """How many numbers it remembers of each agent."""
        return 0 if self.memory is None else self.memory.width

    @property
    def config(self) -> PolicyConfig:
        """The configuration that makes such a policy."""
        own = type(self).__module__.startswith("metta.rl.")
        return PolicyConfig(
            hidden_size=self.hidden_size,
            memory="none" if self.memory is None else "mingru",
            type=None if own else f"{type(self).__module__}:{type(self).__name__}",
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Policy(ActorCritic):
    """Actor and critic over one shared trunk. Memory, if any, is added to the features of the observation.

    The embedding of an object at a place is the sum of one for the place and one for its direction, so that knowledge
    about an altar three cells north applies to every altar in the north.
    Layers start orthogonal, with gain 0.01 for the actor's head and 1 for the critic's (arXiv 2006.05990).
    """

    def __init__(self, vocabulary: Vocabulary, num_actions: int, hidden_size: int, memory: str = "none") -> None:
        super().__init__()
        self.hidden_size = hidden_size
        places, channels = len(vocabulary.directions), vocabulary.num_channels
        scale = 1 / math.sqrt(TYPICAL_TOKENS)
        self.placeless_embeddings = nn.Parameter(torch.randn(vocabulary.num_placeless, hidden_size) * scale)
        self.place_embeddings = nn.Parameter(torch.randn(places, channels, hidden_size) * scale / 2)
        self.direction_embeddings = nn.Parameter(torch.randn(NUM_DIRECTIONS, channels, hidden_size) * scale)
        self.embeddings_bias = nn.Parameter(torch.zeros(hidden_size))
        self.memory = None if memory == "none" else MinGRU(hidden_size, hidden_size)
        self.hidden = linear(hidden_size, hidden_size, gain=math.sqrt(2))
        self.actor = linear(hidden_size, num_actions, gain=0.01)
        self.critic = linear(hidden_size, 1, gain=1.0)
        lies_in = functional.one_hot(torch.from_numpy(vocabulary.directions), NUM_DIRECTIONS).float()
        self.lies_in: Tensor  # [places, directions]; its product has a faster gradient than indexing
        self.register_buffer("lies_in", lies_in, persistent=False)

    def embeddings(self) -> Tensor:
        """The embedding table of tokens, [rows, hidden]; see `Vocabulary`."""
        of_directions = (self.lies_in @ self.direction_embeddings.flatten(1)).view_as(self.place_embeddings)
        return torch.cat([self.placeless_embeddings, (self.place_embeddings + of_directions).flatten(0, 1)])

    def forward(
        self, tokens: TokenBatch, embeddings: Tensor | None = None, memory: Memory = None
    ) -> tuple[Tensor, Tensor]:
        """Return the actions' logits [batch, actions] and the values [batch].

        Args:
            tokens: the observations.
            embeddings: the result of `embeddings()`, if the caller has it.
            memory: of the steps before; see `metta.rl.memory.Memory`.
        """
        sums = sum_embeddings(self.embeddings() if embeddings is None else embeddings, tokens)
        features = functional.relu(sums + self.embeddings_bias)
        if self.memory is not None:
            features = features + self.memory(features, memory)
        return self.heads(features)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The actions' logits [batch, actions] and the values [batch], from features [batch, hidden]."""
        features = functional.relu(self.hidden(features))
        return self.actor(features), self.critic(features).squeeze(-1)

    def evaluate(self, observations: TokenBatch | Sequences, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, sequences = unpacked(observations)
        logits, values = self(tokens, memory=sequences)
        all_log_probs = functional.log_softmax(logits, dim=-1)
        log_probs = all_log_probs.gather(1, actions[:, None]).squeeze(1)
        return log_probs, -(all_log_probs.exp() * all_log_probs).sum(dim=-1), values


PolicyT = TypeVar("PolicyT", bound=ActorCritic)


def policy_class(config: PolicyConfig, base: type[PolicyT]) -> type[PolicyT]:
    """The class of a policy: `base`, or the user's class that `config.type` names.

    A user's class is a subclass of `Policy` for mettagrid, of `metta.rl.gymnasium.policy.GymnasiumPolicy` for
    Gymnasium. It gets the same arguments and may override any method, for example `Policy.heads`. Its module must also
    be importable where its checkpoints are loaded.

    Raises:
        UserError: the class does not exist, or is not a subclass of `base`.
    """
    if config.type is None:
        return base
    module, _, name = config.type.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"trainer.policy.type={config.type}: {error}") from None
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise UserError(
            f"trainer.policy.type={config.type}: it must be a subclass of {base.__module__}.{base.__name__}"
        )
    return found


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Actor:
    """A policy that plays, with its current weights."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._embeddings = policy.embeddings()

    def act(self, tokens: TokenBatch, uniforms: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions.

        Args:
            tokens: the observations.
            uniforms: float32 [batch] in [0, 1); they decide the actions.
            states: float32 [batch, state size], the policy's memory; it is updated. By default it is empty.

        Returns:
            actions (int32), their log-probabilities, and the values, [batch] each.
        """
        logits, values = self._policy(tokens, self._embeddings, states)
        log_probs = functional.log_softmax(logits, dim=-1)
        actions = sample(log_probs, uniforms)
        return actions.to(torch.int32), log_probs.gather(1, actions[:, None]).squeeze(1), values

    def values(self, tokens: TokenBatch, states: Tensor | None = None) -> Tensor:
        """Values [batch] of observations, given the states [batch, state size] before them, which are not changed."""
        values: Tensor = self._policy(tokens, self._embeddings, None if states is None else states.clone())[1]
        return values


def sample(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw an action (int64 [batch]) from each row: the first whose cumulative probability exceeds the number."""
    reached = log_probs.exp().cumsum(dim=-1) <= uniforms[:, None]
    return reached.sum(dim=-1).clamp(max=log_probs.shape[1] - 1)


@torch.no_grad()
def actor_of(policy: Policy) -> Actor | KernelNetwork:
    """The fastest way to play with a policy here."""
    return KernelNetwork(policy) if is_compiled(policy) else Actor(policy)


def is_compiled(policy: ActorCritic) -> TypeGuard[Policy]:
    """Whether the compiled kernel computes a policy where it is: on the CPU."""
    return policy.device.type == "cpu" and why_plain(policy) is None


def why_plain(policy: ActorCritic) -> str | None:
    """Why the compiled kernel does not compute such a policy on the CPU, or None if it does."""
    if not isinstance(policy, Policy):
        return "the compiled kernel supports only mettagrid's policy"
    if type(policy) is not Policy:
        return f"the compiled kernel does not support {type(policy).__name__}"
    if policy.memory is not None:
        return "the compiled kernel does not support memory"
    try:
        kernel()
    except Unavailable as error:
        return f"slower than the compiled kernel, which is unavailable: {error}"
    return None
