"""The network that plays: token embeddings, one hidden layer, and a head each for actions and value."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from metta.rl.tokens import TokenBatch

TYPICAL_TOKENS = 32
"""Tokens in an observation, about; embeddings start so small that the sum of so many has unit variance."""


class Policy(nn.Module):
    """Actor and critic over one shared trunk, without memory.

    Weights start orthogonal, with gain 0.01 for the actor's head and 1 for the critic's (arXiv 2005.12729).
    """

    def __init__(self, num_rows: int, num_actions: int, hidden_size: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(num_rows, hidden_size) / math.sqrt(TYPICAL_TOKENS))
        self.embeddings_bias = nn.Parameter(torch.zeros(hidden_size))
        self.hidden = _linear(hidden_size, hidden_size, gain=math.sqrt(2))
        self.actor = _linear(hidden_size, num_actions, gain=0.01)
        self.critic = _linear(hidden_size, 1, gain=1.0)

    def forward(self, tokens: TokenBatch) -> tuple[Tensor, Tensor]:
        """Return the actions' logits [batch, actions] and the values [batch]."""
        sums = functional.embedding_bag(
            tokens.rows,
            self.embeddings,
            tokens.offsets,
            mode="sum",
            per_sample_weights=tokens.weights,
            include_last_offset=True,
        )
        features = functional.relu(sums + self.embeddings_bias)
        features = functional.relu(self.hidden(features))
        return self.actor(features), self.critic(features).squeeze(-1)


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw an action (int64 [batch]) from each row of logits."""
    return torch.multinomial(functional.softmax(logits, dim=-1), 1, generator=generator).squeeze(-1)
