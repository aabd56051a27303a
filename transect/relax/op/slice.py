"""Slices of tensors by begin, end and stride, read and written.

Selecting by tensors of indices lives in `index.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.arith import Analyzer
from transect.ir.dtype import INT64
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    Var,
    as_int,
    cast,
    false,
    logical_and,
    maximum,
    minimum,
    not_equal,
    select,
    true,
)
from transect.ir.sizes import ceildiv
from transect.ir.traverse import free_vars
from transect.ir.types import TensorType, TupleType, Type, tensor_type
from transect.relax.expr import Value, tuple_item
from transect.relax.op.inference import (
    common_device,
    common_dtype,
    constant,
    fail,
    normalize_axes,
    present,
    require_same,
    scalar,
    shape,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.operator import Emit, Operator, run_time_shape
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.op import checked, if_then_else
from transect.tir.stmt import Stmt, seq

_END_32 = 2**31 - 1
"""What ONNX says to write for "to the end" where int32 holds the positions."""
_FAR = 2**48
"""No dimension is as large: positions from here on mean "to the end"."""


@dataclass(frozen=True)
class Bounds:
    """One axis of a slice: `count` elements, the first at `start`, `step` apart."""

    start: Expr
    step: Expr
    count: Expr


def slice_bounds(
    op: Operator, size: Expr, begin: Expr, end: Expr, step: Expr, *, inbound: bool = False
) -> Bounds:
    """What begin:end:step selects of an axis of `size`, by Python's rules.

    Negative positions count from the end, those beyond the ends are moved to them. inbound: the
    caller vouches that begin and end need no moving. Of a step whose sign cannot be told, both
    ways are kept. Raises InferenceError for a step of 0.
    """
    begin, end, step = (cast(value, INT64) for value in (begin, end, step))
    analyzer = _analyzer(size)
    forward = _forward(op, step)
    first, last = select(forward, IntImm(0), -1), select(forward, size, size - 1)

    def place(position: Expr) -> Expr:
        number = as_int(position)
        if number is not None:
            if number >= _FAR or number == _END_32:
                return last
            if number <= -_FAR or number in (-_END_32, -_END_32 - 1):
                return first
            moved = position if number >= 0 else size + number
            if inbound:
                return moved
            if number >= 0:
                return minimum(moved, last)
            return maximum(moved, first)
        if inbound and analyzer.can_prove(position >= 0):
            return position
        moved = select(position < 0, position + size, position)
        moved = analyzer.simplify(moved)
        return moved if inbound else minimum(maximum(moved, first), last)

    start, stop = analyzer.simplify(place(begin)), analyzer.simplify(place(end))
    distance = select(forward, stop - start, start - stop)
    stride = select(forward, step, IntImm(0) - step)
    # A stride of 0 is found when elements are read; until then nothing may be divided by it.
    stride = analyzer.simplify(stride if as_int(forward) is not None else maximum(stride, 1))
    count = analyzer.simplify(maximum(ceildiv(distance, stride), 0))
    return Bounds(start, step, count)


def _forward(op: Operator, step: Expr) -> Expr:
    """Whether a step is positive, decided if that can be."""
    if as_int(step) == 0:
        fail(op, "a stride must not be 0")
    if Analyzer().can_prove(step < 0):
        return false()
    return true() if Analyzer().can_prove(step > 0) else step > 0


def _analyzer(size: Expr) -> Analyzer:
    """An Analyzer that knows that `size` and its variables are not negative. Positions may be."""
    analyzer = Analyzer()
    for var in free_vars((size,)):
        analyzer.bind(var, (0, None))
    return analyzer


@dataclass(frozen=True)
class SliceOperator(Operator):
    """Base of the operators with axes, begin, end and strides as operands."""

    assume_inbound: bool = False

    def bounds(
        self,
        sizes: Sequence[Expr],
        axes: Sequence[Expr],
        begin: Sequence[Expr],
        end: Sequence[Expr],
        strides: Sequence[Expr] | None,
    ) -> dict[int, Bounds]:
        """What is selected of each sliced axis."""
        steps = [IntImm(1)] * len(axes) if strides is None else strides
        numbers = [constant(self, axis, "an axis") for axis in axes]
        where = normalize_axes(self, numbers, len(sizes))
        if not len(begin) == len(end) == len(steps) == len(where):
            fail(
                self,
                f"{len(where)} axes, {len(begin)} begins, {len(end)} ends, {len(steps)} strides",
            )
        return {
            axis: slice_bounds(self, sizes[axis], low, high, step, inbound=self.assume_inbound)
            for axis, low, high, step in zip(where, begin, end, steps, strict=True)
        }

    def known_bounds(
        self, x: TensorType, axes: Type, begin: Type, end: Type, strides: Type | None
    ) -> dict[int, Bounds] | None:
        """As `bounds` from the operands' types, None where a position is unknown."""
        stride = None if strides is None or present(strides) is None else strides
        given = [
            shape(self, value, what)
            for value, what in ((axes, "axes"), (begin, "begin"), (end, "end"))
        ]
        steps = None if stride is None else shape(self, stride, "strides")
        where, low, high = given
        if x.shape is None or where is None or low is None or high is None:
            return None
        if stride is not None and steps is None:
            return None
        return self.bounds(x.shape, where, low, high, steps)


@dataclass(frozen=True)
class StridedSlice(SliceOperator):
    """strided_slice(x, axes, begin, end, strides): x[begin:end:stride] along each of `axes`.

    axes: constant. begin, end, strides: shapes (or tuples of scalars), a value for each of the
    axes, by Python's rules; strides: 1 by default.
    assume_inbound: begin and end lie within the axes. Source: ONNX Slice-13.
    """

    name = "strided_slice"

    def infer(
        self, x: Type, axes: Type, begin: Type, end: Type, strides: Type | None = None
    ) -> TensorType:
        """The number of positions selected of each axis."""
        data = tensor(self, x, "x")
        found = self.known_bounds(data, axes, begin, end, strides)
        if found is None or data.shape is None:
            return unknown_like(data)
        return with_shape(
            data,
            [found[axis].count if axis in found else n for axis, n in enumerate(data.shape)],
        )

    def legalize(
        self,
        b: FunctionBuilder,
        x: Buffer,
        axes: tuple[Expr, ...],
        begin: tuple[Expr, ...],
        end: tuple[Expr, ...],
        strides: tuple[Expr, ...] | None = None,
    ) -> Buffer:
        """One map."""
        found = self.bounds(x.shape, axes, begin, end, strides or None)
        sizes = tuple(found[k].count if k in found else n for k, n in enumerate(x.shape))

        def element(*i: Var) -> Expr:
            return x[
                tuple(
                    self._position(found[axis], item) if axis in found else item
                    for axis, item in enumerate(i)
                )
            ]

        return b.compute(sizes, element, name="y")

    def _position(self, bounds: Bounds, item: Expr) -> Expr:
        """The position of element `item` of a slice."""
        place = bounds.start + item * bounds.step
        if as_int(_forward(self, bounds.step)) is not None:
            return place
        moves = not_equal(bounds.step, IntImm(0))
        return checked(place, moves, f"{self.name}: a stride is 0", exception="ValueError")


@dataclass(frozen=True)
class SliceScatter(Operator):
    """slice_scatter(x, values, start, end, step, axis): x with values in place of
    x[start:end:step] along `axis`.

    values: of the type of x but for the extent of the axis, which is the number of positions.
    start, end, step: scalars; step is positive. Source: torch.slice_scatter.
    """

    name = "slice_scatter"
    axis: int = 0

    def bounds(self, x: tuple[Expr, ...], start: Expr, end: Expr, step: Expr | None) -> Bounds:
        """What is overwritten of the axis."""
        (axis,) = normalize_axes(self, self.axis, len(x))
        by = IntImm(1) if step is None else step
        if as_int(_forward(self, cast(by, INT64))) != 1:
            fail(self, "step must be positive")
        return slice_bounds(self, x[axis], start, end, by)

    def infer(
        self, x: Type, values: Type, start: Type, end: Type, step: Type | None = None
    ) -> TensorType:
        """The type of x."""
        data, update = tensor(self, x, "x"), tensor(self, values, "values")
        dtype, device = common_dtype(self, data, update), common_device(self, data, update)
        limits = [scalar(self, start, "start"), scalar(self, end, "end")]
        by = None if step is None or present(step) is None else scalar(self, step, "step")
        if data.shape is not None and update.shape is not None:
            (axis,) = normalize_axes(self, self.axis, data.ndim)
            if update.ndim != data.ndim:
                fail(self, f"values must have {data.ndim} dimensions, got {update.ndim}")
            found = self.bounds(data.shape, limits[0], limits[1], by)
            for k, size in enumerate(update.shape):
                wanted = found.count if k == axis else data.shape[k]
                require_same(self, size, wanted, f"the extents of axis {k}")
        return TensorType(data.shape, dtype, data.ndim, device)

    def legalize(
        self,
        b: FunctionBuilder,
        x: Buffer,
        values: Buffer,
        start: Expr,
        end: Expr,
        step: Expr | None = None,
    ) -> Buffer:
        """One map that chooses between the two tensors."""
        (axis,) = normalize_axes(self, self.axis, x.ndim)
        found = self.bounds(x.shape, start, end, step)

        def element(*i: Var) -> Expr:
            offset = i[axis] - found.start
            number = offset // found.step
            inside = logical_and(
                offset >= 0, EQ(offset % found.step, IntImm(0)), number < found.count
            )
            return if_then_else(inside, values[(*i[:axis], number, *i[axis + 1 :])], x[i])

        return b.compute(x.shape, element, name="y")


@dataclass(frozen=True)
class RunTimeBounds(Operator):
    """What begin:end:stride selects of every axis of x, by Python's rules, for vectors whose
    elements only the run knows: int64 (2, rank), the first positions and the steps, and int64
    (rank,), the counts."""

    name = "run_time_bounds"

    def infer(self, x: Type, begin: Type, end: Type, strides: Type) -> TupleType:
        """Two tensors."""
        rank = IntImm(max(tensor(self, x, "x").ndim, 0))
        return TupleType((tensor_type((IntImm(2), rank), INT64), tensor_type((rank,), INT64)))

    def legalize(
        self, b: FunctionBuilder, x: Buffer, begin: Buffer, end: Buffer, strides: Buffer
    ) -> tuple[Buffer, Buffer]:
        """A few numbers for each axis."""
        places = b.allocate((IntImm(2), IntImm(x.ndim)), INT64, name="places")
        counts = b.allocate((IntImm(x.ndim),), INT64, name="counts")

        def write(_: Var) -> Stmt:
            stores: list[Stmt] = []
            for axis, size in enumerate(x.shape):
                at = (IntImm(axis),)
                step = checked(
                    strides[at], not_equal(strides[at], IntImm(0)), "a stride of a slice is 0"
                )
                forward = strides[at] > 0
                first = select(forward, IntImm(0), IntImm(-1))
                last = select(forward, size, size - 1)

                def place(position: Expr, size: Expr, first: Expr, last: Expr) -> Expr:
                    moved = select(position < 0, position + size, position)
                    return minimum(maximum(moved, first), last)

                start = place(begin[at], size, first, last)
                stop = place(end[at], size, first, last)
                # Rounded up, away from the end that is not reached; none if it lies behind.
                distance = select(forward, stop - start, start - stop)
                stride = maximum(select(forward, strides[at], IntImm(0) - strides[at]), 1)
                count = maximum((distance + stride - 1) // stride, 0)
                stores.append(store(places, (0, axis), start))
                stores.append(store(places, (1, axis), step))
                stores.append(store(counts, at, count))
            return seq(*stores)

        b.block((IntImm(1),), write, name="bounds")
        return places, counts


@dataclass(frozen=True)
class SliceAt(Operator):
    """slice_at(x, places, counts): the elements of x that RunTimeBounds found."""

    name = "slice_at"

    def infer(self, x: Type, places: Type, counts: Type) -> TensorType:
        """One dimension for each count."""
        data = tensor(self, x, "x")
        return tensor_type(shape(self, counts, "counts"), data.dtype, data.ndim, data.device)

    def legalize(
        self, b: FunctionBuilder, x: Buffer, places: Buffer, counts: tuple[Expr, ...]
    ) -> Buffer:
        """One map."""

        def element(*i: Var) -> Expr:
            return x[tuple(places[0, k] + item * places[1, k] for k, item in enumerate(i))]

        return b.compute(counts, element, name="y")


@dataclass(frozen=True)
class DynamicStridedSlice(Operator):
    """dynamic_strided_slice(x, begin, end, strides): x[begin:end:stride] along every axis, the
    positions known only at run time.

    begin, end, strides: int64 vectors with one element for each axis. Result: of unknown shape;
    bind it with match_cast. Source: Relax dynamic_strided_slice.
    """

    name = "dynamic_strided_slice"

    def infer(self, x: Type, begin: Type, end: Type, strides: Type) -> TensorType:
        """The rank of x."""
        data = tensor(self, x, "x")
        for value, what in ((begin, "begin"), (end, "end"), (strides, "strides")):
            vector = tensor(self, value, what)
            if vector.ndim not in (-1, 1) or vector.dtype not in (None, INT64):
                fail(self, f"{what} must be an int64 vector, got {value!r}")
            if data.ndim >= 0 and vector.shape is not None:
                require_same(
                    self, vector.shape[0], IntImm(data.ndim), f"the size of {what} and the rank"
                )
        return unknown_like(data)

    def decompose(self, emit: Emit, x: Value, begin: Value, end: Value, strides: Value) -> Value:
        """The bounds, the shape that they give, then the elements."""
        found = emit(RunTimeBounds()(x, begin, end, strides))
        places, counts = (emit(tuple_item(found, number)) for number in range(2))
        return SliceAt()(x, places, run_time_shape(emit, counts))
