"""Operators that look for elements: positions of extrema, places in sorted boundaries, non-zeros.

Sorting lives in `sort.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import INT32, INT64
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
    select,
)
from transect.ir.types import TensorType, TupleType, Type, tensor_type
from transect.relax.expr import Value
from transect.relax.op.data_size import CountNonzero, NonzeroPositions
from transect.relax.op.inference import (
    common_dtype,
    fail,
    normalize_axis,
    product,
    require_rank,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import flatten_index, reduce
from transect.relax.op.operator import Emit, Operator, run_time_shape
from transect.tir.buffer import Buffer
from transect.tir.builder import Combiner, FunctionBuilder
from transect.tir.op import highest, isnan, lowest


def arg_combiner(*, largest: bool, last: bool = False) -> Combiner:
    """(index, value) of the extreme value: the first NaN if there is one, else the first of the
    equal ones, as numpy's argmax; with `last` the last of them."""

    def combine(a: tuple[Expr, ...], b: tuple[Expr, ...]) -> tuple[Expr, ...]:
        beats = a[1] > b[1] if largest else a[1] < b[1]
        tie = EQ(a[1], b[1])
        if a[1].dtype.is_float:
            nan_a, nan_b = isnan(a[1]), isnan(b[1])
            beats = logical_or(logical_and(nan_a, logical_not(nan_b)), beats)
            beats = logical_and(beats, logical_or(nan_a, logical_not(nan_b)))
            tie = logical_or(tie, logical_and(nan_a, nan_b))
        keep = logical_or(beats, logical_and(tie, a[0] > b[0] if last else a[0] < b[0]))
        return select(keep, a[0], b[0]), select(keep, a[1], b[1])

    start = lowest if largest else highest
    return Combiner(
        "argmax" if largest else "argmin",
        # The index starts beyond all others, so that an element equal to the start value wins.
        lambda dtypes: ((lowest if last else highest)(dtypes[0]), start(dtypes[1])),
        combine,
    )


@dataclass(frozen=True)
class ArgReduction(Operator):
    """Base of the positions of extrema along `axis`, or in the flattened tensor for None."""

    largest: ClassVar[bool] = True

    axis: int | None = None
    keepdims: bool = False
    select_last_index: bool = False

    def infer(self, x: Type) -> TensorType:
        """int64, with the other dimensions."""
        data = tensor(self, x, "x")
        if data.dtype is not None and data.dtype.is_bool:
            fail(self, "x must have a numeric dtype, got bool", 'cast it: R.astype(x, "int8")')
        if data.ndim < 0:
            if self.axis is None and not self.keepdims:
                return with_shape(data, (), INT64)
            return unknown_like(data, INT64)
        axes = (
            tuple(range(data.ndim))
            if self.axis is None
            else (normalize_axis(self, self.axis, data.ndim),)
        )
        if data.shape is None:
            rank = data.ndim if self.keepdims else data.ndim - len(axes)
            return unknown_like(data, INT64, rank)
        if any(as_int(data.shape[axis]) == 0 for axis in axes):
            fail(self, "there is no position in an axis of extent 0")
        sizes = [
            1 if axis in axes else size
            for axis, size in enumerate(data.shape)
            if self.keepdims or axis not in axes
        ]
        return with_shape(data, sizes, INT64)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One reduction of (position, value)."""
        axes = (
            tuple(range(x.ndim))
            if self.axis is None
            else (normalize_axis(self, self.axis, x.ndim),)
        )
        kept = [axis for axis in range(x.ndim) if self.keepdims or axis not in axes]
        sizes = tuple(IntImm(1) if axis in axes else x.shape[axis] for axis in kept)
        inner = tuple(x.shape[axis] for axis in axes)

        def element(*i: Expr) -> tuple[Expr, Expr]:
            place = dict(zip(kept, i, strict=False))
            place.update(zip(axes, i[len(kept) :], strict=True))
            position = flatten_index(i[len(kept) :], inner)
            return position, x[tuple(place[axis] for axis in range(x.ndim))]

        if not axes:
            return b.compute(sizes, _first, name="index", dtype=INT64)
        combiner = arg_combiner(largest=self.largest, last=self.select_last_index)
        found = b.reduce_with(combiner, sizes, inner, element, names=("index", "value"))
        return found[0]


def _first(*i: Var) -> Expr:
    del i
    return IntImm(0)


@dataclass(frozen=True)
class Argmax(ArgReduction):
    """argmax(x, axis, keepdims, select_last_index): the int64 position of the greatest element, the
    first of equal ones, or the last; a NaN counts as the greatest. Source: ONNX ArgMax-13.
    """

    name = "argmax"


@dataclass(frozen=True)
class Argmin(ArgReduction):
    """argmin(x, axis, keepdims, select_last_index): the int64 position of the least element, the
    first of equal ones, or the last;
    a NaN counts as the least. Source: ONNX ArgMin-13, numpy.argmin.
    """

    name = "argmin"
    largest = False


@dataclass(frozen=True)
class Bucketize(Operator):
    """bucketize(x, boundaries): for each element the number of boundaries below it; with `right`
    the number of boundaries not above it.

    boundaries: a vector in ascending order, of the dtype of x. Result: int64, or int32 with
    out_int32. Source: torch.bucketize.
    """

    name = "bucketize"
    out_int32: bool = False
    right: bool = False

    def infer(self, x: Type, boundaries: Type) -> TensorType:
        """The shape of x."""
        data, marks = tensor(self, x, "x"), tensor(self, boundaries, "boundaries")
        common_dtype(self, data, marks)
        require_rank(self, marks, 1, "boundaries")
        dtype = INT32 if self.out_int32 else INT64
        return TensorType(data.shape, dtype, data.ndim, data.device)

    def legalize(self, b: FunctionBuilder, x: Buffer, boundaries: Buffer) -> Buffer:
        """A count of all boundaries that are passed: no search, so that it vectorizes."""
        dtype = INT32 if self.out_int32 else INT64

        def passed(*i: Expr) -> Expr:
            value, mark = x[i[:-1]], boundaries[i[-1]]
            # A NaN is above all boundaries, as in sorting.
            beyond = logical_not(value < mark) if self.right else logical_not(value <= mark)
            return select(beyond, const(1, dtype), const(0, dtype))

        return reduce(b, x.shape, boundaries.shape, passed, "sum", "y")


@dataclass(frozen=True)
class Nonzero(Operator):
    """nonzero(x): the positions of the elements that are not zero, in row-major order.

    Result: int64 (rank of x, number found), known only at run time: bind it with match_cast.
    Source: ONNX NonZero-13.
    """

    name = "nonzero"

    def infer(self, x: Type) -> TensorType:
        """Two dimensions, unknown."""
        return unknown_like(tensor(self, x, "x"), INT64, 2)

    def decompose(self, emit: Emit, x: Value) -> Value:
        """A count, then as many positions."""
        return NonzeroPositions()(x, run_time_shape(emit, emit(CountNonzero()(x))))


@dataclass(frozen=True)
class Unique(Operator):
    """unique(x): the distinct elements, in ascending order or (not sorted) of first appearance,
    and as asked the positions of their first appearance, the inverse map, and their counts.

    axis: compare slices along it; None for the elements of the flattened tensor. Result: the
    values alone, or a tuple of them and of what was asked, of unknown extents: bind them with
    match_cast. Source: ONNX Unique-11.
    """

    name = "unique"
    sorted: bool = True
    return_index: bool = False
    return_inverse: bool = False
    return_counts: bool = False
    axis: int | None = None

    def infer(self, x: Type) -> TensorType | TupleType:
        """Tensors of unknown shape."""
        data = tensor(self, x, "x")
        if self.axis is not None and data.ndim >= 0:
            normalize_axis(self, self.axis, data.ndim)
        values = unknown_like(data, ndim=1 if self.axis is None else data.ndim)
        size = None
        if data.shape is not None and data.ndim > 0:
            size = (
                product(data.shape)
                if self.axis is None
                else data.shape[normalize_axis(self, self.axis, data.ndim)]
            )
        inverse = (
            unknown_like(data, INT64, 1)
            if size is None
            else tensor_type((cast(size, INT64),), INT64, device=data.device)
        )
        extra = [
            kind
            for wanted, kind in (
                (self.return_index, unknown_like(data, INT64, 1)),
                (self.return_inverse, inverse),
                (self.return_counts, unknown_like(data, INT64, 1)),
            )
            if wanted
        ]
        return TupleType((values, *extra)) if extra else values


@dataclass(frozen=True)
class Size(Operator):
    """size(x): the number of elements, as an int64 tensor of rank 0. Source: ONNX Size-21."""

    name = "size"

    def infer(self, x: Type) -> TensorType:
        """int64, rank 0."""
        return with_shape(tensor(self, x, "x"), (), INT64)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One element."""

        def element() -> Expr:
            return cast(product(x.shape), INT64)

        return b.compute((), element, name="y", dtype=INT64)
