"""One element along an axis, by a scalar: what loops over a sequence read, and how they write one.

Slices live in `slice.py`, selecting by tensors of indices in `index.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import INT64, DType
from transect.ir.expr import Expr, Var, cast
from transect.ir.types import PrimType, TensorType, Type
from transect.relax.op.inference import fail, normalize_axis, tensor, unknown_like, with_shape
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.function import PrimFunc
from transect.tir.stmt import Stmt


@dataclass(frozen=True)
class Element(Operator):
    """element(x, index, axis): x[…, index, …], without the axis.

    index: an integer scalar, which must lie within the axis. Source: numpy's basic indexing.
    """

    name = "element"
    axis: int = 0

    def infer(self, x: Type, index: Type) -> TensorType:
        """The dimensions of x without the axis."""
        data = tensor(self, x, "x")
        if not isinstance(index, PrimType) or not index.dtype.is_integral:
            fail(self, f"index must be an integer scalar, got {index!r}")
        if data.ndim < 0:
            return unknown_like(data)
        axis = normalize_axis(self, self.axis, data.ndim)
        if data.shape is None:
            return unknown_like(data, ndim=data.ndim - 1)
        return with_shape(data, [*data.shape[:axis], *data.shape[axis + 1 :]])

    def legalize(self, b: FunctionBuilder, x: Buffer, index: Expr) -> Buffer:
        """One map."""
        axis = normalize_axis(self, self.axis, x.ndim)
        place = cast(index, INT64)

        def element(*i: Var) -> Expr:
            return x[(*i[:axis], place, *i[axis:])]

        return b.compute((*x.shape[:axis], *x.shape[axis + 1 :]), element, name="y")


def store_range(dtype: DType) -> PrimFunc:
    """The program that writes x (n,) to y[start : start + n], in place; it takes y, x, start."""
    size, count = Var("size"), Var("count")
    b = FunctionBuilder("store_range")
    y, x = b.input("y", (size,), dtype), b.input("x", (count,), dtype)
    start = b.scalar("start")

    def write(i: Var) -> Stmt:
        return store(y, (start + i,), x[i])

    b.block((count,), write, name="store")
    return b.finish(()).with_attrs(global_symbol=None)
