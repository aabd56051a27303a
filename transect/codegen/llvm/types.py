"""How dtypes look in LLVM: in registers and in memory.

bool is i1 in registers and a byte in memory; what is narrower than a byte takes one. float16,
bfloat16, float8 and float4 are their bits (i16, i8, i4): arithmetic on them goes through float32,
see `floats`.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from transect.ir.dtype import DType
from transect.support.errors import UnsupportedError

_FLOATS = {32: "float", 64: "double"}


def is_soft_float(dtype: DType) -> bool:
    """Whether values of `dtype` are held as bits and computed in float32."""
    return dtype.is_float and dtype.bits < 32


def element_type(dtype: DType) -> str:
    """The register type of one lane."""
    if dtype.is_handle or dtype.code == "str":
        return "ptr"
    if dtype.code == "void":
        return "void"
    if dtype.code == "float" and dtype.bits > 16:
        return _FLOATS[dtype.bits]
    return f"i{dtype.bits}"


def vector_of(element: str, lanes: int) -> str:
    """`element`, or the vector of `lanes` of it."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def register_type(dtype: DType) -> str:
    """The LLVM type of a value. Raises UnsupportedError for scalable vectors."""
    if dtype.scalable:
        raise UnsupportedError(
            f"scalable vectors ({dtype}) on this target",
            remedy="vectorize with a fixed number of lanes",
        )
    return vector_of(element_type(dtype), dtype.lanes)


def memory_type(dtype: DType) -> str:
    """The LLVM type of a value in memory."""
    if dtype.bits < 8 and not dtype.is_handle:
        return vector_of("i8", dtype.lanes)
    return register_type(dtype)


def float_constant(value: float, dtype: DType) -> str:
    """The scalar constant `value` of a floating-point dtype."""
    if is_soft_float(dtype):
        bits = np.asarray(value, np.float64).astype(dtype.numpy).view(f"u{dtype.bytes}")
        return str(int(bits))
    rounded = float(np.asarray(value, np.float64).astype(dtype.numpy))
    if math.isnan(rounded):
        return "0x7FF8000000000000"
    return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"


def splat(element: str, constant: str, lanes: int) -> str:
    """The constant with `constant` in all lanes (`element` is the lane's LLVM type)."""
    return constant if lanes == 1 else f"splat ({element} {constant})"
