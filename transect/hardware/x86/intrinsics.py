"""The tensor intrinsics of x86: what the instructions compute, and how they are called.

Sources: Intel's Intrinsics Guide and the Software Developer's Manual, volume 2. How many of each a
core starts per cycle is that of Ice Lake and Sapphire Rapids servers (uops.info).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from transect.hardware.templates import dot_product, outer_product
from transect.hardware.x86 import amx
from transect.tir.tensor_intrin import Table, TensorIntrin

_INT8 = ("uint8", "int8", "int32")
_BFLOAT = ("bfloat16", "bfloat16", "float32")

_OUTER = (
    *((f"x86.avx2.fma_{rows}x8", rows, 8, "avx2 fma") for rows in (1, 2, 4, 6)),
    *((f"x86.avx512.fma_{rows}x16", rows, 16, "avx512f") for rows in (1, 4, 6, 8, 14)),
)
"""Name, rows, lanes, features."""

_DOT = (
    (
        "x86.avx512_vnni.vpdpbusd_16",
        "llvm.x86.avx512.vpdpbusd.512",
        _INT8,
        16,
        "avx512f avx512_vnni",
    ),
    (
        "x86.avx512_vnni.vpdpbusd_8",
        "llvm.x86.avx512.vpdpbusd.256",
        _INT8,
        8,
        "avx512f avx512vl avx512_vnni",
    ),
    ("x86.avx_vnni.vpdpbusd_8", "llvm.x86.avx512.vpdpbusd.256", _INT8, 8, "avx2 avx_vnni"),
    (
        "x86.avx512_bf16.vdpbf16ps_16",
        "llvm.x86.avx512bf16.dpbf16ps.512",
        _BFLOAT,
        16,
        "avx512f avx512_bf16",
    ),
    (
        "x86.avx512_bf16.vdpbf16ps_8",
        "llvm.x86.avx512bf16.dpbf16ps.256",
        _BFLOAT,
        8,
        "avx512f avx512vl avx512_bf16",
    ),
)
"""Name, LLVM's name, types, lanes, features. VDPBF16PS takes values below the normal range for 0,
in operands and results, and rounds to the nearest at each of its two steps."""

_RATES = {"x86.avx512_bf16.vdpbf16ps_16": 1.0, "x86.avx512_bf16.vdpbf16ps_8": 1.0}


def _outer(name: str, rows: int, lanes: int, features: str) -> TensorIntrin:
    requires = frozenset(features.split())
    return outer_product(name, rows, lanes, target="x86", requires=requires, rate=2.0)


def _dot(
    name: str, instruction: str, types: tuple[str, str, str], lanes: int, features: str
) -> TensorIntrin:
    return dot_product(
        name,
        instruction,
        types,
        lanes,
        target="x86",
        requires=frozenset(features.split()),
        rate=_RATES.get(name, 2.0),
    )


def _loader(make: Callable[..., TensorIntrin], *row: object) -> Callable[[], TensorIntrin]:
    return cache(partial(make, *row))


INTRINSICS: Table = {
    **amx.INTRINSICS,
    **{row[0]: _loader(_outer, *row) for row in _OUTER},
    **{row[0]: _loader(_dot, *row) for row in _DOT},
}
"""The intrinsics by name."""
