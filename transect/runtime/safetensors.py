"""Arrays in one file in the format of safetensors, aligned, mapped when they are read.

Format: https://huggingface.co/docs/safetensors: 8 bytes with the size of a JSON header, the header,
the elements. It leaves no room between tensors, so alignment takes tensors of bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transect.runtime.arrays import numpy_dtype
from transect.support.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]

_ALIGNMENT = 64
_NAMES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_SIZE = struct.Struct("<Q")
_PADDING = "__padding"


def pack_arrays(arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
    """The parts of a file that holds `arrays`, in order. The data of each array starts at a
    multiple of 64 bytes if the file does. Dtypes that the format lacks are kept as bytes."""
    header: dict[str, Any] = {}
    parts: list[bytes | memoryview] = []
    offset = 0
    for name, array in arrays.items():
        padding = -offset % _ALIGNMENT
        if padding:
            span = [offset, offset + padding]
            header[f"{_PADDING}{len(parts)}"] = {
                "dtype": "U8", "shape": [padding], "data_offsets": span
            }  # fmt: skip
            parts.append(bytes(padding))
            offset += padding
        kind = _NAMES.get(array.dtype.name)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        header[name] = {
            "dtype": kind or "U8",
            "shape": list(array.shape) if kind else [flat.size],
            "data_offsets": [offset, offset + flat.size],
        }
        parts.append(flat.data)
        offset += flat.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_SIZE.size + len(text)) % _ALIGNMENT)
    return [_SIZE.pack(len(text)) + text, *parts]


def unpack_arrays(
    data: memoryview, kinds: Mapping[str, tuple[str, Sequence[int]]]
) -> dict[str, Array]:
    """The arrays of a file, over its memory. kinds: the dtype and shape of each wanted.

    Raises InputError for a file that does not hold them.
    """
    try:
        (size,) = _SIZE.unpack_from(data)
        start = _SIZE.size + size
        header: dict[str, Any] = json.loads(bytes(data[_SIZE.size : start]))
        found: dict[str, Array] = {}
        for name, (dtype, shape) in kinds.items():
            begin, end = header[name]["data_offsets"]
            kind = numpy_dtype(dtype)
            if not 0 <= begin <= end <= len(data) - start:
                raise ValueError(f"{name!r} lies behind the end")
            raw = np.frombuffer(data[start + begin : start + end], np.uint8)
            found[name] = raw.view(kind).reshape(tuple(shape))
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise InputError("the weights of the model are damaged", notes=[str(error)]) from None
    return found
