"""Arrays in NumPy archives, such as ``evaluations.npz`` from the evaluation callback of Stable-Baselines3."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from metta.sweep.program.metrics.row import STEPS, Row

_LIMIT = 1 << 30  # bytes of one array; a larger one is not a learning curve


def parse(data: bytes) -> list[Row]:
    """A row for each step: the mean of every array over all but its first axis.

    Steps are in the array ``timesteps`` (or another of `STEPS`); without one, the rows are numbered. Arrays of objects
    are skipped, because they are pickles, which can run code. An incomplete file has no rows.
    """
    try:
        arrays = _arrays(data)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        return []
    steps = next((arrays[name] for name in STEPS if name in arrays), None)
    lengths = [len(steps)] if steps is not None else [len(array) for array in arrays.values()]
    rows = []
    for index in range(max(lengths, default=0)):
        values = {
            name: float(np.mean(array[index]))
            for name, array in arrays.items()
            if index < len(array) and array[index].size
        }
        rows.append(Row(values, float(index + 1) if steps is None else float(steps[index])))
    return rows


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """The numeric arrays with at least one axis."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(entry.file_size > _LIMIT for entry in archive.infolist()):
            return {}
    arrays = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        for name in archive.files:
            try:
                array = archive[name]
            except ValueError:  # an array of objects
                continue
            if array.dtype.kind in "biuf":
                arrays[name] = np.atleast_1d(array)
    return arrays
