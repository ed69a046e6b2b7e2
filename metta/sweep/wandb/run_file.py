"""What a W&B run left on disk, whether it was online or offline: its summary and its history."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from metta.common.config import unflatten

_HEADER = struct.Struct("<4sHB")  # of the file: ":W&B", a magic number, a version
_CHUNK = struct.Struct("<IHB")  # of each chunk: checksum, length, kind
_BLOCK = 32_768
_WHOLE, _FIRST, _LAST = 1, 2, 4


def parse_summary(data: bytes) -> dict[str, Any]:
    """The summary of the run in a ``.wandb`` file, nested.

    Such a file is a log of protocol buffers in LevelDB's log format. What is cut off at its end is left out.

    Args:
        data: all of the file.
    """
    summary: dict[str, Any] = {}
    for record in _messages(data):
        summary.update(_items(record.summary.update))
        for item in record.summary.remove:
            summary.pop(_key(item), None)
    return _nested(summary)


def parse_history(data: bytes) -> Iterator[dict[str, Any]]:
    """What the run in a ``.wandb`` file logged, step by step, nested."""
    for record in _messages(data):
        if record.HasField("history"):
            yield _nested(_items(record.history.item))


def _messages(data: bytes) -> Iterator[Any]:
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    for each in _records(data):
        record = messages.Record()
        record.ParseFromString(each)
        yield record


def _items(items: Iterable[Any]) -> dict[str, Any]:
    return {_key(item): json.loads(item.value_json) for item in items}


def _key(item: Any) -> str:
    return ".".join(item.nested_key) or str(item.key)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested values; a value beside others that are nested in it is left out."""
    nested = {key for key in flat if any(other.startswith(f"{key}.") for other in flat)}
    return unflatten({key: value for key, value in flat.items() if key not in nested})


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
