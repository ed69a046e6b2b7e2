"""Observation tokens as rows of an embedding table.

A linear layer over an image of the agent's view, with one channel for each thing that a token can describe, sums one
row of its weights for each token. A view holds about thirty tokens but thousands of pixels times channels, so the sum
over tokens is much cheaper.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from metta.rl.environment import EMPTY, GLOBAL_LOCATION, TOKEN_DIM, EnvironmentSpec
from metta.rl.kernel.functions import Encoder, Tokens, TokenTables, address, kernel, kernel_is_available

IGNORED_FEATURES = ("agent_id",)
"""Features that are hidden from policies, because agents get new numbers in each episode."""

PLACELESS_FEATURES = frozenset(
    ["episode_completion_pct", "last_action", "last_action_move", "last_reward", "goal"]
    + [f"lp:{side}" for side in ("north", "south", "east", "west")]
)
"""Features that describe the agent's whole situation, so that a row for each place would be wasted on them."""

PIECE = 64
"""Largest number of terms in a sum that is computed one after the other, of a gradient."""

NUM_DIRECTIONS = 19
"""Nine by the signs of the row and column distances, each split by which is larger; the last is for global tokens."""


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of a batch of observations, one after the other.

    Attributes:
        rows: int32 [tokens], rows of the embedding table.
        weights: float32 [tokens], the factor of each row in the sum.
        offsets: int32 [batch + 1]; observation i has the tokens offsets[i] to offsets[i + 1].
        lengths: int32 [batch], the number of tokens of each observation, in the memory of this process, so that sizes
            are known without waiting for a GPU.
    """

    rows: Tensor
    weights: Tensor
    offsets: Tensor
    lengths: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self):
            object.__setattr__(self, "lengths", self.offsets.diff().cpu().numpy())

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def to(self, device: torch.device) -> TokenBatch:
        """Copy it to a device, in one copy that does not wait."""
        if device == self.rows.device:
            return self
        joined = torch.cat([self.rows, self.weights.view(torch.int32), self.offsets])
        there = to_device(joined, device)
        rows, weights, offsets = torch.split(there, [len(self.rows), len(self.rows), len(self.offsets)])
        return TokenBatch(rows, weights.view(torch.float32), offsets, self.lengths)

    def select(self, indices: Tensor, there: Tensor | None = None) -> TokenBatch:
        """The observations at `indices` (int64 [selected], in the memory of this process).

        `there` are the same indices in the memory of the device, if they are there already.
        """
        lengths = self.lengths[indices.numpy()]
        if self.rows.device.type == "cpu" and kernel_is_available():
            return self._select(indices, lengths)
        there = to_device(indices, self.rows.device) if there is None else there
        starts = self.offsets[there]
        lengths_there = self.offsets[there + 1] - starts
        offsets = _offsets(lengths_there)
        tokens = torch.repeat_interleave(starts - offsets[:-1], lengths_there, output_size=int(lengths.sum()))
        tokens += _integers(len(tokens), tokens.device)
        return TokenBatch(self.rows[tokens], self.weights[tokens], offsets, lengths)

    def _select(self, indices: Tensor, lengths: npt.NDArray[np.int32]) -> TokenBatch:
        """`select` by the kernel, given the lengths of the selected observations."""
        offsets = _offsets(torch.from_numpy(lengths))
        count = int(offsets[-1])
        rows, weights = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.float32)
        tokens = Tokens(self.rows.data_ptr(), self.weights.data_ptr(), self.offsets.data_ptr())
        kernel().select_tokens(
            ctypes.byref(tokens),
            address(indices.numpy()),
            ctypes.c_int64(len(indices)),
            *(address(array) for array in (offsets.numpy(), rows, weights)),
        )
        return TokenBatch(torch.from_numpy(rows), torch.from_numpy(weights), offsets, lengths)

    @staticmethod
    def concatenate(batches: list[TokenBatch]) -> TokenBatch:
        lengths = np.concatenate([batch.lengths for batch in batches])
        rows, weights = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("rows", "weights"))
        offsets = to_device(_offsets(torch.from_numpy(lengths)), rows.device)
        return TokenBatch(rows, weights, offsets, lengths)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from this process's memory to a device. Does not wait for a GPU, which reads pinned memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class _SumEmbeddings(torch.autograd.Function):
    """`sum_embeddings`, with a gradient that is itself such a sum: a row's gradient sums those of its observations.

    Torch's gradient of `embedding_bag` takes four times as long on a CPU.
    """

    @staticmethod
    def forward(context: Any, embeddings: Tensor, rows: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        context.save_for_backward(rows, weights, offsets)
        context.num_rows = len(embeddings)
        return _sum_rows(embeddings, rows, weights, offsets)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        rows, weights, offsets = context.saved_tensors
        order = _stable_order(rows)
        observations = _integers(len(offsets) - 1, rows.device)
        observations = torch.repeat_interleave(observations, offsets.diff(), output_size=len(rows))
        uses = torch.searchsorted(rows[order], _integers(context.num_rows + 1, rows.device)).to(torch.int32)
        # The uses of a row are summed in pieces, because a GPU sums each bag one after the other, and some rows are
        # in every observation.
        pieces = torch.cat([uses, _integers(len(rows) // PIECE + 1, rows.device) * PIECE]).sort().values
        sums = _sum_rows(gradients[0].contiguous(), observations[order], weights[order], pieces)
        of_row = torch.searchsorted(pieces, uses).to(torch.int32)
        numbers = _integers(len(sums), rows.device)
        return _sum_rows(sums, numbers, None, of_row), None, None, None


def sum_embeddings(embeddings: Tensor, tokens: TokenBatch) -> Tensor:
    """Sum the embeddings (float32 [rows, width]) of each observation's tokens, times their weights: [batch, width]."""
    sums: Tensor = _SumEmbeddings.apply(embeddings, tokens.rows, tokens.weights, tokens.offsets)
    return sums


def _integers(number: int, device: torch.device) -> Tensor:
    return torch.arange(number, dtype=torch.int32, device=device)


def _sum_rows(table: Tensor, rows: Tensor, weights: Tensor | None, offsets: Tensor) -> Tensor:
    return functional.embedding_bag(
        rows, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _stable_order(rows: Tensor) -> Tensor:
    """The indices that sort rows. NumPy's radix sort of 16-bit numbers is the fastest on a CPU."""
    if rows.device.type != "cpu":
        return torch.argsort(rows, stable=True)
    numbers = rows.numpy()
    small = numbers.astype(np.uint16) if numbers.max(initial=0) < 2**16 else numbers
    return torch.from_numpy(np.argsort(small, kind="stable"))


def _offsets(lengths: Tensor) -> Tensor:
    """The start of each of several adjoining parts, and the end of the last: int32 [parts + 1]."""
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
    torch.cumsum(lengths, dim=0, out=offsets[1:])
    return offsets


class Vocabulary:
    """Maps a token to a row of the embedding table and a weight.

    Each channel has a row for every place in the view, and one more place for the global tokens; a channel of a feature
    without places has a single row. A feature whose value is a name (a tag, an action, a vibe) has one channel for each
    name. A feature whose value is an amount has one channel with the weight 1 + log2(amount) / 8, because the presence
    of any amount matters most. The higher digits of an amount use the same channel. Amounts of 0 and empty tokens have
    no row.

    Attributes:
        num_channels: channels that have places.
        num_placeless: channels without places; they have the first rows. After them, the row of a channel at a place
            is ``num_placeless + place * num_channels + channel``.
        directions: int64 [places], the direction of each place from the agent, in `range(NUM_DIRECTIONS)`.
    """

    def __init__(self, spec: EnvironmentSpec) -> None:
        names_of = {"tag": spec.tags, "last_action": spec.actions, "vibe": spec.vibes}
        self._weights = np.zeros(256 * 256, dtype=np.float32)
        self._channels = np.zeros(256 * 256, dtype=np.int32)
        self._has_place = np.ones(256 * 256, dtype=np.int32)
        self.num_channels = self.num_placeless = 0
        amounts = np.arange(1, 256)
        channels: dict[str, int] = {}
        for feature, full_name in enumerate(spec.features):
            name, digit = _digit(full_name)
            if name in IGNORED_FEATURES:
                continue
            meanings = feature * 256 + (np.arange(len(names_of[name])) if names_of.get(name) else amounts)
            if names_of.get(name):
                self._weights[meanings] = 1
                self._channels[meanings] = self._new_channels(name, len(meanings)) + np.arange(len(meanings))
            else:
                self._weights[meanings] = 1 + digit + np.log2(amounts) / 8  # = 1 + log2(256^digit amount) / 8
                if name not in channels:
                    channels[name] = self._new_channels(name, 1)
                self._channels[meanings] = channels[name]
            self._has_place[meanings] = name not in PLACELESS_FEATURES
        height, width = spec.view
        places = np.zeros(256, dtype=np.int32)
        rows, columns = np.divmod(np.arange(height * width), width)
        places[rows << 4 | columns] = np.arange(height * width)
        places[GLOBAL_LOCATION] = height * width
        self._first_rows = self.num_placeless + places * self.num_channels
        self.directions: npt.NDArray[np.int64] = np.append(
            _directions(rows - height // 2, columns - width // 2), NUM_DIRECTIONS - 1
        )

    @property
    def tables(self) -> TokenTables:
        """Its lookups, for the kernel."""
        return TokenTables(self._weights, self._channels, self._has_place, self._first_rows)

    def _new_channels(self, name: str, number: int) -> int:
        """Add channels for a feature, and return the first."""
        if name in PLACELESS_FEATURES:
            self.num_placeless += number
            return self.num_placeless - number
        self.num_channels += number
        return self.num_channels - number

    def encode(self, observations: npt.NDArray[np.uint8]) -> TokenBatch:
        """Look up the tokens of observations (uint8 [batch, tokens, 3])."""
        observations = np.ascontiguousarray(observations)
        if kernel_is_available():
            encoder = Encoder(self.tables, *observations.shape[:2])
            encoder.encode(observations)
            count = encoder.offsets[-1]
            rows, weights = (torch.from_numpy(array[:count].copy()) for array in (encoder.rows, encoder.weights))
            return TokenBatch(rows, weights, torch.from_numpy(encoder.offsets))
        return self.encode_plainly(observations)

    def encode_plainly(self, observations: npt.NDArray[np.uint8]) -> TokenBatch:
        """`encode` in NumPy, for machines without a kernel."""
        present = observations[:, :, 0] != EMPTY
        longest = int(present.sum(axis=1).max(initial=0))
        present = present[:, :longest]
        whole = observations.view(f"V{TOKEN_DIM}")[:, :, 0]  # faster to select than three bytes
        tokens = whole[:, :longest][present].view(np.uint8).reshape(-1, TOKEN_DIM)
        meanings = tokens[:, 1].astype(np.int32) << 8 | tokens[:, 2]
        weights = self._weights[meanings]
        counted = weights > 0
        rows = self._first_rows[tokens[:, 0]] * self._has_place[meanings] + self._channels[meanings]
        counted_before = np.concatenate([[0], np.cumsum(counted)])
        offsets = counted_before[np.concatenate([[0], np.cumsum(present.sum(axis=1))])].astype(np.int32)
        return TokenBatch(
            torch.from_numpy(rows[counted]), torch.from_numpy(weights[counted]), torch.from_numpy(offsets)
        )


def _digit(feature: str) -> tuple[str, int]:
    """A feature's name without its digit, and the digit: ``inv:ore:p1`` is the amount of ore in units of 256."""
    name, separator, digit = feature.rpartition(":p")
    return (name, int(digit)) if separator and digit.isdigit() else (feature, 0)


def _directions(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The directions of places, by their distance from the agent in rows and columns."""
    compass = 3 * (np.sign(rows) + 1) + np.sign(columns) + 1
    return 2 * compass + (np.abs(rows) > np.abs(columns))
