"""Sorting along an axis: sort, argsort, topk.

All are stable and take NaN as greater than every number. The loops count, for each element, the
elements that come before it: any order of evaluation gives the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.dtype import BOOL, INT32, INT64, DType
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    Var,
    as_int,
    cast,
    const,
    logical_and,
    logical_not,
    logical_or,
    minimum,
    select,
)
from transect.ir.types import TensorType, TupleType, Type
from transect.relax.op.inference import fail, normalize_axis, simplify, tensor, with_shape
from transect.relax.op.loops import reduce
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store, when
from transect.tir.op import isnan
from transect.tir.stmt import Stmt


def comes_before(a: Expr, b: Expr, first: Expr, *, descending: bool) -> Expr:
    """Whether element `a` sorts before `b`; `first`: whether it stood before it."""
    less = a > b if descending else a < b
    tie = EQ(a, b)
    if a.dtype.is_float:
        nan_a, nan_b = isnan(a), isnan(b)
        alone = (
            logical_and(nan_a, logical_not(nan_b))
            if descending
            else logical_and(nan_b, logical_not(nan_a))
        )
        less = logical_or(less, alone)
        tie = logical_or(tie, logical_and(nan_a, nan_b))
    elif a.dtype is BOOL:
        less = logical_and(a, logical_not(b)) if descending else logical_and(b, logical_not(a))
    return logical_or(less, logical_and(tie, first))


def ranks(b: FunctionBuilder, x: Buffer, axis: int, *, descending: bool) -> Buffer:
    """For each element its place along the sorted axis, as int64."""

    def before(*i: Expr) -> Expr:
        other = x[(*i[:axis], i[-1], *i[axis + 1 : -1])]
        ahead = comes_before(other, x[i[:-1]], i[-1] < i[axis], descending=descending)
        return select(ahead, const(1, INT64), const(0, INT64))

    return reduce(b, x.shape, x.shape[axis : axis + 1], before, "sum", "rank")


def place_sorted(
    b: FunctionBuilder,
    x: Buffer,
    axis: int,
    place: Buffer,
    count: Expr,
    dtype: DType | None,
    name: str,
) -> Buffer:
    """The first `count` elements in sorted order: values, or with `dtype` their positions."""
    sizes = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    target = b.allocate(sizes, x.dtype if dtype is None else dtype, name=name)

    def body(*i: Var) -> Stmt:
        value = x[i] if dtype is None else cast(i[axis], dtype)
        spot = place[i]
        put = store(target, (*i[:axis], spot, *i[axis + 1 :]), value)
        return put if count is x.shape[axis] else when(spot < count, put)

    b.block(x.shape, body, kinds="O" * x.ndim, name=name)
    return target


@dataclass(frozen=True)
class Sort(Operator):
    """sort(x, axis, descending): the elements in order along `axis`; NaN counts as the greatest.

    Result: the type of x. Source: array API sort, numpy.sort.
    """

    name = "sort"
    axis: int = -1
    descending: bool = False

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        data = tensor(self, x, "x")
        if data.ndim >= 0:
            normalize_axis(self, self.axis, data.ndim)
        return data

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """Each element's rank, then each element put there."""
        axis = normalize_axis(self, self.axis, x.ndim)
        place = ranks(b, x, axis, descending=self.descending)
        return place_sorted(b, x, axis, place, x.shape[axis], None, "y")


@dataclass(frozen=True)
class Argsort(Operator):
    """argsort(x, axis, descending, dtype): the positions that sort x along `axis`, stable.

    Result: the shape of x, of `dtype` (int32 by default). Source: array API argsort.
    """

    name = "argsort"
    axis: int = -1
    descending: bool = False
    dtype: DType = INT32

    def infer(self, x: Type) -> TensorType:
        """The shape of x with the positions' dtype."""
        data = tensor(self, x, "x")
        if data.ndim >= 0:
            normalize_axis(self, self.axis, data.ndim)
        return TensorType(data.shape, self.dtype, data.ndim, data.device)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """Each element's rank, then each position put there."""
        axis = normalize_axis(self, self.axis, x.ndim)
        place = ranks(b, x, axis, descending=self.descending)
        return place_sorted(b, x, axis, place, x.shape[axis], self.dtype, "y")


@dataclass(frozen=True)
class TopK(Operator):
    """topk(x, k, axis, ret_type, largest, dtype): the k first of the elements sorted along `axis`,
    in descending order if largest, else ascending; equal ones in the order of x.

    k: at most the extent; below 1 for all. ret_type: "both" (values, positions), "values" or
    "indices". dtype: of the positions. Source: ONNX TopK-11 (sorted).
    """

    name = "topk"
    k: int = 1
    axis: int = -1
    ret_type: str = "both"
    largest: bool = True
    dtype: DType = INT32

    def count(self, extent: Expr) -> Expr:
        """How many elements are kept of an axis of `extent`."""
        if self.k < 1:
            return extent
        known = as_int(extent)
        if known is not None and known < self.k:
            fail(self, f"k = {self.k} is more than the {known} elements along axis {self.axis}")
        return simplify(minimum(IntImm(self.k), extent))

    def infer(self, x: Type) -> TensorType | TupleType:
        """Values, positions, or both, with k in place of the extent."""
        data = tensor(self, x, "x")
        if self.ret_type not in ("both", "values", "indices"):
            fail(self, f'ret_type must be "both", "values" or "indices", got {self.ret_type!r}')
        values = data
        if data.ndim >= 0:
            axis = normalize_axis(self, self.axis, data.ndim)
            if data.shape is not None:
                sizes = (*data.shape[:axis], self.count(data.shape[axis]), *data.shape[axis + 1 :])
                values = with_shape(data, sizes)
        positions = TensorType(values.shape, self.dtype, values.ndim, values.device)
        if self.ret_type == "both":
            return TupleType((values, positions))
        return values if self.ret_type == "values" else positions

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer | tuple[Buffer, ...]:
        """Each element's rank, then the elements of the first ranks put there."""
        axis = normalize_axis(self, self.axis, x.ndim)
        count = self.count(x.shape[axis])
        place = ranks(b, x, axis, descending=self.largest)
        wanted: Sequence[tuple[str, DType | None]] = {
            "both": (("values", None), ("indices", self.dtype)),
            "values": (("values", None),),
            "indices": (("indices", self.dtype),),
        }[self.ret_type]
        found = tuple(place_sorted(b, x, axis, place, count, dtype, name) for name, dtype in wanted)
        return found if self.ret_type == "both" else found[0]
