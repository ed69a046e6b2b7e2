"""Scalars from TensorBoard's event files.

This module parses the few necessary fields of three protocol buffers, because every package that reads these files is
heavy (`tensorboard` brings gRPC, protobuf, Markdown and a web server) and a sweep needs only names, steps and numbers.
The tests compare it with files of the real writers.

An event file is a sequence of records: length (8 bytes), its checksum (4), the data, its checksum (4). The data is an
``Event``: step = 2, summary = 5. A ``Summary`` has value = 1. A ``Value`` has tag = 1, simple_value = 2, tensor = 8.
A ``TensorProto`` has dtype = 1, tensor_content = 4, and by type float_val = 5, double_val = 6, int_val = 7,
int64_val = 10. See tensorboard/compat/proto/{event,summary,tensor}.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from metta.sweep.program.metrics.row import Row

_Field = tuple[int, int | bytes]

_CONTENT = {1: "<f", 2: "<d", 3: "<i", 4: "<B", 6: "<b", 9: "<q", 19: "<e"}
"""How `tensor_content` encodes one number, by its dtype."""
_PACKED = {5: "<f", 6: "<d"}
_LIMIT = 1 << 30  # bytes; a longer record is a damaged length


def parse(data: bytes) -> list[Row]:
    """The scalars in an event file, a row for each step in the order of the file. A truncated record is skipped.

    Args:
        data: the whole file.
    """
    rows: list[Row] = []
    for record in _records(data):
        step, values = _event(record)
        if not values:
            continue
        if rows and rows[-1].step == step and not rows[-1].values.keys() & values.keys():
            rows[-1].values.update(values)
        else:
            rows.append(Row(values, float(step)))
    return rows


def _records(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        start, position = position + 12, position + 16 + length
        if length > _LIMIT or position > len(data):
            return
        yield data[start : start + length]


def _event(data: bytes) -> tuple[int, dict[str, float]]:
    step, values = 0, {}
    for field, content in _fields(data):
        if field == 2 and isinstance(content, int):
            step = content
        elif field == 5 and isinstance(content, bytes):
            for inner, value in _fields(content):
                if inner == 1 and isinstance(value, bytes):
                    values.update(_value(value))
    return step, values


def _value(data: bytes) -> dict[str, float]:
    """The name and the number of one value of a summary; empty for images, histograms and text."""
    tag, scalar = "", None
    for field, content in _fields(data):
        if isinstance(content, int):
            continue
        if field == 1:
            tag = content.decode("utf-8", "replace")
        elif field == 2 and len(content) == 4:
            (scalar,) = struct.unpack("<f", content)
        elif field == 8:
            scalar = _tensor(content)
    return {} if scalar is None else {tag: scalar}


def _tensor(data: bytes) -> float | None:
    """The number in a tensor of one element."""
    dtype, found = 0, list[float]()
    for field, content in _fields(data):
        if field == 1 and isinstance(content, int):
            dtype = content
        elif field in (7, 10) and isinstance(content, int):
            found.append(float(content))
        elif field == 4 and isinstance(content, bytes):
            layout = _CONTENT.get(dtype)
            if layout and len(content) == struct.calcsize(layout):
                found.append(float(struct.unpack(layout, content)[0]))
        elif field in _PACKED and isinstance(content, bytes) and len(content) % struct.calcsize(_PACKED[field]) == 0:
            found += [float(each) for (each,) in struct.iter_unpack(_PACKED[field], content)]
        elif field in (7, 10) and isinstance(content, bytes) and content:
            found.append(float(_signed(_varint(content, 0)[0])))
    return found[0] if len(found) == 1 else None


def _fields(data: bytes) -> Iterator[_Field]:
    """Number and content of the fields of a protocol buffer: an int for a varint, bytes for anything else.

    Content that does not follow the format ends the iteration.
    """
    position = 0
    while position < len(data):
        try:
            key, position = _varint(data, position)
            if key & 7 == 0:
                value, position = _varint(data, position)
                yield key >> 3, _signed(value)
                continue
            if key & 7 == 2:
                length, position = _varint(data, position)
            else:
                length = {1: 8, 5: 4}[key & 7]
        except (IndexError, KeyError):
            return
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
