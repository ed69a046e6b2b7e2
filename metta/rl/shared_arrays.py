"""NumPy arrays in memory that processes share."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Field = tuple[tuple[int, ...], npt.DTypeLike]
"""Shape and type of an array."""
Memory = dict[str, Any]
"""Shared memory by the name of its array. It can be an argument of a process that is started, and of nothing else."""


def allocate(fields: Mapping[str, Field]) -> Memory:
    """Zeroed memory for arrays."""
    context = multiprocessing.get_context("forkserver")
    return {
        name: context.RawArray(np.ctypeslib.as_ctypes_type(dtype), math.prod(shape))
        for name, (shape, dtype) in fields.items()
    }


def arrays_on(memory: Memory, fields: Mapping[str, Field]) -> dict[str, npt.NDArray[Any]]:
    """View memory as the arrays that it was allocated for."""
    return {name: np.frombuffer(memory[name], dtype=dtype).reshape(shape) for name, (shape, dtype) in fields.items()}
