"""Operators that make tensors from shapes and scalars: constants, ranges, masks, triangles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import FLOAT32, FLOAT64, INT64, DType
from transect.ir.expr import (
    EQ,
    Expr,
    FloatImm,
    IntImm,
    Var,
    as_int,
    cast,
    const,
    maximum,
    not_equal,
    select,
)
from transect.ir.sizes import ceildiv
from transect.ir.types import PrimType, TensorType, Type, tensor_type
from transect.relax.op.inference import (
    as_sizes,
    common_dtype,
    fail,
    present,
    scalar,
    shape,
    shape_rank,
    simplify,
    tensor,
    tensor_or_scalar,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import (
    TensorOperand,
    load,
    math,
    promoted,
    result_shape,
    result_type,
)
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import abs as absolute
from transect.tir.op import ceil, checked


def _filled_type(op: Operator, sizes: Type, dtype: DType | None) -> TensorType:
    values = shape(op, sizes, "shape")
    if values is None:
        return tensor_type(None, dtype, shape_rank(op, sizes, "shape"))
    return tensor_type(as_sizes(values), dtype)


def _fill(b: FunctionBuilder, sizes: tuple[Expr, ...], value: Expr) -> Buffer:
    def element(*i: Var) -> Expr:
        del i
        return value

    return b.compute(sizes, element, name="y", dtype=value.dtype)


@dataclass(frozen=True)
class Full(Operator):
    """full(shape, fill_value, dtype): a tensor of one value.

    fill_value: a scalar or a tensor of rank 0. dtype: that of the value by default.
    Source: ONNX ConstantOfShape-23, array API full.
    """

    name = "full"
    dtype: DType | None = None

    def infer(self, shape: Type, fill_value: Type) -> TensorType:
        """The given shape."""
        value = tensor_or_scalar(self, fill_value, "fill_value")
        if value.ndim > 0:
            fail(self, f"fill_value must be a scalar, got {fill_value!r}")
        return _filled_type(self, shape, value.dtype if self.dtype is None else self.dtype)

    def legalize(
        self, b: FunctionBuilder, shape: tuple[Expr, ...], fill_value: TensorOperand
    ) -> Buffer:
        """One map."""
        value = load(fill_value, (), ())
        return _fill(b, shape, cast(value, self.dtype or value.dtype))


@dataclass(frozen=True)
class FullLike(Operator):
    """full_like(x, fill_value, dtype): a tensor of one value with the shape of x.

    fill_value: a scalar or a tensor of rank 0. dtype: that of x by default.
    Source: array API full_like.
    """

    name = "full_like"
    dtype: DType | None = None

    def infer(self, x: Type, fill_value: Type) -> TensorType:
        """The shape of x."""
        x = tensor(self, x, "x")
        if tensor_or_scalar(self, fill_value, "fill_value").ndim > 0:
            fail(self, f"fill_value must be a scalar, got {fill_value!r}")
        return TensorType(x.shape, self.dtype or x.dtype, x.ndim, x.device)

    def legalize(self, b: FunctionBuilder, x: Buffer, fill_value: TensorOperand) -> Buffer:
        """One map."""
        return _fill(b, x.shape, cast(load(fill_value, (), ()), self.dtype or x.dtype))


@dataclass(frozen=True)
class Filled(Operator):
    """Base of the tensors of a fixed value."""

    value: ClassVar[int] = 0
    dtype: DType = FLOAT32

    def infer(self, shape: Type) -> TensorType:
        """The given shape."""
        return _filled_type(self, shape, self.dtype)

    def legalize(self, b: FunctionBuilder, shape: tuple[Expr, ...]) -> Buffer:
        """One map."""
        return _fill(b, shape, const(self.value, self.dtype))


@dataclass(frozen=True)
class Zeros(Filled):
    """zeros(shape, dtype): a tensor of zeros. Source: array API zeros."""

    name = "zeros"


@dataclass(frozen=True)
class Ones(Filled):
    """ones(shape, dtype): a tensor of ones. Source: array API ones."""

    name = "ones"
    value = 1


@dataclass(frozen=True)
class FilledLike(Operator):
    """Base of the tensors of a fixed value with another's shape."""

    value: ClassVar[int] = 0
    dtype: DType | None = None

    def infer(self, x: Type) -> TensorType:
        """The shape of x."""
        x = tensor(self, x, "x")
        return TensorType(x.shape, self.dtype or x.dtype, x.ndim, x.device)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        return _fill(b, x.shape, const(self.value, self.dtype or x.dtype))


@dataclass(frozen=True)
class ZerosLike(FilledLike):
    """zeros_like(x, dtype): zeros with the shape, and by default the dtype, of x.

    Source: array API zeros_like.
    """

    name = "zeros_like"


@dataclass(frozen=True)
class OnesLike(FilledLike):
    """ones_like(x, dtype): ones with the shape, and by default the dtype, of x.

    Source: array API ones_like.
    """

    name = "ones_like"
    value = 1


# --- ranges and diagonals ----------------------------------------------------------------------


@dataclass(frozen=True)
class Arange(Operator):
    """arange(start, end, step, dtype): start, start + step, … while before end.

    One scalar alone is the end, the start then 0. step: not 0, 1 by default. Element k is
    start + k * step. dtype: by default float32 if a scalar is a float, else int64.
    Result: max(ceil((end - start) / step), 0) elements. Source: ONNX Range-11, array API arange.
    """

    name = "arange"
    dtype: DType | None = None

    def infer(self, start: Type, end: Type | None = None, step: Type | None = None) -> TensorType:
        """One dimension. Raises InferenceError where the sign of a symbolic step is unknown."""
        given = [present(start), present(end), present(step)]
        low, high, by = _range(
            *(None if kind is None else scalar(self, kind, "a limit") for kind in given)
        )
        dtype = self.dtype or _range_dtype(low, high, by)
        return tensor_type((self.length(low, high, by),), dtype)

    def length(self, low: Expr, high: Expr, by: Expr) -> Expr:
        """The number of elements."""
        if all(isinstance(value, IntImm | FloatImm) for value in (low, high, by)):
            first, last, step = (_number(value) for value in (low, high, by))
            if step == 0:
                fail(self, "step must not be 0")
            return IntImm(max(-int((first - last) // step), 0))
        if any(value.dtype.is_float for value in (low, high, by)):
            fail(self, "the limits of a range of floats must be constant")
        step = as_int(by)
        if step is None:
            fail(self, f"the step of a symbolic range must be constant, got {by!r}")
        if step == 0:
            fail(self, "step must not be 0")
        low, high = as_sizes((low, high))
        distance = high - low if step > 0 else low - high
        return simplify(maximum(ceildiv(distance, abs(step)), 0))

    def legalize(
        self, b: FunctionBuilder, start: Expr, end: Expr | None = None, step: Expr | None = None
    ) -> Buffer:
        """One map."""
        low, high, by = _range(start, end, step)
        dtype = self.dtype or _range_dtype(low, high, by)
        work = dtype if dtype.is_float and dtype.bits >= 32 else _range_dtype(low, high, by)

        def element(i: Var) -> Expr:
            return cast(cast(low, work) + cast(i, work) * cast(by, work), dtype)

        return b.compute((self.length(low, high, by),), element, name="y", dtype=dtype)


_MOST_STEPS = float(2**63)
"""More elements, or integers further apart, than int64 can count."""


@dataclass(frozen=True)
class ArangeSize(Operator):
    """arange_size(start, end, step): the number of elements of a range, as an int64 vector of one.

    start, end, step: tensors of rank 0 (or of one element) of one dtype, known only at run time.
    A step of 0 fails, and a range that has no end. Source: ONNX Range-11.
    """

    name = "arange_size"

    def infer(self, start: Type, end: Type, step: Type) -> TensorType:
        """(1,)."""
        limits = [tensor(self, kind, "a limit") for kind in (start, end, step)]
        common_dtype(self, *limits)
        return tensor_type((IntImm(1),), INT64)

    def legalize(self, b: FunctionBuilder, start: Buffer, end: Buffer, step: Buffer) -> Buffer:
        """One element."""
        low, high, by = (item[(IntImm(0),) * item.ndim] for item in (start, end, step))
        zero = const(0, by.dtype)
        moves = not_equal(by, zero)
        if by.dtype.is_float:
            steps = promoted(high - low) / promoted(by)
            ends = steps < const(_MOST_STEPS, steps.dtype)
            count = cast(ceil(maximum(steps, const(0, steps.dtype))), INT64)
        else:
            span = cast(high, FLOAT64) - cast(low, FLOAT64)
            ends = absolute(span) < const(_MOST_STEPS, FLOAT64)
            # The distance may leave the range of a narrow dtype.
            low, high, by = (cast(value, INT64) for value in (low, high, by))
            down_by = maximum(-maximum(by, -(2**63 - 1)), 1)
            count = select(
                by > 0, ceildiv(high - low, maximum(by, 1)), ceildiv(low - high, down_by)
            )

        def element(i: Var) -> Expr:
            del i
            size = checked(maximum(count, 0), ends, "range: it has no end", exception="ValueError")
            return checked(size, moves, "range: the step is 0", exception="ValueError")

        return b.compute((IntImm(1),), element, name="y", dtype=INT64)


@dataclass(frozen=True)
class ArangeTensor(Operator):
    """arange_tensor(start, step, extent): start, start + step, … in as many elements as the shape
    `extent` of one value says.

    start, step: tensors of rank 0 of one dtype, that of the result, known only at run time.
    Source: ONNX Range-11.
    """

    name = "arange_tensor"

    def infer(self, start: Type, step: Type, extent: Type) -> TensorType:
        """The extent."""
        dtype = common_dtype(self, tensor(self, start, "start"), tensor(self, step, "step"))
        sizes = shape(self, extent, "extent")
        return tensor_type(sizes, dtype, 1)

    def legalize(
        self, b: FunctionBuilder, start: Buffer, step: Buffer, extent: tuple[Expr, ...]
    ) -> Buffer:
        """One map."""
        low, by = (item[(IntImm(0),) * item.ndim] for item in (start, step))
        work = FLOAT32 if low.dtype.is_float and low.dtype.bits < 32 else low.dtype

        def element(i: Var) -> Expr:
            return cast(cast(low, work) + cast(i, work) * cast(by, work), low.dtype)

        return b.compute(extent, element, name="y", dtype=low.dtype)


def _range(start: Expr | None, end: Expr | None, step: Expr | None) -> tuple[Expr, Expr, Expr]:
    first = IntImm(0) if start is None else start
    by = IntImm(1) if step is None else step
    return (IntImm(0), first, by) if end is None else (first, end, by)


def _range_dtype(*values: Expr) -> DType:
    return FLOAT32 if any(value.dtype.is_float for value in values) else INT64


def _number(value: Expr) -> float:
    assert isinstance(value, IntImm | FloatImm)
    return value.value


@dataclass(frozen=True)
class Triangle(Operator):
    """Base of the operators that keep one side of a diagonal of matrices."""

    def keep(self, row: Expr, column: Expr, k: Expr) -> Expr:
        """Whether an element is kept."""
        raise NotImplementedError(f"{type(self).__name__}.keep")

    def infer(self, x: Type, k: Type | None = None) -> TensorType:
        """The type of x."""
        x = tensor(self, x, "x")
        if x.ndim in (0, 1):
            fail(self, f"x must have at least 2 dimensions, got {x.ndim}")
        if k is not None and present(k) is not None and not isinstance(k, PrimType):
            fail(self, f"k must be a scalar, got {k!r}")
        return x

    def legalize(self, b: FunctionBuilder, x: Buffer, k: Expr | None = None) -> Buffer:
        """One map."""
        offset = IntImm(0) if k is None else cast(k, INT64)

        def element(*i: Var) -> Expr:
            return select(self.keep(i[-2], i[-1], offset), x[i], const(0, x.dtype))

        return b.compute(x.shape, element, name="y")


@dataclass(frozen=True)
class Triu(Triangle):
    """triu(x, k): x with zeros below diagonal k of each matrix.

    x: (..., n, m). k: a scalar, 0 by default, above the main diagonal if positive.
    Source: ONNX Trilu-14.
    """

    name = "triu"

    def keep(self, row: Expr, column: Expr, k: Expr) -> Expr:
        """column >= row + k."""
        return column >= row + k


@dataclass(frozen=True)
class Tril(Triangle):
    """tril(x, k): x with zeros above diagonal k of each matrix.

    x: (..., n, m). k: a scalar, 0 by default, above the main diagonal if positive.
    Source: ONNX Trilu-14.
    """

    name = "tril"

    def keep(self, row: Expr, column: Expr, k: Expr) -> Expr:
        """column <= row + k."""
        return column <= row + k


@dataclass(frozen=True)
class Eye(Operator):
    """eye(n, m, k, dtype): ones on diagonal k of an n × m matrix, else zeros.

    n, m, k: scalars; m is n and k is 0 by default. Source: ONNX EyeLike-22, array API eye.
    """

    name = "eye"
    dtype: DType = FLOAT32

    def infer(self, n: Type, m: Type | None = None, k: Type | None = None) -> TensorType:
        """(n, m)."""
        rows = scalar(self, n, "n")
        columns = rows if m is None or present(m) is None else scalar(self, m, "m")
        if k is not None and present(k) is not None:
            scalar(self, k, "k")
        return tensor_type(as_sizes((rows, columns)), self.dtype)

    def legalize(
        self, b: FunctionBuilder, n: Expr, m: Expr | None = None, k: Expr | None = None
    ) -> Buffer:
        """One map."""
        offset = IntImm(0) if k is None else cast(k, INT64)

        def element(i: Var, j: Var) -> Expr:
            return select(EQ(j, i + offset), const(1, self.dtype), const(0, self.dtype))

        return b.compute(result_shape(self, n, m, k), element, name="y", dtype=self.dtype)


@dataclass(frozen=True)
class EyeLike(Operator):
    """eye_like(x, k, dtype): ones on diagonal k of a matrix with the shape of x, else zeros.

    x: (n, m). k: a scalar, 0 by default. dtype: that of x by default. Source: ONNX EyeLike-22.
    """

    name = "eye_like"
    dtype: DType | None = None

    def infer(self, x: Type, k: Type | None = None) -> TensorType:
        """The shape of x."""
        x = tensor(self, x, "x")
        if x.ndim not in (-1, 2):
            fail(self, f"x must have 2 dimensions, got {x.ndim}")
        if k is not None and present(k) is not None:
            scalar(self, k, "k")
        return TensorType(x.shape, self.dtype or x.dtype, x.ndim, x.device)

    def legalize(self, b: FunctionBuilder, x: Buffer, k: Expr | None = None) -> Buffer:
        """One map."""
        offset = IntImm(0) if k is None else cast(k, INT64)
        dtype = self.dtype or x.dtype

        def element(i: Var, j: Var) -> Expr:
            return select(EQ(j, i + offset), const(1, dtype), const(0, dtype))

        return b.compute(x.shape, element, name="y", dtype=dtype)


@dataclass(frozen=True)
class OneHot(Operator):
    """one_hot(indices, on_value, off_value, extent, depth, axis): a new axis of extent `depth`,
    with on_value at the position that the index names and off_value elsewhere.

    indices: integer; a negative one counts from the end, one out of range gives off_value
    everywhere. on_value, off_value: scalars of one dtype, that of the result. extent: a shape of
    one value that stands for a depth that is not constant. axis: of the result.
    Source: ONNX OneHot-11.
    """

    name = "one_hot"
    script_order = ("indices", "on_value", "off_value", "depth", "axis", "extent")
    depth: int | None = None
    axis: int = -1

    def infer(
        self, indices: Type, on_value: Type, off_value: Type, extent: Type | None = None
    ) -> TensorType:
        """The dimensions of the indices with the new one among them."""
        places = tensor(self, indices, "indices")
        if places.dtype is not None and not places.dtype.is_integral:
            fail(self, f"indices must be integers, got {places.dtype}")
        on = tensor_or_scalar(self, on_value, "on_value")
        off = tensor_or_scalar(self, off_value, "off_value")
        if on.dtype is not off.dtype or on.ndim > 0 or off.ndim > 0:
            fail(self, f"the values must be scalars of one dtype: {on_value!r}, {off_value!r}")
        size = shape(self, extent, "extent") if extent is not None and present(extent) else None
        if places.ndim < 0:
            return unknown_like(places, on.dtype)
        axis = self._axis(places.ndim)
        if places.shape is None:
            return unknown_like(places, on.dtype, places.ndim + 1)
        size = self._depth(size)
        return with_shape(places, [*places.shape[:axis], size, *places.shape[axis:]], on.dtype)

    def _depth(self, extent: tuple[Expr, ...] | None) -> Expr:
        if (self.depth is None) == (extent is None) or (extent is not None and len(extent) != 1):
            fail(self, "give a depth, or an extent of one value")
        if extent is not None:
            return extent[0]
        assert self.depth is not None
        if self.depth < 0:
            fail(self, f"depth must not be negative, got {self.depth}")
        return IntImm(self.depth)

    def _axis(self, ndim: int) -> int:
        if not -ndim - 1 <= self.axis <= ndim:
            fail(self, f"axis {self.axis} is out of range for {ndim + 1} dimensions")
        return self.axis % (ndim + 1)

    def legalize(
        self,
        b: FunctionBuilder,
        indices: Buffer,
        on_value: TensorOperand,
        off_value: TensorOperand,
        extent: tuple[Expr, ...] | None = None,
    ) -> Buffer:
        """One map."""
        axis = self._axis(indices.ndim)
        result = result_type(self, indices, on_value, off_value, extent)
        depth = self._depth(extent)

        def element(*i: Var) -> Expr:
            place = cast(indices[(*i[:axis], *i[axis + 1 :])], INT64)
            place = select(place < 0, place + depth, place)
            return select(EQ(i[axis], place), load(on_value, (), ()), load(off_value, (), ()))

        return b.compute(result.shape or (), element, name="y", dtype=result.dtype)


@dataclass(frozen=True)
class HammingWindow(Operator):
    """hamming_window(window_size, periodic, alpha, beta, dtype): alpha - beta * cos(2πk / N).

    window_size: the number of elements, a scalar. N is that number if periodic, else one less.
    Source: ONNX HammingWindow-17, torch.hamming_window.
    """

    name = "hamming_window"
    periodic: bool = True
    alpha: float = 0.54
    beta: float = 0.46
    dtype: DType = FLOAT32

    def infer(self, window_size: Type) -> TensorType:
        """One dimension."""
        if not self.dtype.is_float:
            fail(self, f"dtype must be a float one, got {self.dtype}")
        return tensor_type(as_sizes((scalar(self, window_size, "window_size"),)), self.dtype)

    def legalize(self, b: FunctionBuilder, window_size: Expr) -> Buffer:
        """One map; a window of one element is 1."""
        (size,) = result_shape(self, window_size)
        work = self.dtype if self.dtype.bits >= 32 else FLOAT32
        period = maximum(size if self.periodic else size - 1, 1)

        def element(i: Var) -> Expr:
            angle = cast(i, work) * const(6.283185307179586, work) / cast(period, work)
            value = const(self.alpha, work) - const(self.beta, work) * math("cos", angle)
            return cast(select(EQ(size, IntImm(1)), const(1, work), value), self.dtype)

        return b.compute((size,), element, name="y", dtype=self.dtype)
