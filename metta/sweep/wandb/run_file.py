"""What a W&B run left on disk: its summary, whether it was online or offline."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metta.common.config import unflatten

_HEADER = struct.Struct("<4sHB")  # of the file: ":W&B", a magic number, a version
_CHUNK = struct.Struct("<IHB")  # of each chunk: checksum, length, kind
_BLOCK = 32_768
_WHOLE, _FIRST, _LAST = 1, 2, 4


def run_files(folder: Path) -> set[Path]:
    """The files of the runs that were started with WANDB_DIR=`folder`."""
    return set((folder / "wandb").glob("*run-*/run-*.wandb"))


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of the run in a ``.wandb`` file, nested.

    Such a file is a log of protocol buffers in LevelDB's log format. What is cut off at its end is left out.
    """
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    summary: dict[str, Any] = {}
    for data in _records(path.read_bytes()):
        record = messages.Record()
        record.ParseFromString(data)
        for item in record.summary.update:
            summary[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
        for item in record.summary.remove:
            summary.pop(".".join(item.nested_key) or item.key, None)
    nested = {key for key in summary if any(other.startswith(f"{key}.") for other in summary)}
    return unflatten({key: value for key, value in summary.items() if key not in nested})


def _records(data: bytes) -> Iterator[bytes]:
    position, record = _HEADER.size, b""
    while position + _CHUNK.size <= len(data):
        left_in_block = _BLOCK - position % _BLOCK
        if left_in_block < _CHUNK.size:
            position += left_in_block
            continue
        _, length, kind = _CHUNK.unpack_from(data, position)
        position += _CHUNK.size
        if position + length > len(data):
            return
        chunk = data[position : position + length]
        position += length
        record = chunk if kind in (_WHOLE, _FIRST) else record + chunk
        if kind in (_WHOLE, _LAST):
            yield record
