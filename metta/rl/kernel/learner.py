"""Learning by the kernel: the twin of `metta.rl.ppo.AutogradLearner` for the default policy on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from metta.rl.adam import Adam
from metta.rl.kernel.functions import Tokens, address, aligned_zeros, kernel
from metta.rl.kernel.network import addresses_of, pointers, sizes_of
from metta.rl.policy import Policy
from metta.rl.ppo import MEASURES, Batch, Learner, Minibatch, Optimizer
from metta.rl.ranks import Ranks
from metta.rl.tokens import TokenBatch
from metta.rl.trainer_config import PPOConfig

SAMPLES_PER_THREAD = 256
"""Samples of a minibatch for each thread; with fewer, adding its gradient is not worth it."""


class _Batch(ctypes.Structure):
    _fields_ = [
        ("tokens", Tokens),
        *((name, ctypes.c_void_p) for name in ("actions", "log_probs", "values", "returns")),
    ]


class _Loss(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_float) for name in ("clip", "value_clip", "value_weight", "entropy_weight")),
        ("size", ctypes.c_double),
    ]


class _Minibatches(ctypes.Structure):
    _fields_ = [
        ("number", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("samples", "advantages", "bounds", "sizes")),
    ]


class _Adam(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_double) for name in ("learning_rate", "beta1", "beta2", "eps", "weight_decay")),
        ("max_grad_norm", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("decoupled", "floats")),
        *((name, ctypes.c_void_p) for name in ("weights", "mean", "square", "steps", "diverged")),
    ]


class KernelLearner(Learner):
    """Learns a default policy on the CPU. With one rank and Adam, threads do a whole pass together.

    Args:
        policy: is changed in place.
        threads: the maximum number of threads.
    """

    def __init__(self, policy: Policy, threads: int = 1) -> None:
        self._functions = kernel()
        self._threads = threads
        self._parameters = list(policy.parameters())
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._network = sizes_of(policy)  # kept, because the shape refers to its array
        self._shape = self._network.shape
        self._packed = aligned_zeros(self._network.packed_floats)
        self._memory = aligned_zeros(0)
        self._gradient = torch.empty(sum(self._sizes) + len(MEASURES))

    def loss_gradient(
        self, batch: Batch, indices: Tensor, advantages: Tensor, size: float, config: PPOConfig
    ) -> Tensor:
        """See `Learner`. The next call writes into the same tensor."""
        threads = self._threads_for(len(indices))
        *gradient, measures = torch.split(self._gradient, [*self._sizes, len(MEASURES)])
        self._functions.loss_gradient(
            ctypes.byref(self._shape),
            address(self._packed),
            ctypes.byref(_experience(batch)),
            _address(indices),
            _address(advantages),
            ctypes.c_int64(len(indices)),
            ctypes.byref(_loss(config, size)),
            ctypes.c_int64(threads),
            address(self._memory),
            pointers(self._parameters),
            pointers(gradient),
            _address(measures),
        )
        return self._gradient

    def learn(
        self,
        optimizer: Optimizer,
        batch: Batch,
        minibatches: Sequence[Minibatch],
        config: PPOConfig,
        ranks: Ranks,
        diverged: Tensor,
    ) -> Tensor:
        """See `Learner`."""
        if ranks.size > 1 or not isinstance(optimizer, Adam):
            return super().learn(optimizer, batch, minibatches, config, ranks, diverged)
        assert optimizer.weights.data_ptr() == self._parameters[0].data_ptr(), "the optimizer changes another policy"
        lengths = [len(minibatch.indices) for minibatch in minibatches]
        indices = torch.cat([minibatch.indices for minibatch in minibatches])
        advantages = torch.cat([minibatch.advantages for minibatch in minibatches])
        bounds = torch.tensor([0, *lengths]).cumsum(0)
        sizes = torch.tensor([minibatch.size for minibatch in minibatches], dtype=torch.float64)
        measured = torch.empty(len(minibatches), len(MEASURES) + 1)
        threads = self._threads_for(min(lengths))
        *gradient, _ = torch.split(self._gradient, [*self._sizes, len(MEASURES)])
        self._functions.learn(
            ctypes.byref(self._shape),
            address(self._packed),
            ctypes.byref(_experience(batch)),
            ctypes.byref(_Minibatches(len(minibatches), *map(_address, (indices, advantages, bounds, sizes)))),
            ctypes.byref(_loss(config)),
            ctypes.byref(_adam(optimizer, config.max_grad_norm, diverged)),
            ctypes.c_int64(threads),
            address(self._memory),
            pointers(self._parameters),
            pointers(gradient),
            _address(measured),
        )
        return measured

    def _threads_for(self, samples: int) -> int:
        """How many threads divide so many samples; there is memory for them afterwards."""
        threads = max(1, min(self._threads, samples // SAMPLES_PER_THREAD))
        floats = self._functions.gradient_floats(ctypes.byref(self._shape), ctypes.c_int64(threads))
        if len(self._memory) < floats:
            self._memory = aligned_zeros(floats)
        return threads


def _experience(batch: Batch) -> _Batch:
    assert isinstance(batch.observations, TokenBatch)
    tensors = (batch.actions, batch.log_probs, batch.values, batch.returns)
    return _Batch(addresses_of(batch.observations), *map(_address, tensors))


def _loss(config: PPOConfig, size: float = 0.0) -> _Loss:
    return _Loss(config.clip_coef, config.value_clip, config.vf_coef, config.ent_coef, size)


def _adam(optimizer: Adam, max_grad_norm: float, diverged: Tensor) -> _Adam:
    config, tensors = optimizer.config, (optimizer.weights, optimizer.mean, optimizer.square, optimizer.steps, diverged)
    numbers = (optimizer.learning_rate, config.beta1, config.beta2, config.eps, config.weight_decay, max_grad_norm)
    return _Adam(*numbers, config.type == "adamw", len(optimizer.weights), *map(_address, tensors))


def _address(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
