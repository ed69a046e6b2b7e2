"""Reads the file of a W&B run on disk, online or offline: its summary and its history."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from typing import Any

_HEADER = struct.Struct("<4sHB")  # of the file: ":W&B", a magic number, a version
_CHUNK = struct.Struct("<IHB")  # of each chunk: checksum, length, kind
_BLOCK = 32_768
_WHOLE, _FIRST, _LAST = 1, 2, 4


def parse_records(data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The kinds of the records in a ``.wandb`` file, in order, with the values of "history" and "summary" records.

    Such a file is a log of protocol buffers in LevelDB's log format. A truncated record at its end is skipped.

    Args:
        data: the whole file.
    """
    for record in _messages(data):
        kind = record.WhichOneof("record_type")
        items = {"history": record.history.item, "summary": record.summary.update}.get(kind, ())
        yield kind, {".".join(item.nested_key) or str(item.key): json.loads(item.value_json) for item in items}


def _messages(data: bytes) -> Iterator[Any]:
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    for each in _records(data):
        record = messages.Record()
        record.ParseFromString(each)
        yield record


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
