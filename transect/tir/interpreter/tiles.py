"""The AMX tile intrinsics in the interpreter: a tile is 1024 bytes of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import Call, Expr, Intrinsic
from transect.support.errors import ExecutionError, UnsupportedError
from transect.tir.buffer import BufferLoad
from transect.tir.interpreter.memory import Array, Pointer
from transect.tir.tiles import ROW_BYTES, TILE_ROWS, TILE_SCOPE, product_name


def tile_dtypes(call: Call) -> tuple[DType, ...]:
    """The dtypes of the tiles among the operands. Raises UnsupportedError for another operand
    where a tile is due."""
    assert isinstance(call.op, Intrinsic)
    return tuple(_tile_dtype(call.op.name, call.args[n]) for n in _TILES[call.op.name])


def _tile_dtype(name: str, operand: Expr) -> DType:
    load = operand.args[0] if isinstance(operand, Call) and operand.args else None
    if not isinstance(load, BufferLoad) or load.buffer.scope != TILE_SCOPE:
        raise UnsupportedError(
            f"T.{name} of {operand!r}, which is no tile",
            remedy=f'give T.address_of(X[...]) of a buffer X of scope "{TILE_SCOPE}"',
        )
    return load.buffer.dtype


def _rows(pointer: Pointer, stride: int) -> Array:
    """The 16 rows of 64 bytes from `pointer` on."""
    data = pointer.memory.data
    last = pointer.offset + (TILE_ROWS - 1) * stride
    low, high = min(pointer.offset, last), max(pointer.offset, last) + ROW_BYTES
    if low < 0 or high > data.size:
        raise ExecutionError(f"a tile of rows {stride} bytes apart leaves {pointer.memory.name}")
    return np.ndarray((TILE_ROWS, ROW_BYTES), np.uint8, data, pointer.offset, (stride, 1))


def _zero(dtypes: tuple[DType, ...], tile: Pointer) -> None:
    _rows(tile, ROW_BYTES)[...] = 0


def _load(dtypes: tuple[DType, ...], tile: Pointer, address: Pointer, stride: Any) -> None:
    _rows(tile, ROW_BYTES)[...] = _rows(address, int(stride))


def _store(dtypes: tuple[DType, ...], address: Pointer, stride: Any, tile: Pointer) -> None:
    if not address.memory.writable:
        raise ExecutionError(f"a tile is stored, but {address.memory.name} is read-only")
    _rows(address, int(stride))[...] = _rows(tile, ROW_BYTES)


def _dot(dtypes: tuple[DType, ...], c: Pointer, a: Pointer, b: Pointer) -> None:
    total, left, right = dtypes
    product_name(left, right, total)
    pack = 4 // left.bytes
    terms = ROW_BYTES // left.bytes
    rows = _rows(a, ROW_BYTES).copy().view(left.numpy).reshape(TILE_ROWS, terms)
    columns = _rows(b, ROW_BYTES).copy().view(right.numpy).reshape(terms // pack, TILE_ROWS, pack)
    matrix = columns.transpose(0, 2, 1).reshape(terms, TILE_ROWS)
    result = _rows(c, ROW_BYTES).view(total.numpy)
    # In float32 one after the other, as a loop would; integers wrap.
    wide = np.float32 if total.is_float else np.int64
    value = result.astype(wide)
    with np.errstate(all="ignore"):
        for k in range(terms):
            value += np.outer(rows[:, k].astype(wide), matrix[k].astype(wide))
    result[...] = value.astype(total.numpy)


_TILES = {
    "amx_tile_zero": (0,),
    "amx_tile_load": (0,),
    "amx_tile_store": (2,),
    "amx_tile_dot": (0, 1, 2),
}
"""Which operands are tiles."""

TILE_CALLS: dict[str, Callable[..., None]] = {
    "amx_tile_zero": _zero,
    "amx_tile_load": _load,
    "amx_tile_store": _store,
    "amx_tile_dot": _dot,
}
"""Intrinsic name -> (dtypes of its tiles, operands)."""
