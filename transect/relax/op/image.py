"""Resampling of images: resize, in one to three spatial dimensions, and sampling on a grid.

Coordinates of `resize` are exact fractions of integers, so that no rounding moves a sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import FLOAT32, INT64, DType
from transect.ir.expr import (
    EQ,
    NE,
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
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    as_sizes,
    common_device,
    common_dtype,
    fail,
    require_float,
    require_rank,
    require_same,
    shape,
    tensor,
)
from transect.relax.op.loops import math
from transect.relax.op.operator import Operator
from transect.relax.op.windows import SPATIAL, layout
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import floor, if_then_else, nearbyint


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


_MODES = (
    "half_pixel",
    "align_corners",
    "asymmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
_ROUNDINGS = ("", "round", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Resize(Operator):
    """Base of the resizes: `size` points along each spatial axis, interpolated.

    roi: (starts..., ends...) of the spatial axes as fractions, for "tf_crop_and_resize".
    method: "nearest_neighbor", "linear", "cubic". rounding_method: of nearest_neighbor; "round"
    takes halves up; by default "floor" if asymmetric, else "round". cubic_alpha: Keys' coefficient.
    cubic_exclude: 1 gives taps outside no weight. out_dtype: of the result.
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

    def infer(self, data: Type, size: Type) -> TensorType:
        """The spatial extents replaced by `size`."""
        x = tensor(self, data, "data")
        order = layout(self, self.layout, "NC" + SPATIAL[self.rank], "layout")
        require_rank(self, x, self.rank + 2, "data")
        for value, known, what in (
            (self.method, ("nearest_neighbor", "linear", "cubic"), "method"),
            (self.coordinate_transformation_mode, _MODES, "coordinate_transformation_mode"),
            (self.rounding_method, _ROUNDINGS, "rounding_method"),
        ):
            if value not in known:
                fail(self, f"{what} must be one of {', '.join(known)}, got {value!r}")
        crops = self.coordinate_transformation_mode == "tf_crop_and_resize"
        if crops and len(self.roi) != 2 * self.rank:
            fail(self, f"roi must have {2 * self.rank} values, got {len(self.roi)}")
        sizes = shape(self, size, "size")
        dtype = x.dtype if self.out_dtype is None else self.out_dtype
        if sizes is not None and len(sizes) == 1:
            sizes = sizes * self.rank
        if sizes is not None and len(sizes) != self.rank:
            fail(self, f"size must have {self.rank} values, got {len(sizes)}")
        if x.shape is None or sizes is None:
            return TensorType(None, dtype, self.rank + 2, x.device)
        n, c, *old = order.to_plain(x.shape)
        for axis, (before, after) in enumerate(zip(old, sizes, strict=True)):
            if as_int(before) == 0 and as_int(after) != 0:
                fail(self, f"spatial axis {axis} of extent 0 has nothing to resize")
        return tensor_type(order.from_plain((n, c, *as_sizes(sizes))), dtype, device=x.device)

    def coordinate(self, axis: int, i: Expr, old: Expr, new: Expr, dtype: DType) -> Coordinate:
        """Where point `i` of `new` lies among the `old` ones of a spatial axis."""
        mode = self.coordinate_transformation_mode
        one = IntImm(1)
        if mode == "align_corners":
            return Coordinate.rational(i * (old - 1), maximum(new - 1, one), dtype)
        if mode == "asymmetric":
            return Coordinate.rational(i * old, new, dtype)
        if mode == "tf_half_pixel_for_nn":
            return Coordinate.rational((i * 2 + 1) * old, new * 2, dtype)
        if mode == "tf_crop_and_resize":
            return Coordinate.real(self.cropped(axis, i, old, new, dtype))
        position = (i * 2 + 1) * old - new
        if mode == "pytorch_half_pixel":
            position = select(new > 1, position, IntImm(0))
        return Coordinate.rational(position, new * 2, dtype)

    def cropped(self, axis: int, i: Expr, old: Expr, new: Expr, dtype: DType) -> Expr:
        """The position of "tf_crop_and_resize", a float."""
        start, end = self.roi[axis], self.roi[axis + self.rank]
        last = cast(old - 1, dtype)
        step = const(end - start, dtype) * last / cast(maximum(new - 1, 1), dtype)
        middle = const(0.5 * (start + end), dtype) * last
        return select(new > 1, const(start, dtype) * last + cast(i, dtype) * step, middle)

    def taps(self, place: Coordinate, old: Expr) -> list[tuple[Expr, Expr | None]]:
        """(position, weight) of the points that make up one; None for a weight of 1."""
        last = old - 1

        def inside(position: Expr) -> Expr:
            return maximum(minimum(position, last), 0)

        if self.method == "nearest_neighbor":
            rounding = self.rounding_method
            if rounding == "":
                plain = self.coordinate_transformation_mode == "asymmetric"
                rounding = "floor" if plain else "round"
            return [(inside(place.nearest(rounding)), None)]
        t, one = place.fraction, const(1, place.fraction.dtype)
        if self.method == "linear":
            return [(inside(place.base), one - t), (inside(place.base + 1), t)]
        weights = self.cubic(t)
        positions = [place.base + k for k in (-1, 0, 1, 2)]
        if self.cubic_exclude:
            zero = const(0, t.dtype)
            weights = [
                select(logical_and(p >= 0, p <= last), w, zero)
                for p, w in zip(positions, weights, strict=True)
            ]
            total = weights[0] + weights[1] + weights[2] + weights[3]
            weights = [w / total for w in weights]
        return [(inside(p), w) for p, w in zip(positions, weights, strict=True)]

    def cubic(self, t: Expr) -> list[Expr]:
        """The weights of the four points around one at fraction t. Source: Keys 1981."""
        a = const(self.cubic_alpha, t.dtype)

        def number(value: float) -> Expr:
            return const(value, t.dtype)

        def near(x: Expr) -> Expr:
            return ((a + number(2)) * x - (a + number(3))) * x * x + number(1)

        def far(x: Expr) -> Expr:
            return ((a * x - number(5) * a) * x + number(8) * a) * x - number(4) * a

        s = number(1) - t
        return [far(t + number(1)), near(t), near(s), far(s + number(1))]

    def legalize(self, b: FunctionBuilder, data: Buffer, size: tuple[Expr, ...]) -> Buffer:
        """One map."""
        order = layout(self, self.layout, "NC" + SPATIAL[self.rank], "layout")
        new = as_sizes(size * self.rank if len(size) == 1 else size)
        n, c, *old = order.to_plain(data.shape)
        dtype = data.dtype if self.out_dtype is None else self.out_dtype
        work = data.dtype if data.dtype.is_float and data.dtype.bits >= 32 else FLOAT32

        def element(*i: Var) -> Expr:
            batch, channel, *point = order.to_plain(i)
            axes = [
                self.taps(self.coordinate(k, point[k], old[k], new[k], work), old[k])
                for k in range(self.rank)
            ]
            total: Expr | None = None
            for taps in itertools.product(*axes):
                value = order.at(data, (batch, channel, *(position for position, _ in taps)))
                if self.method == "nearest_neighbor":
                    total = value
                    continue
                value = cast(value, work)
                for _, weight in taps:
                    value = value if weight is None else value * weight
                total = value if total is None else total + value
            assert total is not None
            return self._extrapolated(cast(total, dtype), point, old, new, work)

        return b.compute(order.from_plain((n, c, *new)), element, name="y", dtype=dtype)

    def _extrapolated(
        self,
        value: Expr,
        point: Sequence[Expr],
        old: Sequence[Expr],
        new: Sequence[Expr],
        dtype: DType,
    ) -> Expr:
        if self.coordinate_transformation_mode != "tf_crop_and_resize":
            return value
        outside: Expr | None = None
        for axis in range(self.rank):
            place = self.cropped(axis, point[axis], old[axis], new[axis], dtype)
            beyond = logical_or(place < const(0, dtype), place > cast(old[axis] - 1, dtype))
            outside = beyond if outside is None else logical_or(outside, beyond)
        assert outside is not None
        return select(outside, const(self.extrapolation_value, value.dtype), value)


@dataclass(frozen=True)
class Resize1d(Resize):
    """image.resize1d(data, size): data resampled to `size` points along its spatial axis.

    data: (n, c, w) in `layout`. Result: (n, c, size). Source: ONNX Resize-19.
    """

    name = "image.resize1d"
    rank = 1
    layout: str = "NCW"


@dataclass(frozen=True)
class Resize2d(Resize):
    """image.resize2d(data, size): data resampled to `size` points along its spatial axes.

    data: (n, c, h, w) in `layout`. Result: (n, c, size...). Source: ONNX Resize-19.
    """

    name = "image.resize2d"


@dataclass(frozen=True)
class Resize3d(Resize):
    """image.resize3d(data, size): data resampled to `size` points along its spatial axes.

    data: (n, c, d, h, w) in `layout`. Result: (n, c, size...). Source: ONNX Resize-19.
    """

    name = "image.resize3d"
    rank = 3
    layout: str = "NCDHW"


@dataclass(frozen=True)
class AffineGrid(Operator):
    """image.affine_grid(theta, size): for each point of an image, the place that an affine map
    takes it to, as image.grid_sample takes it.

    theta: (n, 2, 3). size: (h, w). Points span [-1, 1], the corners' centres there if
    align_corners. Result: (n, 2, h, w), x before y. Source: ONNX AffineGrid-20; Relax.
    """

    name = "image.affine_grid"
    align_corners: bool = True

    def infer(self, theta: Type, size: Type) -> TensorType:
        """(n, 2, h, w)."""
        x = tensor(self, theta, "theta")
        require_float(self, x, "theta")
        require_rank(self, x, 3, "theta")
        sizes = shape(self, size, "size")
        if sizes is not None and len(sizes) != 2:
            fail(self, f"size must have 2 values, got {len(sizes)}")
        if x.shape is None or sizes is None:
            return TensorType(None, x.dtype, 4, x.device)
        for axis, extent in ((1, 2), (2, 3)):
            require_same(self, x.shape[axis], IntImm(extent), f"the extent of axis {axis} of theta")
        result = (x.shape[0], IntImm(2), *as_sizes(sizes))
        return tensor_type(result, x.dtype, device=x.device)

    def legalize(self, b: FunctionBuilder, theta: Buffer, size: tuple[Expr, ...]) -> Buffer:
        """One map."""
        h, w = as_sizes(size)
        dtype = theta.dtype

        def centre(i: Expr, count: Expr) -> Expr:
            if self.align_corners:
                place = cast(i * 2, dtype) / cast(maximum(count - 1, 1), dtype) - const(1, dtype)
                return select(count > 1, place, const(-1, dtype))
            return cast(i * 2 + 1, dtype) / cast(count, dtype) - const(1, dtype)

        def element(n: Var, k: Var, i: Var, j: Var) -> Expr:
            x, y = centre(j, w), centre(i, h)
            return theta[n, k, 0] * x + theta[n, k, 1] * y + theta[n, k, 2]

        return b.compute((theta.shape[0], 2, h, w), element, name="y", dtype=dtype)


@dataclass(frozen=True)
class GridSample(Operator):
    """image.grid_sample(data, grid): data at the places that `grid` names, interpolated.

    data: (n, c, h, w). grid: (n, 2, p, q), x before y, in [-1, 1] over the image: the corners'
    centres there if align_corners, else the corners' edges. method: "bilinear" or "nearest" (halves
    to even). padding_mode: what lies outside: "zeros", "border", "reflection".
    Result: (n, c, p, q). Source: ONNX GridSample-20 (with the grid's last axis first); Relax.
    """

    name = "image.grid_sample"
    method: str = "bilinear"
    layout: str = "NCHW"
    padding_mode: str = "zeros"
    align_corners: bool = True

    def infer(self, data: Type, grid: Type) -> TensorType:
        """(n, c, p, q)."""
        x, places = tensor(self, data, "data"), tensor(self, grid, "grid")
        order = layout(self, self.layout, "NCHW", "layout")
        require_float(self, x, "data")
        dtype, device = common_dtype(self, x, places), common_device(self, x, places)
        require_rank(self, x, 4, "data")
        require_rank(self, places, 4, "grid")
        if self.method not in ("bilinear", "nearest"):
            fail(self, f'method must be "bilinear" or "nearest", got {self.method!r}')
        if self.padding_mode not in ("zeros", "border", "reflection"):
            fail(self, f'padding_mode "{self.padding_mode}" is none of zeros, border, reflection')
        if x.shape is None or places.shape is None:
            return TensorType(None, dtype, 4, device)
        n, c, _, _ = order.to_plain(x.shape)
        require_same(self, n, places.shape[0], "the batch extents")
        require_same(self, places.shape[1], IntImm(2), "the extent of axis 1 of grid and 2")
        return tensor_type(order.from_plain((n, c, *places.shape[2:])), dtype, device=device)

    def legalize(self, b: FunctionBuilder, data: Buffer, grid: Buffer) -> Buffer:
        """One map."""
        order = layout(self, self.layout, "NCHW", "layout")
        n, c, h, w = order.to_plain(data.shape)
        dtype = data.dtype

        def fetch(batch: Expr, channel: Expr, y: Expr, x: Expr) -> Expr:
            inside = logical_and(y >= 0, y < h, x >= 0, x < w)
            safe_y, safe_x = self._place(y, h), self._place(x, w)
            value = order.at(data, (batch, channel, safe_y, safe_x))
            if self.padding_mode != "zeros":
                return value
            return if_then_else(inside, value, const(0, dtype))

        def element(*i: Var) -> Expr:
            batch, channel, p, q = order.to_plain(i)
            y = self._position(grid[batch, 1, p, q], h)
            x = self._position(grid[batch, 0, p, q], w)
            if self.method == "nearest":
                near_y, near_x = cast(nearbyint(y), INT64), cast(nearbyint(x), INT64)
                return fetch(batch, channel, near_y, near_x)
            low_y, low_x = floor(y), floor(x)
            t, s, one = y - low_y, x - low_x, const(1, dtype)
            top, left = cast(low_y, INT64), cast(low_x, INT64)
            return (
                fetch(batch, channel, top, left) * (one - t) * (one - s)
                + fetch(batch, channel, top, left + 1) * (one - t) * s
                + fetch(batch, channel, top + 1, left) * t * (one - s)
                + fetch(batch, channel, top + 1, left + 1) * t * s
            )

        result = order.from_plain((n, c, *grid.shape[2:]))
        return b.compute(result, element, name="y", dtype=dtype)

    def _position(self, value: Expr, size: Expr) -> Expr:
        dtype = value.dtype
        half, one = const(0.5, dtype), const(1, dtype)
        extent = cast(size, dtype)
        if self.align_corners:
            place = (value + one) * half * (extent - one)
        else:
            place = ((value + one) * extent - one) * half
        if self.padding_mode == "border":
            return maximum(minimum(place, extent - one), const(0, dtype))
        if self.padding_mode == "reflection":
            place = self._reflected(place, extent)
        return place

    def _reflected(self, place: Expr, extent: Expr) -> Expr:
        dtype = place.dtype
        zero, one = const(0, dtype), const(1, dtype)
        low = zero if self.align_corners else const(-0.5, dtype)
        span = extent - one if self.align_corners else extent
        distance = math("fabs", place - low)
        safe = select(NE(span, zero), span, one)
        turns = floor(distance / safe)
        rest = distance - turns * safe
        odd = NE(math("fmod", turns, const(2, dtype)), zero)
        mirrored = select(odd, safe - rest, rest) + low
        mirrored = select(NE(span, zero), mirrored, zero)
        return maximum(minimum(mirrored, extent - one), zero)

    def _place(self, position: Expr, size: Expr) -> Expr:
        return maximum(minimum(position, size - 1), 0)
