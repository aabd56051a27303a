"""Resampling of tensors on a regular grid: resize along any axes.

Coordinates are exact fractions of integers, so that no rounding moves a sample; those of crops and
of scales known only at run time are floats.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from transect.ir.dtype import FLOAT32, INT64, DType
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    Var,
    as_int,
    cast,
    const,
    logical_and,
    logical_or,
    maximum,
    minimum,
    select,
)
from transect.ir.sizes import ceildiv
from transect.ir.types import ShapeType, TensorType, Type
from transect.relax.expr import Op, Value, constant, make_tuple, shape_expr
from transect.relax.op.inference import (
    as_sizes,
    fail,
    normalize_axes,
    optional_tensor,
    require_float,
    require_rank,
    shape,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import keys_cubic
from transect.relax.op.operator import Emit, Operator
from transect.relax.op.windows import SPATIAL, layout
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import abs as absolute
from transect.tir.op import floor


@dataclass(frozen=True)
class Coordinate:
    """A position along an axis: `base`, the integer below it, and a fraction in [0, 1).

    below_half: fraction < 1/2; at_most_half: fraction <= 1/2; integral: fraction = 0.
    """

    base: Expr
    fraction: Expr
    below_half: Expr
    at_most_half: Expr
    integral: Expr

    @staticmethod
    def rational(numerator: Expr, denominator: Expr, dtype: DType) -> Coordinate:
        """numerator / denominator, the latter positive."""
        rest = numerator % denominator
        twice = rest * 2
        return Coordinate(
            numerator // denominator,
            cast(rest, dtype) / cast(denominator, dtype),
            twice < denominator,
            twice <= denominator,
            EQ(rest, IntImm(0)),
        )

    @staticmethod
    def real(value: Expr) -> Coordinate:
        """A float."""
        base = floor(value)
        fraction = value - base
        half = const(0.5, value.dtype)
        return Coordinate(
            cast(base, INT64),
            fraction,
            fraction < half,
            fraction <= half,
            EQ(fraction, const(0, value.dtype)),
        )

    def nearest(self, rounding: str) -> Expr:
        """The integer that the rounding method picks."""
        up = self.base + 1
        if rounding == "floor":
            return self.base
        if rounding == "ceil":
            return select(self.integral, self.base, up)
        if rounding == "round_prefer_floor":
            return select(self.at_most_half, self.base, up)
        return select(self.below_half, self.base, up)


@dataclass(frozen=True)
class Axis:
    """One axis on its way from `old` points to `new`, scaled by numerator / denominator.

    factor: the scale where it is a number of the run, else None. start, end: of a crop.
    """

    old: Expr
    new: Expr
    numerator: Expr
    denominator: Expr
    factor: Expr | None
    start: Expr | None
    end: Expr | None


_MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "align_corners",
    "asymmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
_ROUNDINGS = ("", "round", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "inward")


@dataclass(frozen=True)
class Resize(Operator):
    """image.resize(data, size, scale, roi): data at `size` points along each of `axes`.

    size: a shape, one value for each axis. scale: points per old point: size over the old extent by
    default, a shape of (numerators..., denominators...), or a float tensor of one value for each
    axis. roi: a float tensor of (starts..., ends...) as fractions, for "tf_crop_and_resize".
    method: "nearest_neighbor", "linear", "cubic". rounding_method: of nearest_neighbor; "round"
    takes halves up, "inward" is "ceil" along an axis that shrinks, else "floor"; by default "floor"
    if asymmetric, else "round". cubic_alpha: Keys' coefficient.
    cubic_exclude: 1 gives taps outside no weight. antialias: where it shrinks, the filter widens by
    as much. out_dtype: of the result.
    Source: ONNX Resize-19.
    """

    name = "image.resize"

    axes: tuple[int, ...]
    method: str = "linear"
    coordinate_transformation_mode: str = "half_pixel"
    rounding_method: str = "round"
    cubic_alpha: float = -0.75
    cubic_exclude: int = 0
    antialias: bool = False
    extrapolation_value: float = 0.0
    out_dtype: DType | None = None

    def infer(
        self, data: Type, size: Type, scale: Type | None = None, roi: Type | None = None
    ) -> TensorType:
        """The extents of the axes replaced by `size`."""
        x = tensor(self, data, "data")
        _check_names(self)
        self._check_vector(scale, len(self.axes), "scale")
        box = self._check_vector(roi, 2 * len(self.axes), "roi")
        if self.coordinate_transformation_mode == "tf_crop_and_resize" and not box:
            fail(self, "tf_crop_and_resize needs a roi")
        sizes = shape(self, size, "size")
        _check_count(self, sizes, len(self.axes))
        dtype = x.dtype if self.out_dtype is None else self.out_dtype
        if x.shape is None or sizes is None:
            return unknown_like(x, dtype)
        extents = list(x.shape)
        axes = normalize_axes(self, self.axes, x.ndim)
        for axis, after in zip(axes, as_sizes(sizes), strict=True):
            if as_int(extents[axis]) == 0 and as_int(after) != 0:
                fail(self, f"axis {axis} of extent 0 has nothing to resize")
            extents[axis] = after
        return with_shape(x, extents, dtype)

    def _check_vector(self, operand: Type | None, count: int, what: str) -> bool:
        """Whether an optional vector of floats, or a shape of pairs, is given."""
        if isinstance(operand, ShapeType):
            if operand.ndim not in (-1, 2 * count):
                fail(self, f"{what} must have {2 * count} values, got {operand.ndim}")
            return True
        vector = optional_tensor(self, operand, what)
        if vector is None:
            return False
        require_float(self, vector, what)
        require_rank(self, vector, 1, what)
        length = None if vector.shape is None else as_int(vector.shape[0])
        if length not in (None, count):
            fail(self, f"{what} must have {count} values, got {length}")
        return True

    # --- where a point comes from

    def coordinate(self, axis: Axis, i: Expr, dtype: DType) -> Coordinate:
        """Where point `i` of the new ones lies among the old ones."""
        mode = self.coordinate_transformation_mode
        old, new, p, q = axis.old, axis.new, axis.numerator, axis.denominator
        one = IntImm(1)
        if mode == "align_corners":
            return Coordinate.rational(i * (old - 1), maximum(new - 1, one), dtype)
        if mode == "tf_crop_and_resize":
            return Coordinate.real(self.cropped(axis, i, dtype))
        if axis.factor is not None:
            return Coordinate.real(self.scaled(axis, axis.factor, i, dtype))
        if mode == "asymmetric":
            return Coordinate.rational(i * q, p, dtype)
        if mode == "tf_half_pixel_for_nn":
            return Coordinate.rational((i * 2 + 1) * q, p * 2, dtype)
        position = (i * 2 + 1) * q - p
        if mode == "half_pixel_symmetric":
            position = position + (old * p - new * q)
        if mode == "pytorch_half_pixel":
            position = select(new > 1, position, IntImm(0))
        return Coordinate.rational(position, p * 2, dtype)

    def scaled(self, axis: Axis, factor: Expr, i: Expr, dtype: DType) -> Expr:
        """The position of point `i` under a scale of the run, a float."""
        mode = self.coordinate_transformation_mode
        half, zero = const(0.5, dtype), const(0, dtype)
        factor = cast(factor, dtype)
        if mode == "asymmetric":
            return cast(i, dtype) / factor
        position = (cast(i, dtype) + half) / factor
        if mode == "tf_half_pixel_for_nn":
            return position
        position = position - half
        if mode == "half_pixel_symmetric":
            spare = cast(axis.old, dtype) - cast(axis.new, dtype) / factor
            position = position + spare * half
        if mode == "pytorch_half_pixel":
            position = select(axis.new > 1, position, zero)
        return position

    def cropped(self, axis: Axis, i: Expr, dtype: DType) -> Expr:
        """The position of "tf_crop_and_resize", a float."""
        assert axis.start is not None
        assert axis.end is not None
        start, end = cast(axis.start, dtype), cast(axis.end, dtype)
        last = cast(axis.old - 1, dtype)
        step = (end - start) * last / cast(maximum(axis.new - 1, 1), dtype)
        middle = const(0.5, dtype) * (start + end) * last
        return select(axis.new > 1, start * last + cast(i, dtype) * step, middle)

    # --- what it is made of

    def taps(self, place: Coordinate, axis: Axis) -> list[tuple[Expr, Expr | None]]:
        """(position, weight) of the nearest point, weight None for 1, or of those around one."""
        old = axis.old
        if self.method == "nearest_neighbor":
            rounding = self.rounding_method
            if rounding == "":
                plain = self.coordinate_transformation_mode == "asymmetric"
                rounding = "floor" if plain else "round"
            if rounding == "inward":
                shrinks = axis.numerator < axis.denominator
                found = select(shrinks, place.nearest("ceil"), place.nearest("floor"))
            else:
                found = place.nearest(rounding)
            return [(_inside(found, old), None)]
        t, one = place.fraction, const(1, place.fraction.dtype)
        return [(_inside(place.base, old), one - t), (_inside(place.base + 1, old), t)]

    def kernel(self, x: Expr) -> Expr:
        """The weight at distance x >= 0."""
        if self.method == "linear":
            return maximum(const(1, x.dtype) - x, const(0, x.dtype))
        return keys_cubic(x, self.cubic_alpha)

    # --- loops

    def legalize(
        self,
        b: FunctionBuilder,
        data: Buffer,
        size: tuple[Expr, ...],
        scale: Buffer | tuple[Expr, ...] | None = None,
        roi: Buffer | None = None,
    ) -> Buffer:
        """One map; if cubic or with antialias, a weighted sum along each axis."""
        axes = dict(
            zip(
                normalize_axes(self, self.axes, data.ndim),
                self._axes(data, as_sizes(size), scale, roi),
                strict=True,
            )
        )
        dtype = data.dtype if self.out_dtype is None else self.out_dtype
        work = data.dtype if data.dtype.is_float and data.dtype.bits >= 32 else FLOAT32
        extents = tuple(axes[k].new if k in axes else n for k, n in enumerate(data.shape))

        def point(*i: Var) -> Expr:
            choices = [
                self.taps(self.coordinate(axis, i[k], work), axis) for k, axis in axes.items()
            ]
            total: Expr | None = None
            for taps in itertools.product(*choices):
                place = list[Expr](i)
                for k, (position, _) in zip(axes, taps, strict=True):
                    place[k] = position
                value = data[tuple(place)]
                if self.method == "nearest_neighbor":
                    return value
                value = cast(value, work)
                for _, weight in taps:
                    value = value if weight is None else value * weight
                total = value if total is None else total + value
            assert total is not None
            return total

        source: Callable[..., Expr] = point
        if self.method == "cubic" or (self.antialias and self.method == "linear"):
            source = self._filtered(b, data, axes, work)

        def element(*i: Var) -> Expr:
            return self._extrapolated(cast(source(*i), dtype), axes, i, work)

        return b.compute(extents, element, name="y", dtype=dtype)

    def _axes(
        self,
        data: Buffer,
        new: tuple[Expr, ...],
        scale: Buffer | tuple[Expr, ...] | None,
        roi: Buffer | None,
    ) -> list[Axis]:
        old = [data.shape[axis] for axis in normalize_axes(self, self.axes, data.ndim)]
        count = len(old)
        ratio = scale if isinstance(scale, tuple) else (*new, *old)
        return [
            Axis(
                old[k],
                new[k],
                cast(ratio[k], INT64),
                cast(ratio[count + k], INT64),
                scale[k] if isinstance(scale, Buffer) else None,
                None if roi is None else roi[k],
                None if roi is None else roi[count + k],
            )
            for k in range(count)
        ]

    def _filtered(
        self, b: FunctionBuilder, data: Buffer, axes: dict[int, Axis], work: DType
    ) -> Callable[..., Expr]:
        """The elements of `data` filtered along one axis after the other."""
        current = data
        for k, axis in axes.items():
            weights, first = self._weights(b, axis, work)
            extents = (*current.shape[:k], axis.new, *current.shape[k + 1 :])

            def term(
                *i: Expr,
                source: Buffer = current,
                k: int = k,
                axis: Axis = axis,
                weights: Buffer = weights,
                first: Callable[[Expr], Expr] = first,
            ) -> Expr:
                *place, tap = i
                position = _inside(first(i[k]) + tap, axis.old)
                value = source[(*place[:k], position, *place[k + 1 :])]
                return cast(value, work) * weights[i[k], tap]

            current = b.reduce(extents, weights.shape[1:], term, name="filtered")
        result = current
        return lambda *i: result[i]

    def _weights(
        self, b: FunctionBuilder, axis: Axis, work: DType
    ) -> tuple[Buffer, Callable[[Expr], Expr]]:
        """The weights (new, taps) of an axis, and the position of the first tap of a point."""
        p, q = axis.numerator, axis.denominator
        reach = IntImm(1 if self.method == "linear" else 2)
        one = const(1, work)
        ratio = cast(p, work) / cast(q, work) if axis.factor is None else cast(axis.factor, work)
        shrink = minimum(ratio, one) if self.antialias else one
        # A scale of the run is at least the ratio of the sizes: its taps are among these.
        width = maximum(ceildiv(reach * q, p), reach) if self.antialias else reach
        start = simplify(IntImm(1) - width)
        taps = simplify(IntImm(2) - start * 2)

        def first(i: Expr) -> Expr:
            return self.coordinate(axis, i, work).base + start

        def weight(i: Var, k: Var) -> Expr:
            place = self.coordinate(axis, i, work)
            value = self.kernel(absolute(cast(start + k, work) - place.fraction) * shrink)
            if not self.cubic_exclude:
                return value
            position = place.base + start + k
            inside = logical_and(position >= 0, position < axis.old)
            return select(inside, value, const(0, work))

        raw = b.compute((axis.new, taps), weight, name="raw")

        def entry(i: Var, k: Var) -> Expr:
            return raw[i, k]

        total = b.reduce((axis.new,), (taps,), entry, name="total")

        def normal(i: Var, k: Var) -> Expr:
            return raw[i, k] / total[i]

        return b.compute((axis.new, taps), normal, name="weights"), first

    def _extrapolated(
        self, value: Expr, axes: dict[int, Axis], i: Sequence[Expr], dtype: DType
    ) -> Expr:
        if self.coordinate_transformation_mode != "tf_crop_and_resize":
            return value
        outside: Expr | None = None
        for k, axis in axes.items():
            place = self.cropped(axis, i[k], dtype)
            beyond = logical_or(place < const(0, dtype), place > cast(axis.old - 1, dtype))
            outside = beyond if outside is None else logical_or(outside, beyond)
        if outside is None:
            return value
        return select(outside, const(self.extrapolation_value, value.dtype), value)


def _check_names(op: Resize | SpatialResize) -> None:
    """Refuse methods and modes that there are not."""
    for value, known, what in (
        (op.method, ("nearest_neighbor", "linear", "cubic"), "method"),
        (op.coordinate_transformation_mode, _MODES, "coordinate_transformation_mode"),
        (op.rounding_method, _ROUNDINGS, "rounding_method"),
    ):
        if value not in known:
            fail(op, f"{what} must be one of {', '.join(known)}, got {value!r}")


def _check_count(op: Op, sizes: tuple[Expr, ...] | None, count: int) -> None:
    if sizes is not None and len(sizes) != count:
        fail(op, f"size must have {count} values, got {len(sizes)}")


def _inside(position: Expr, size: Expr) -> Expr:
    return maximum(minimum(position, size - 1), 0)


@dataclass(frozen=True)
class SpatialResize(Operator):
    """Base of the resizes of images by layout: image.resize of the spatial axes.

    roi: (starts..., ends...) of the spatial axes as fractions. The others: as of image.resize.
    """

    rank: ClassVar[int] = 2

    roi: tuple[float, ...] = ()
    layout: str = "NCHW"
    method: str = "linear"
    coordinate_transformation_mode: str = "half_pixel"
    rounding_method: str = "round"
    cubic_alpha: float = -0.75
    cubic_exclude: int = 0
    extrapolation_value: float = 0.0
    out_dtype: DType | None = None

    def general(self) -> Resize:
        """The same as image.resize."""
        layout(self, self.layout, "NC" + SPATIAL[self.rank], "layout")
        return Resize(
            tuple(self.layout.index(letter) for letter in SPATIAL[self.rank]),
            self.method,
            self.coordinate_transformation_mode,
            self.rounding_method,
            self.cubic_alpha,
            self.cubic_exclude,
            False,
            self.extrapolation_value,
            self.out_dtype,
        )

    def infer(self, data: Type, size: Type) -> TensorType:
        """The spatial extents replaced by `size`; one value serves all."""
        require_rank(self, tensor(self, data, "data"), self.rank + 2, "data")
        _check_names(self)
        crops = self.coordinate_transformation_mode == "tf_crop_and_resize"
        if crops and len(self.roi) != 2 * self.rank:
            fail(self, f"roi must have {2 * self.rank} values, got {len(self.roi)}")
        sizes = shape(self, size, "size")
        if sizes is not None and len(sizes) == 1:
            sizes = as_sizes(sizes * self.rank)
            size = ShapeType(sizes, self.rank)
        _check_count(self, sizes, self.rank)
        roi = constant(np.asarray(self.roi, np.float32)).type if crops else None
        return self.general().infer(data, size, None, roi)

    def decompose(self, emit: Emit, data: Value, size: Value) -> Value:
        """image.resize."""
        del emit
        kind = size.type
        if isinstance(kind, ShapeType) and kind.values is not None and len(kind.values) == 1:
            size = shape_expr(*kind.values * self.rank)
        roi = (constant(np.asarray(self.roi, np.float32)),) if self.roi else ()
        return self.general()(data, size, *((make_tuple(), *roi) if roi else ()))


@dataclass(frozen=True)
class Resize1d(SpatialResize):
    """image.resize1d(data, size): data resampled to `size` points along its spatial axis.

    data: (n, c, w) in `layout`. Result: (n, c, size). Source: ONNX Resize-19.
    """

    name = "image.resize1d"
    rank = 1
    layout: str = "NCW"


@dataclass(frozen=True)
class Resize2d(SpatialResize):
    """image.resize2d(data, size): data resampled to `size` points along its spatial axes.

    data: (n, c, h, w) in `layout`. Result: (n, c, size...). Source: ONNX Resize-19.
    """

    name = "image.resize2d"


@dataclass(frozen=True)
class Resize3d(SpatialResize):
    """image.resize3d(data, size): data resampled to `size` points along its spatial axes.

    data: (n, c, d, h, w) in `layout`. Result: (n, c, size...). Source: ONNX Resize-19.
    """

    name = "image.resize3d"
    rank = 3
    layout: str = "NCDHW"
