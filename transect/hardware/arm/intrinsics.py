"""The tensor intrinsics of Arm processors: NEON's multiply-add, dot and matrix products.

Sources: Arm Architecture Reference Manual for A-profile (FMLA, SDOT, UDOT, USDOT, SMMLA, UMMLA,
USMMLA, BFDOT); how many a core starts per cycle is of the Neoverse V1 (Arm's optimization guide).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from transect.hardware.templates import dot_product, matrix_product, outer_product
from transect.tir.tensor_intrin import Table, TensorIntrin

_SIGNED = ("int8", "int8", "int32")
_UNSIGNED = ("uint8", "uint8", "uint32")
_MIXED = ("uint8", "int8", "int32")
_BFLOAT = ("bfloat16", "bfloat16", "float32")

_OUTER = tuple((f"arm.neon.fmla_{rows}x4", rows, 4) for rows in (1, 4, 8))
"""Name, rows, lanes."""

_DOT = (
    ("arm.dotprod.sdot_4", "llvm.aarch64.neon.sdot.v4i32.v16i8", _SIGNED, "dotprod"),
    ("arm.dotprod.udot_4", "llvm.aarch64.neon.udot.v4i32.v16i8", _UNSIGNED, "dotprod"),
    ("arm.i8mm.usdot_4", "llvm.aarch64.neon.usdot.v4i32.v16i8", _MIXED, "i8mm"),
    ("arm.bf16.bfdot_4", "llvm.aarch64.neon.bfdot.v4f32.v8bf16", _BFLOAT, "bf16"),
)
"""Name, LLVM's name, types, feature."""

_MATRIX = (
    ("arm.i8mm.smmla_2x2", "llvm.aarch64.neon.smmla.v4i32.v16i8", _SIGNED, "i8mm"),
    ("arm.i8mm.ummla_2x2", "llvm.aarch64.neon.ummla.v4i32.v16i8", _UNSIGNED, "i8mm"),
    ("arm.i8mm.usmmla_2x2", "llvm.aarch64.neon.usmmla.v4i32.v16i8", _MIXED, "i8mm"),
)
"""Name, LLVM's name, types, feature."""


def _outer(name: str, rows: int, lanes: int) -> TensorIntrin:
    return outer_product(name, rows, lanes, target="arm", requires=frozenset({"neon"}), rate=4.0)


def _dot(name: str, instruction: str, types: tuple[str, str, str], feature: str) -> TensorIntrin:
    requires = frozenset({"neon", feature})
    return dot_product(name, instruction, types, 4, target="arm", requires=requires, rate=4.0)


def _matrix(name: str, instruction: str, types: tuple[str, str, str], feature: str) -> TensorIntrin:
    requires = frozenset({"neon", feature})
    return matrix_product(name, instruction, types, target="arm", requires=requires, rate=2.0)


def _loader(make: Callable[..., TensorIntrin], *row: object) -> Callable[[], TensorIntrin]:
    return cache(partial(make, *row))


INTRINSICS: Table = {
    **{row[0]: _loader(_outer, *row) for row in _OUTER},
    **{row[0]: _loader(_dot, *row) for row in _DOT},
    **{row[0]: _loader(_matrix, *row) for row in _MATRIX},
}
"""The intrinsics by name."""
