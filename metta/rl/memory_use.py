"""Measures the memory of a run, and explains errors when there is not enough."""

from __future__ import annotations

import functools
import resource
import sys
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch

from metta.rl.trainer_config import TrainerConfig

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_GIB = 2**30
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
"""Messages of torch's allocator on CPUs, because its error has no specific type."""


class OutOfMemory(RuntimeError):
    """Training needs more memory than there is."""


def peak_memory() -> dict[str, float]:
    """``memory_gib`` and ``gpu_memory_gib``: the peak of this process so far; for a GPU, since the run began.

    Workers that step environments are not counted.
    """
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"memory_gib": resident / _GIB, "gpu_memory_gib": on_gpu / _GIB}


def naming_sizes(
    train: Callable[Concatenate[TrainerConfig, Arguments], Result],
) -> Callable[Concatenate[TrainerConfig, Arguments], Result]:
    """Make a function that trains raise `OutOfMemory`, which names the sizes, when it runs out of memory."""

    @functools.wraps(train)
    def trained(config: TrainerConfig, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return train(config, *args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"out of memory with trainer.batch_size={config.batch_size}, "
                f"trainer.minibatch_size={config.minibatch_size}, "
                f"trainer.policy.hidden_size={config.policy.hidden_size} and "
                f"trainer.num_environments={config.num_environments}; smaller ones need less: {error}"
            ) from error

    return cast(Callable[Concatenate[TrainerConfig, Arguments], Result], trained)


def _is_out_of_memory(error: Exception) -> bool:
    typed = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    return typed or any(words in str(error) for words in _CPU_ALLOCATOR)
