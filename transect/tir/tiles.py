"""Matrix tiles of 16 rows of 64 bytes (Intel AMX): what the intrinsics on them compute.

Buffers of `TILE_SCOPE` hold whole tiles, 1024 bytes each. How they become registers is in codegen.
"""

from __future__ import annotations

from transect.ir.dtype import DType
from transect.support.errors import UnsupportedError

TILE_SCOPE = "amx.tile"
TILE_ROWS, ROW_BYTES = 16, 64
TILE_BYTES = TILE_ROWS * ROW_BYTES

OPERANDS: dict[str, tuple[str, ...]] = {
    "amx_tile_zero": ("w",),
    "amx_tile_load": ("w", "r", ""),
    "amx_tile_store": ("w", "", "r"),
    "amx_tile_dot": ("rw", "r", "r"),
}
"""Intrinsic -> what it does with the memory that each operand points to."""

_PRODUCTS: dict[tuple[str, str, str], str] = {
    ("bfloat16", "bfloat16", "float32"): "tdpbf16ps",
    ("int8", "int8", "int32"): "tdpbssd",
    ("uint8", "int8", "int32"): "tdpbusd",
    ("int8", "uint8", "int32"): "tdpbsud",
    ("uint8", "uint8", "int32"): "tdpbuud",
}


def product_name(left: DType, right: DType, total: DType) -> str:
    """The instruction that multiplies tiles of `left` and `right` and adds to one of `total`.

    Raises UnsupportedError if there is none.
    """
    found = _PRODUCTS.get((str(left), str(right), str(total)))
    if found is None:
        known = ", ".join(f"{a} x {b} -> {c}" for a, b, c in _PRODUCTS)
        raise UnsupportedError(
            f"a product of tiles of {left} and {right} into {total}", remedy=f"there are: {known}"
        )
    return found
