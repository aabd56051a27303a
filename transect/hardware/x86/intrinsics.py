"""The tensor intrinsics of x86: what the instructions compute, and how they are called.

Sources: Intel's Intrinsics Guide and the Software Developer's Manual, volume 2. How many of each a
core starts per cycle is that of Ice Lake and Sapphire Rapids servers (uops.info).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from transect.hardware.templates import dot_product, dot_product_of, outer_product
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

_PAIRS = (
    ("x86.avx2.vpmaddwd_us", ("uint8", "int8", "int32")),
    ("x86.avx2.vpmaddwd_ss", ("int8", "int8", "int32")),
    ("x86.avx2.vpmaddwd_uu", ("uint8", "uint8", "int32")),
)
"""Name, types. What processors without a dot product of bytes have: VPMADDUBSW is one instruction
less, but adds in 16 bits, which saturate."""

_PAIRS_IMPLEMENTATION = """
        C[T.ramp(0, 1, 8)] = (
            C[T.ramp(0, 1, 8)]
            + T.call_llvm_pure_intrin("int32x8", NAME, {left_even}, {right_even})
            + T.call_llvm_pure_intrin("int32x8", NAME, {left_odd}, {right_odd})
        )
"""
_GROUP = (
    'T.reinterpret("{words}", T.broadcast(T.reinterpret("int32", A[T.ramp(0, 1, 4)]), 8))',
    'T.reinterpret("{words}", B.vload([0, 0], RIGHTS))',
)

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


def _pairs(name: str, types: tuple[str, str, str]) -> TensorIntrin:
    """Bytes at even and at odd places as words, whose products are added in pairs: exact."""
    parts: dict[str, str] = {}
    for side, kind, group in zip(("left", "right"), types, _GROUP, strict=False):
        word = "int16" if kind == "int8" else "uint16"
        words, eight = group.format(words=f"{word}x16"), f"T.broadcast(T.{word}(8), 16)"
        # To the top and back: the shift fills in signs, or zeros.
        for place, high in (("even", f"T.shift_left({words}, {eight})"), ("odd", words)):
            extended = f"T.shift_right({high}, {eight})"
            parts[f"{side}_{place}"] = f'T.reinterpret("int16x16", {extended})'
    return dot_product_of(
        name, _PAIRS_IMPLEMENTATION.format(**parts), types, 8,
        {"NAME": "llvm.x86.avx2.pmadd.wd"},
        target="x86", requires=frozenset({"avx2"}), rate=0.75,
    )  # fmt: skip


def _loader(make: Callable[..., TensorIntrin], *row: object) -> Callable[[], TensorIntrin]:
    return cache(partial(make, *row))


INTRINSICS: Table = {
    **amx.INTRINSICS,
    **{row[0]: _loader(_outer, *row) for row in _OUTER},
    **{row[0]: _loader(_dot, *row) for row in _DOT},
    **{row[0]: _loader(_pairs, *row) for row in _PAIRS},
}
"""The intrinsics by name."""
