"""OpenBLAS, from the wheel scipy-openblas32: matrix products through its C interface.

Compiled code calls it by pointer, and it runs its jobs on our threads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from transect.ir.dtype import FLOAT32, FLOAT64, HANDLE, INT32, VOID, DType
from transect.ir.expr import Call, Expr, IntImm, Var, cast, const, maximum
from transect.ir.node import replace
from transect.library.base import Library, Offer, Routine
from transect.plan import Cost
from transect.target import Target
from transect.tir.analysis import Contraction, sole_contraction
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import AssertStmt, Evaluate, For, IterVar, Stmt, seq

_PREFIX = "scipy_"
_SYMBOLS = {FLOAT32: f"{_PREFIX}cblas_sgemm", FLOAT64: f"{_PREFIX}cblas_dgemm"}
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # the enumerations of cblas.h
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class OpenBLAS(Library):
    """The BLAS of the wheel scipy-openblas32, with 32-bit integers."""

    @property
    def name(self) -> str:
        return "openblas"

    @property
    def prefix(self) -> str:
        return _PREFIX

    @property
    def remedy(self) -> str:
        return "pip install scipy-openblas32"

    def find(self) -> Path | None:
        """The shared object inside the wheel, without importing the package."""
        spec = importlib.util.find_spec("scipy_openblas32")
        if spec is None or spec.origin is None:
            return None
        return next(iter(sorted(Path(spec.origin).parent.glob("lib/libscipy_openblas*"))), None)

    def routines(self) -> tuple[Routine, ...]:
        return (Gemm(),)


@dataclass(frozen=True)
class Gemm(Routine):
    """?gemm: C = A @ B of float32 or float64, either operand transposed, batched by a loop.

    Several neighbouring rows, columns or reduced dimensions count as one where memory allows.
    Operands and result must be compact and of one dtype. Source: BLAS level 3.
    """

    @property
    def name(self) -> str:
        return "openblas.gemm"

    def offer(self, func: PrimFunc, target: Target) -> Offer | None:
        """The product as a call, if `func` is one product and nothing else."""
        found = sole_contraction(func)
        match = None if found is None else _match(found)
        if match is None:
            return None
        return Offer(self.name, match.cost(), replace(func, body=match.body()))


@dataclass(frozen=True)
class _Product:
    """C[batch, m, n] = A'[batch, m, k] @ B'[batch, k, n]."""

    left: Buffer
    right: Buffer
    output: Buffer
    batch: tuple[IterVar, ...]
    m: Expr
    n: Expr
    k: Expr
    left_transposed: bool
    right_transposed: bool

    def cost(self) -> Cost:
        """What was measured of it: about 0.85 of peak once packing is paid for; each operand is
        read, packed and read again."""
        size = self.output.dtype.bytes
        count = _extent(self.batch)
        moved = (self.m * self.k + self.k * self.n) * 3 + self.m * self.n
        return Cost(
            operations={self.output.dtype: self.m * self.n * self.k * count * 2},
            traffic={"memory": moved * count * size},
            launches=count,
            calls=cast(count, FLOAT64) * 1e-7,
            efficiency=0.85,
        )

    def body(self) -> Stmt:
        """The checks of what 32-bit integers can hold, then one call for each of the batch."""
        checks = [
            AssertStmt(extent <= _LARGEST, ("openblas.gemm: a dimension of ", extent, " elements"))
            for extent in (self.m, self.n, self.k)
            if not (isinstance(extent, IntImm) and extent.value <= _LARGEST)
        ]
        variables = [Var(item.var.name, item.var.dtype) for item in self.batch]
        body: Stmt = Evaluate(self._call(variables))
        for variable, item in reversed(list(zip(variables, self.batch, strict=True))):
            body = For(variable, IntImm(0), item.dom.extent, "serial", body)
        return seq(*checks, body)

    def _call(self, batch: Sequence[Var]) -> Expr:
        dtype: DType = self.output.dtype
        m, n, k = (cast(extent, INT32) for extent in (self.m, self.n, self.k))
        # A leading dimension is at least 1 even where the matrix is empty.
        lda, ldb, ldc = (
            cast(maximum(extent, 1), INT32)
            for extent in (
                self.m if self.left_transposed else self.k,
                self.k if self.right_transposed else self.n,
                self.n,
            )
        )
        return INTRINSICS["call_extern"](
            _SYMBOLS[dtype],
            const(_ROW_MAJOR, INT32),
            const(_TRANSPOSED if self.left_transposed else _PLAIN, INT32),
            const(_TRANSPOSED if self.right_transposed else _PLAIN, INT32),
            m,
            n,
            k,
            const(1.0, dtype),
            _pointer(self.left, batch),
            lda,
            _pointer(self.right, batch),
            ldb,
            const(0.0, dtype),
            _pointer(self.output, batch),
            ldc,
            dtype=VOID,
        )


def _pointer(buffer: Buffer, batch: Sequence[Var]) -> Expr:
    if not batch:
        return buffer.data
    zeros = [IntImm(0)] * (buffer.ndim - len(batch))
    return Call(INTRINSICS["address_of"], (BufferLoad(buffer, (*batch, *zeros)),), HANDLE)


def _match(found: Contraction) -> _Product | None:
    """The product that a contraction is, or None if its memory is laid out otherwise."""
    buffers = (found.left.buffer, found.right.buffer, found.output.buffer)
    dtype = found.output.buffer.dtype
    if not found.is_plain or dtype not in _SYMBOLS or any(b.dtype is not dtype for b in buffers):
        return None
    if any(b.strides or b.elem_offset is not IntImm(0) for b in buffers):
        return None
    batch, rows, columns, summed = (
        [item.var for item in group]
        for group in (found.batch, found.rows, found.columns, found.reduce)
    )
    order = [index for index in found.output.indices if isinstance(index, Var)]
    batch, rows, columns = (sorted(group, key=order.index) for group in (batch, rows, columns))
    if order != [*batch, *rows, *columns]:
        return None
    left, right = list(found.left.indices), list(found.right.indices)
    # The reduced dimensions must come in one order in both operands.
    summed.sort(key=lambda var: left.index(var) if var in left else -1)
    left_transposed = left != [*batch, *rows, *summed]
    right_transposed = right != [*batch, *summed, *columns]
    if left_transposed and left != [*batch, *summed, *rows]:
        return None
    if right_transposed and right != [*batch, *columns, *summed]:
        return None
    by_var = {item.var: item for item in found.site.block.iter_vars}
    items = tuple(tuple(by_var[var] for var in group) for group in (batch, rows, columns, summed))
    if any(item.dom.min is not IntImm(0) for group in items for item in group):
        return None
    m, n, k = (_extent(group) for group in items[1:])
    left_buffer, right_buffer, output = buffers
    return _Product(
        left_buffer, right_buffer, output, items[0], m, n, k, left_transposed, right_transposed
    )


def _extent(items: Sequence[IterVar]) -> Expr:
    extents = [item.dom.extent for item in items]
    return reduce(lambda a, b: a * b, extents) if extents else IntImm(1)
