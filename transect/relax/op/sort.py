"""Sorting along an axis: sort, argsort, topk.

All are stable and take NaN as greater than every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.dtype import BOOL, INT32, DType
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    Var,
    as_int,
    cast,
    logical_and,
    logical_not,
    logical_or,
    minimum,
)
from transect.ir.types import TensorType, TupleType, Type
from transect.relax.op.heap import first_positions
from transect.relax.op.inference import (
    analyzer_of,
    fail,
    normalize_axis,
    present,
    shape,
    simplify,
    tensor,
    with_shape,
)
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.op import checked, isnan
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


def sorted_positions(
    b: FunctionBuilder, x: Buffer, axis: int, count: Expr, *, descending: bool
) -> Buffer:
    """The positions of the first `count` elements along the sorted axis, which is the last one of
    the result: int64."""

    def decide(flag: Buffer, row: tuple[Expr, ...], first: Expr, second: Expr) -> Stmt:
        a, c = (x[(*row[:axis], place, *row[axis:])] for place in (first, second))
        return store(flag, (0,), comes_before(a, c, first < second, descending=descending))

    rows = (*x.shape[:axis], *x.shape[axis + 1 :])
    return first_positions(b, rows, x.shape[axis], count, decide)


def pick_sorted(
    b: FunctionBuilder, x: Buffer, axis: int, order: Buffer, dtype: DType | None, name: str
) -> Buffer:
    """The elements at the sorted positions: values, or with `dtype` the positions themselves."""
    sizes = (*x.shape[:axis], order.shape[-1], *x.shape[axis + 1 :])

    def element(*i: Var) -> Expr:
        place = order[(*i[:axis], *i[axis + 1 :], i[axis])]
        return x[(*i[:axis], place, *i[axis + 1 :])] if dtype is None else cast(place, dtype)

    return b.compute(sizes, element, name=name)


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
        """The order of positions, then the element at each."""
        axis = normalize_axis(self, self.axis, x.ndim)
        order = sorted_positions(b, x, axis, x.shape[axis], descending=self.descending)
        return pick_sorted(b, x, axis, order, None, "y")


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
        """The order of positions."""
        axis = normalize_axis(self, self.axis, x.ndim)
        order = sorted_positions(b, x, axis, x.shape[axis], descending=self.descending)
        return pick_sorted(b, x, axis, order, self.dtype, "y")


@dataclass(frozen=True)
class TopK(Operator):
    """topk(x, k, axis, ret_type, largest, dtype, count): the k first of the elements sorted along
    `axis`, in descending order if largest, else ascending; equal ones in the order of x.

    k: at most the extent; below 1 for all. count: a shape of one value that stands for a k that is
    not constant, 0 for none; more than the extent fails. ret_type: "both" (values, positions),
    "values" or "indices". dtype: of the positions. Source: ONNX TopK-11 (sorted).
    """

    name = "topk"
    script_order = ("x", "k", "axis", "ret_type", "largest", "dtype", "count")
    k: int = 1
    axis: int = -1
    ret_type: str = "both"
    largest: bool = True
    dtype: DType = INT32

    def kept(self, extent: Expr, count: tuple[Expr, ...] | None) -> Expr:
        """How many elements are kept of an axis of `extent`."""
        if count is not None:
            if len(count) != 1:
                fail(self, f"count must have one value, got {len(count)}")
            if analyzer_of(extent, count[0]).can_prove(count[0] > extent):
                fail(self, f"k = {count[0]!r} is more than the {extent!r} elements of the axis")
            return count[0]
        if self.k < 1:
            return extent
        known = as_int(extent)
        if known is not None and known < self.k:
            fail(self, f"k = {self.k} is more than the {known} elements along axis {self.axis}")
        return simplify(minimum(IntImm(self.k), extent))

    def infer(self, x: Type, count: Type | None = None) -> TensorType | TupleType:
        """Values, positions, or both, with k in place of the extent."""
        data = tensor(self, x, "x")
        if self.ret_type not in ("both", "values", "indices"):
            fail(self, f'ret_type must be "both", "values" or "indices", got {self.ret_type!r}')
        values = data
        given = shape(self, count, "count") if count is not None and present(count) else None
        if data.ndim >= 0:
            axis = normalize_axis(self, self.axis, data.ndim)
            if data.shape is not None:
                kept = self.kept(data.shape[axis], given)
                values = with_shape(data, (*data.shape[:axis], kept, *data.shape[axis + 1 :]))
        positions = TensorType(values.shape, self.dtype, values.ndim, values.device)
        if self.ret_type == "both":
            return TupleType((values, positions))
        return values if self.ret_type == "values" else positions

    def legalize(
        self, b: FunctionBuilder, x: Buffer, count: tuple[Expr, ...] | None = None
    ) -> Buffer | tuple[Buffer, ...]:
        """The order of the first positions, then the element at each."""
        axis = normalize_axis(self, self.axis, x.ndim)
        extent = x.shape[axis]
        kept = self.kept(extent, count)
        order = sorted_positions(b, x, axis, kept, descending=self.largest)
        if count is not None:
            order = self._checked(b, order, extent)
        wanted: Sequence[tuple[str, DType | None]] = {
            "both": (("values", None), ("indices", self.dtype)),
            "values": (("values", None),),
            "indices": (("indices", self.dtype),),
        }[self.ret_type]
        found = tuple(pick_sorted(b, x, axis, order, dtype, name) for name, dtype in wanted)
        return found if self.ret_type == "both" else found[0]

    def _checked(self, b: FunctionBuilder, order: Buffer, extent: Expr) -> Buffer:
        """The order, or failure where more elements are asked for than there are."""
        kept = order.shape[-1]
        message = (f"{self.name}: k = ", kept, " of an axis of ", extent)

        def element(*i: Var) -> Expr:
            return checked(order[i], kept <= extent, *message, exception="ValueError")

        return b.compute(order.shape, element, name="place")
