"""Operators that reduce axes of a tensor: sums, products, extrema, means and spreads.

Positions of extrema live in `search.py`, running sums in `statistical.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import DType
from transect.ir.expr import Expr, IntImm, Var, as_int, cast
from transect.ir.types import TensorType, Type
from transect.relax.expr import Op
from transect.relax.op.inference import (
    as_sizes,
    fail,
    normalize_axes,
    product,
    require_float,
    require_number,
    require_same,
    shape,
    shape_rank,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import accumulator, math, reduce
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


def reduce_axes(
    b: FunctionBuilder,
    sizes: Sequence[Expr],
    axes: Sequence[int],
    value: Callable[..., Expr],
    combiner: str,
    name: str,
    *,
    keepdims: bool = False,
) -> Buffer:
    """The block that combines `value(*indices)` over `axes` of a box of `sizes`.

    The result has the remaining axes in order; with `keepdims` the others too, of extent 1.
    """
    kept = [axis for axis in range(len(sizes)) if keepdims or axis not in axes]
    shape = tuple(IntImm(1) if axis in axes else sizes[axis] for axis in kept)

    def element(*i: Var) -> Expr:
        indices: dict[int, Expr] = dict(zip(kept, i, strict=False))
        indices.update(zip(axes, i[len(kept) :], strict=True))
        return value(*(indices[axis] for axis in range(len(sizes))))

    if not axes:
        return b.compute(shape, element, name=name)
    return reduce(b, shape, tuple(sizes[axis] for axis in axes), element, combiner, name)


@dataclass(frozen=True)
class Reduction(Operator):
    """Base of the reductions over `axis` (an axis, several, or None for all of them).

    keepdims: reduced axes stay, with extent 1.
    """

    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False

    def check(self, x: TensorType) -> None:
        """Refuse an operand whose dtype does not fit."""
        require_number(self, x)

    def infer(self, x: Type) -> TensorType:
        """The remaining dimensions, with the dtype of x."""
        x = tensor(self, x, "x")
        self.check(x)
        if x.ndim < 0:
            everything = self.axis is None and not self.keepdims
            return with_shape(x, ()) if everything else unknown_like(x)
        axes = normalize_axes(self, self.axis, x.ndim)
        if x.shape is None:
            return unknown_like(x, ndim=x.ndim if self.keepdims else x.ndim - len(axes))
        return with_shape(
            x,
            [
                1 if axis in axes else size
                for axis, size in enumerate(x.shape)
                if self.keepdims or axis not in axes
            ],
        )

    def reduce(
        self, b: FunctionBuilder, x: Buffer, value: Callable[..., Expr], combiner: str, name: str
    ) -> Buffer:
        """The block that combines `value(*indices of x)` over the operator's axes."""
        axes = normalize_axes(self, self.axis, x.ndim)
        return reduce_axes(b, x.shape, axes, value, combiner, name, keepdims=self.keepdims)

    def count(self, x: Buffer, dtype: DType) -> Expr:
        """How many elements are combined into one."""
        axes = normalize_axes(self, self.axis, x.ndim)
        return cast(product(x.shape[axis] for axis in axes), dtype)


@dataclass(frozen=True)
class Accumulation(Reduction):
    """Base of sums and products. Floats narrower than float32 accumulate in float32."""

    combiner: ClassVar[str] = "sum"

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One reduction, and a conversion of narrow floats."""
        wide = accumulator(x.dtype)

        def element(*i: Expr) -> Expr:
            return cast(x[i], wide)

        return narrow(b, self.reduce(b, x, element, self.combiner, "total"), x.dtype)


def narrow(b: FunctionBuilder, x: Buffer, dtype: DType) -> Buffer:
    """`x` converted to `dtype`; `x` itself where it has that dtype."""
    if x.dtype is dtype:
        return x

    def element(*i: Var) -> Expr:
        return cast(x[i], dtype)

    return b.compute(x.shape, element, name="y", dtype=dtype)


@dataclass(frozen=True)
class Sum(Accumulation):
    """sum(x, axis, keepdims): the sum over axes; 0 of nothing; integers wrap around.

    x: number. Source: ONNX ReduceSum-13.
    """

    name = "sum"


@dataclass(frozen=True)
class Prod(Accumulation):
    """prod(x, axis, keepdims): the product over axes; 1 of nothing; integers wrap around.

    x: number. Source: ONNX ReduceProd-18.
    """

    name = "prod"
    combiner = "prod"


@dataclass(frozen=True)
class Extremum(Reduction):
    """Base of maxima and minima; of bool they say whether any, or all, are true."""

    combiner: ClassVar[str] = "max"
    bool_combiner: ClassVar[str] = "any"

    def check(self, x: TensorType) -> None:
        """Any dtype."""

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One reduction."""

        def element(*i: Expr) -> Expr:
            return x[i]

        combiner = self.bool_combiner if x.dtype.is_bool else self.combiner
        return self.reduce(b, x, element, combiner, "y")


@dataclass(frozen=True)
class Max(Extremum):
    """max(x, axis, keepdims): the greatest over axes; NaN if any is; the least value of nothing.

    Source: ONNX ReduceMax-20.
    """

    name = "max"


@dataclass(frozen=True)
class Min(Extremum):
    """min(x, axis, keepdims): the least over axes; NaN if any is; the greatest value of nothing.

    Source: ONNX ReduceMin-20.
    """

    name = "min"
    combiner = "min"
    bool_combiner = "all"


@dataclass(frozen=True)
class FloatReduction(Reduction):
    """Base of the reductions of float tensors."""

    def check(self, x: TensorType) -> None:
        """The dtype must be a float one."""
        require_float(self, x)


@dataclass(frozen=True)
class Mean(FloatReduction):
    """mean(x, axis, keepdims): sum / count; NaN of nothing. x: float.

    Source: ONNX ReduceMean-18.
    """

    name = "mean"

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """A sum, then a division."""
        wide = accumulator(x.dtype)

        def element(*i: Expr) -> Expr:
            return cast(x[i], wide)

        total = self.reduce(b, x, element, "sum", "total")
        count = self.count(x, wide)

        def divided(*i: Var) -> Expr:
            return cast(total[i] / count, x.dtype)

        return b.compute(total.shape, divided, name="y", dtype=x.dtype)


@dataclass(frozen=True)
class Spread(FloatReduction):
    """Base of variance and standard deviation: the mean of squared distances from the mean."""

    def finish(self, variance: Expr) -> Expr:
        """The result from the variance."""
        return variance

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """The mean, then the mean of squared distances: two passes, exact for large means."""
        wide = accumulator(x.dtype)
        axes = normalize_axes(self, self.axis, x.ndim)
        count = self.count(x, wide)

        def element(*i: Expr) -> Expr:
            return cast(x[i], wide)

        total = reduce_axes(b, x.shape, axes, element, "sum", "total", keepdims=True)

        def distance(*i: Expr) -> Expr:
            place = tuple(IntImm(0) if axis in axes else i[axis] for axis in range(x.ndim))
            difference = cast(x[i], wide) - total[place] / count
            return difference * difference

        squares = self.reduce(b, x, distance, "sum", "squares")

        def divided(*i: Var) -> Expr:
            return cast(self.finish(squares[i] / count), x.dtype)

        return b.compute(squares.shape, divided, name="y", dtype=x.dtype)


@dataclass(frozen=True)
class Variance(Spread):
    """variance(x, axis, keepdims): mean((x - mean(x))**2), the population's. x: float.

    Source: array API var with correction=0.
    """

    name = "variance"


@dataclass(frozen=True)
class Std(Spread):
    """std(x, axis, keepdims): the square root of the variance. x: float.

    Source: array API std with correction=0.
    """

    name = "std"

    def finish(self, variance: Expr) -> Expr:
        """The square root."""
        return math("sqrt", variance)


# --- back to a smaller shape -------------------------------------------------------------------


def collapse_axes(op: Op, sizes: Sequence[Expr], target: Sequence[Expr]) -> tuple[int, ...]:
    """The axes to sum so that a tensor of `sizes` becomes one that broadcasts to it from `target`.

    Raises InferenceError if `target` does not broadcast to `sizes`.
    """
    skipped = len(sizes) - len(target)
    if skipped < 0:
        fail(op, f"{len(sizes)} dimensions do not collapse to {len(target)}")
    axes = list(range(skipped))
    for axis, size in enumerate(target, skipped):
        if as_int(size) == 1:
            if as_int(sizes[axis]) != 1:
                axes.append(axis)
        else:
            require_same(op, sizes[axis], size, f"the extents of axis {axis}")
    return tuple(axes)


def collapse(b: FunctionBuilder, op: Op, x: Buffer, target: Sequence[Expr]) -> Buffer:
    """The sum of x over the axes along which `target` broadcasts to it."""
    axes = collapse_axes(op, x.shape, target)
    wide = accumulator(x.dtype)
    skipped = x.ndim - len(target)

    def element(*i: Expr) -> Expr:
        kept, summed = i[: len(target)], dict(zip(axes, i[len(target) :], strict=True))
        place = (summed[axis] if axis in summed else kept[axis - skipped] for axis in range(x.ndim))
        return cast(x[tuple(place)], wide)

    if not axes:
        return b.compute(tuple(target), element, name="y", dtype=x.dtype)
    sizes = tuple(x.shape[axis] for axis in axes)
    total = reduce(b, tuple(target), sizes, element, "sum", "total")
    return narrow(b, total, x.dtype)


@dataclass(frozen=True)
class CollapseSumLike(Operator):
    """collapse_sum_like(x, like): x summed over the axes along which `like` broadcasts to it.

    Result: the shape of `like`. Source: Relax collapse_sum_like.
    """

    name = "collapse_sum_like"

    def infer(self, x: Type, like: Type) -> TensorType:
        """The shape of `like` with the dtype of x."""
        data, target = tensor(self, x, "x"), tensor(self, like, "like")
        require_number(self, data)
        if data.shape is not None and target.shape is not None:
            collapse_axes(self, data.shape, target.shape)
        return TensorType(target.shape, data.dtype, target.ndim, data.device)

    def legalize(self, b: FunctionBuilder, x: Buffer, like: Buffer) -> Buffer:
        """One sum."""
        return collapse(b, self, x, like.shape)


@dataclass(frozen=True)
class CollapseSumTo(Operator):
    """collapse_sum_to(x, shape): x summed over the axes along which `shape` broadcasts to it.

    Result: the given shape. Source: Relax collapse_sum_to.
    """

    name = "collapse_sum_to"

    def infer(self, x: Type, shape: Type) -> TensorType:
        """The given shape with the dtype of x."""
        data = tensor(self, x, "x")
        require_number(self, data)
        sizes = shape_of_operand(self, shape)
        if sizes is None:
            return unknown_like(data, ndim=shape_rank(self, shape, "shape"))
        if data.shape is not None:
            collapse_axes(self, data.shape, sizes)
        return with_shape(data, sizes)

    def legalize(self, b: FunctionBuilder, x: Buffer, shape: tuple[Expr, ...]) -> Buffer:
        """One sum."""
        return collapse(b, self, x, as_sizes(shape))


def shape_of_operand(op: Op, value: Type) -> tuple[Expr, ...] | None:
    """The values of the operand `shape`."""
    return shape(op, value, "shape")
