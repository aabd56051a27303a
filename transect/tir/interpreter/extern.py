"""Python equivalents of the C functions that compiled programs call, for the interpreter.

Row-major CBLAS with the enumerators of cblas.h; pointers are `Pointer`s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from transect.ir.dtype import FLOAT32, FLOAT64, DType
from transect.support.errors import ExecutionError
from transect.tir.interpreter.memory import Array, Pointer

_ROW_MAJOR = 101
_NO_TRANSPOSE = 111


def _matrix(pointer: Pointer, dtype: DType, rows: int, columns: int, leading: int) -> Array:
    """The rows × columns matrix whose rows start `leading` elements apart."""
    item = dtype.numpy.itemsize
    last = pointer.offset + (max(rows - 1, 0) * leading + columns) * item
    if rows and columns and last > pointer.memory.data.size:
        raise ExecutionError(f"a matrix of {rows} x {columns} leaves {pointer.memory.name}")
    if not rows or not columns:
        return np.empty((rows, columns), dtype.numpy)
    strides = (leading * item, item)
    data = pointer.memory.data
    return np.ndarray((rows, columns), dtype.numpy, data, pointer.offset, strides)


def _gemm(dtype: DType) -> Callable[..., int]:
    def gemm(
        order: int, trans_a: int, trans_b: int, m: int, n: int, k: int, alpha: float, a: Pointer,
        lda: int, b: Pointer, ldb: int, beta: float, c: Pointer, ldc: int,
    ) -> int:  # fmt: skip
        if order != _ROW_MAJOR:
            raise ExecutionError(f"cblas order {order}: only row-major ({_ROW_MAJOR}) is known")
        plain_a, plain_b = trans_a == _NO_TRANSPOSE, trans_b == _NO_TRANSPOSE
        left = _matrix(a, dtype, m if plain_a else k, k if plain_a else m, lda)
        right = _matrix(b, dtype, k if plain_b else n, n if plain_b else k, ldb)
        result = _matrix(c, dtype, m, n, ldc)
        product = (left if plain_a else left.T) @ (right if plain_b else right.T)
        # beta 0 means that C may hold anything, NaN included.
        old = 0 if beta == 0 else dtype.numpy.type(beta) * result
        result[...] = dtype.numpy.type(alpha) * product + old
        return 0

    return gemm


EXTERN_FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{prefix}cblas_{letter}gemm{suffix}": _gemm(dtype)
    for prefix in ("", "scipy_")
    for letter, dtype in (("s", FLOAT32), ("d", FLOAT64))
    for suffix in ("", "64_")
}
"""Symbol -> equivalent."""
