"""ONNX files as protobuf messages on the wire: which files a model is made of, and its outline.

Needs neither onnx nor protobuf, and reads no weights: those stay where they are, mapped into memory
by whoever uses them. What tensors mean is in `weights`.

Format: https://protobuf.dev/programming-guides/encoding; field numbers from onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE = 1 << 12
"""Bytes from which a weight is left in the file."""

Data = mmap.mmap | bytes

_TENSOR: dict[int, Any] = {}
_SPARSE: dict[int, Any] = {1: _TENSOR, 2: _TENSOR}
_GRAPH: dict[int, Any] = {5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE: dict[int, Any] = {
    5: _TENSOR, 10: _TENSOR, 6: _GRAPH, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE
}  # fmt: skip
_NODE: dict[int, Any] = {5: _ATTRIBUTE}
_GRAPH[1] = _NODE
_MODEL: dict[int, Any] = {7: _GRAPH, 25: {7: _NODE, 11: _ATTRIBUTE}}
"""Fields by number that hold messages in which there may be tensors."""

_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 9, 13, 14, 1
_DEEPEST = 400


class WireError(ValueError):
    """Bytes that are no protobuf message."""


@dataclass(frozen=True)
class _Field:
    """One field of a message. begin to end: all of it. start to end: its content, if it has a
    length (kind 2)."""

    number: int
    kind: int
    begin: int
    start: int
    end: int


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise WireError("a number that does not end")


def _fields(data: Data, start: int, end: int) -> Iterator[_Field]:
    while start < end:
        key, at = _varint(data, start, end)
        kind = key & 7
        if kind == 2:
            size, at = _varint(data, at, end)
            stop = at + size
        elif kind == 0:
            stop = _varint(data, at, end)[1]
        elif kind in (1, 5):
            stop = at + (8 if kind == 1 else 4)
        else:
            raise WireError(f"a field of kind {kind}")
        if stop > end:
            raise WireError("a field that ends behind its message")
        yield _Field(key >> 3, kind, start, at, stop)
        start = stop


# --- the files of a model ---------------------------------------------------------------------


def model_files(path: Path) -> list[Path] | None:
    """The file of a model and those that its weights are in, in the order of their names; None if
    that cannot be told, because it is damaged or refers to what is not in its folder."""
    try:
        with path.open("rb") as file:
            data = _mapped(file.fileno())
            names = sorted(set(_locations(data, 0, len(data), _MODEL)))
        folder = path.parent.resolve()
        found = [(folder / name).resolve() for name in names]
    except (OSError, ValueError, RuntimeError):
        return None
    inside = all(item.is_relative_to(folder) and item.is_file() for item in found)
    return [path, *found] if inside else None


def _mapped(descriptor: int) -> Data:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except ValueError:  # An empty file.
        return b""


def _locations(data: Data, start: int, end: int, kind: Mapping[int, Any]) -> Iterator[str]:
    """The names of files in external_data entries."""
    pending = [(start, end, kind)]
    while pending:
        start, end, kind = pending.pop()
        for field in _fields(data, start, end):
            if field.kind != 2:
                continue
            if kind is _TENSOR:
                if field.number == _EXTERNAL_DATA:
                    key, value = _entry(data, field)
                    if key == b"location":
                        yield value.decode()
            elif field.number in kind and _may_refer(data, field):
                pending.append((field.start, field.end, kind[field.number]))


def _may_refer(data: Data, field: _Field) -> bool:
    """Whether to look inside for external data. A search is faster, but not through weights."""
    large = field.end - field.start >= LARGE
    return large or data.find(b"location", field.start, field.end) >= 0


def _entry(data: Data, field: _Field) -> tuple[bytes, bytes]:
    parts = {
        item.number: bytes(data[item.start : item.end])
        for item in _fields(data, field.start, field.end)
        if item.kind == 2
    }
    return parts.get(1, b""), parts.get(2, b"")


# --- the outline ------------------------------------------------------------------------------


def outline(path: Path) -> bytes:
    """The model in a file without its large weights: those become external data, in that very file.

    Raises WireError for a file that is no message, OSError for one that cannot be read.
    """
    with path.open("rb") as file:
        data = _mapped(file.fileno())
        return b"".join(_outline(data, 0, len(data), _MODEL, path.name, 0))


def _outline(
    data: Data, start: int, end: int, kind: Mapping[int, Any], name: str, depth: int
) -> list[bytes]:
    if depth > _DEEPEST:
        raise WireError("messages nested too deep")
    fields = list(_fields(data, start, end))
    if kind is _TENSOR:
        return _outline_tensor(data, start, end, fields, name)
    parts: list[bytes] = []
    copied = start
    for field in fields:
        if field.kind == 2 and field.number in kind and field.end - field.start >= LARGE:
            inside = _outline(data, field.start, field.end, kind[field.number], name, depth + 1)
            parts.append(bytes(data[copied : field.begin]))
            parts.append(_key(field.number, 2) + _number(sum(map(len, inside))))
            parts += inside
            copied = field.end
    parts.append(bytes(data[copied:end]))
    return parts


def _outline_tensor(
    data: Data, start: int, end: int, fields: list[_Field], name: str
) -> list[bytes]:
    raw = [field for field in fields if field.number == _RAW_DATA and field.kind == 2]
    odd = any(field.number in (_EXTERNAL_DATA, _DATA_LOCATION) for field in fields)
    if len(raw) != 1 or odd or raw[0].end - raw[0].start < LARGE:
        return [bytes(data[start:end])]
    (field,) = raw
    entries = {"location": name, "offset": field.start, "length": field.end - field.start}
    written = b"".join(
        _text(_EXTERNAL_DATA, _text(1, key.encode()) + _text(2, str(value).encode()))
        for key, value in entries.items()
    )
    where = _key(_DATA_LOCATION, 0) + _number(_EXTERNAL)
    return [bytes(data[start : field.begin]), bytes(data[field.end : end]), written, where]


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, kind: int) -> bytes:
    return _number(number << 3 | kind)


def _text(number: int, content: bytes) -> bytes:
    return _key(number, 2) + _number(len(content)) + content
