"""Sampling of images at the places that a grid names. `resize.py` has regular grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.dtype import INT64, DType
from transect.ir.expr import (
    NE,
    Expr,
    IntImm,
    Var,
    cast,
    const,
    logical_and,
    maximum,
    minimum,
    select,
)
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    as_sizes,
    common_device,
    fail,
    require_float,
    require_rank,
    require_same,
    shape,
    tensor,
)
from transect.relax.op.loops import accumulator, keys_cubic, math
from transect.relax.op.operator import Operator
from transect.relax.op.reduce import narrow
from transect.relax.op.windows import SPATIAL, Layout, layout
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import floor, if_then_else, nearbyint


@dataclass(frozen=True)
class AffineGrid(Operator):
    """image.affine_grid(theta, size): for each point of an image, the place that an affine map
    takes it to, as image.grid_sample takes it.

    theta: (n, r, r + 1). size: the extents of r = 2 or 3 axes. Points span [-1, 1], the corners'
    centres there if align_corners. Result: (n, r, size...), the last axis first.
    Source: ONNX AffineGrid-20; Relax.
    """

    name = "image.affine_grid"
    align_corners: bool = True

    def infer(self, theta: Type, size: Type) -> TensorType:
        """(n, r, size...)."""
        x = tensor(self, theta, "theta")
        require_float(self, x, "theta")
        require_rank(self, x, 3, "theta")
        sizes = shape(self, size, "size")
        if sizes is not None and len(sizes) not in (2, 3):
            fail(self, f"size must have 2 values, or 3, got {len(sizes)}")
        if x.shape is None or sizes is None:
            return TensorType(None, x.dtype, -1 if sizes is None else len(sizes) + 2, x.device)
        rank = len(sizes)
        for axis, extent in ((1, rank), (2, rank + 1)):
            require_same(self, x.shape[axis], IntImm(extent), f"the extent of axis {axis} of theta")
        result = (x.shape[0], IntImm(rank), *as_sizes(sizes))
        return tensor_type(result, x.dtype, device=x.device)

    def legalize(self, b: FunctionBuilder, theta: Buffer, size: tuple[Expr, ...]) -> Buffer:
        """One map."""
        sizes = as_sizes(size)
        rank = len(sizes)
        dtype = theta.dtype

        def centre(i: Expr, count: Expr) -> Expr:
            if self.align_corners:
                place = cast(i * 2, dtype) / cast(maximum(count - 1, 1), dtype) - const(1, dtype)
                return select(count > 1, place, const(-1, dtype))
            return cast(i * 2 + 1, dtype) / cast(count, dtype) - const(1, dtype)

        def element(n: Var, k: Var, *i: Var) -> Expr:
            total: Expr = theta[n, k, rank]
            for axis in range(rank):
                total = total + theta[n, k, rank - 1 - axis] * centre(i[axis], sizes[axis])
            return total

        return b.compute((theta.shape[0], rank, *sizes), element, name="y", dtype=dtype)


_TAPS = {"nearest": 1, "bilinear": 2, "linear": 2, "bicubic": 4, "cubic": 4}
_CUBIC = -0.75
"""Keys' coefficient of grid_sample."""


@dataclass(frozen=True)
class GridSample(Operator):
    """image.grid_sample(data, grid): data at the places that `grid` names, interpolated.

    data: (n, c, sizes...), of two or three spatial axes. grid: (n, 2 or 3, sizes of the result...),
    the last spatial axis first, in [-1, 1] over the image: the corners' centres there if
    align_corners, else the corners' edges. method: "linear" or "bilinear", "cubic" or "bicubic",
    "nearest" (halves to even). padding_mode: what lies outside: "zeros", "border", "reflection".
    layout: of data and result, "NCHW" or "NCDHW" by default.
    Result: (n, c, sizes...). Source: ONNX GridSample-20 (with the grid's last axis first); Relax.
    """

    name = "image.grid_sample"
    method: str = "bilinear"
    layout: str | None = None
    padding_mode: str = "zeros"
    align_corners: bool = True

    def order(self, rank: int) -> Layout:
        """The layout of data with `rank` spatial axes."""
        if rank not in SPATIAL:
            fail(self, f"data with {rank} spatial axes")
        plain = "NC" + SPATIAL[rank]
        return layout(self, self.layout or plain, plain, "layout")

    def infer(self, data: Type, grid: Type) -> TensorType:
        """(n, c, sizes...)."""
        x, places = tensor(self, data, "data"), tensor(self, grid, "grid")
        require_float(self, x, "data")
        require_float(self, places, "grid")
        device = common_device(self, x, places)
        if self.method not in _TAPS:
            fail(self, f"method must be one of {', '.join(_TAPS)}, got {self.method!r}")
        if self.padding_mode not in ("zeros", "border", "reflection"):
            fail(self, f'padding_mode "{self.padding_mode}" is none of zeros, border, reflection')
        if x.ndim < 0:
            return TensorType(None, x.dtype, -1, device)
        order = self.order(x.ndim - 2)
        require_rank(self, places, x.ndim, "grid")
        if x.shape is None or places.shape is None:
            return TensorType(None, x.dtype, x.ndim, device)
        n, c, *sizes = order.to_plain(x.shape)
        require_same(self, n, places.shape[0], "the batch extents")
        axes = IntImm(len(sizes))
        require_same(self, places.shape[1], axes, "the extent of axis 1 of grid and the axes")
        return tensor_type(order.from_plain((n, c, *places.shape[2:])), x.dtype, device=device)

    def legalize(self, b: FunctionBuilder, data: Buffer, grid: Buffer) -> Buffer:
        """The first tap and the weights of each point and axis, then a weighted sum."""
        rank = data.ndim - 2
        order = self.order(rank)
        n, c, *sizes = order.to_plain(data.shape)
        dtype = data.dtype
        wide = accumulator(grid.dtype)
        taps = _TAPS[self.method]
        points = grid.shape[2:]

        def position(batch: Expr, axis: int, point: Sequence[Expr]) -> Expr:
            value = cast(grid[(batch, rank - 1 - axis, *point)], wide)
            return self._position(value, sizes[axis])

        def element(batch: Expr, channel: Expr, place: Sequence[Expr]) -> Expr:
            inside = logical_and(
                *(
                    test
                    for item, size in zip(place, sizes, strict=True)
                    for test in (item >= 0, item < size)
                )
            )
            safe = [self._place(item, size, wide) for item, size in zip(place, sizes, strict=True)]
            value = order.at(data, (batch, channel, *safe))
            if self.padding_mode != "zeros":
                return value
            return if_then_else(inside, value, const(0, dtype))

        result = order.from_plain((n, c, *points))
        if taps == 1:

            def nearest(*i: Var) -> Expr:
                batch, channel, *point = order.to_plain(i)
                place = [cast(position(batch, axis, point), INT64) for axis in range(rank)]
                return element(batch, channel, place)

            return b.compute(result, nearest, name="y", dtype=dtype)

        firsts: list[Buffer] = []
        weights: list[Buffer] = []
        for axis in range(rank):

            def first(batch: Var, *point: Var, axis: int = axis) -> Expr:
                return cast(floor(position(batch, axis, point)), INT64) - (taps // 2 - 1)

            def weight(batch: Var, *i: Var, axis: int = axis) -> Expr:
                *point, tap = i
                place = position(batch, axis, point)
                distance = place - floor(place) - cast(tap - (taps // 2 - 1), wide)
                return self._kernel(math("fabs", distance))

            firsts.append(b.compute((n, *points), first, name="first"))
            weights.append(b.compute((n, *points, taps), weight, name="weight"))

        def term(*i: Expr) -> Expr:
            batch, channel, *point = order.to_plain(i[: rank + 2])
            steps = i[rank + 2 :]
            place = [firsts[axis][(batch, *point)] + steps[axis] for axis in range(rank)]
            value = cast(element(batch, channel, place), wide)
            for axis in range(rank):
                value = value * weights[axis][(batch, *point, steps[axis])]
            return value

        total = b.reduce(result, (taps,) * rank, term, name="total")
        return narrow(b, total, dtype)

    def _kernel(self, x: Expr) -> Expr:
        """The weight of a tap at distance x."""
        one = const(1, x.dtype)
        if _TAPS[self.method] == 2:
            return one - x
        return keys_cubic(x, _CUBIC)

    def _position(self, value: Expr, size: Expr) -> Expr:
        dtype = value.dtype
        half, one = const(0.5, dtype), const(1, dtype)
        extent = cast(size, dtype)
        if self.align_corners:
            place = (value + one) * half * (extent - one)
        else:
            place = ((value + one) * extent - one) * half
        if _TAPS[self.method] == 1:
            place = nearbyint(place)
        if self.padding_mode == "border" and _TAPS[self.method] < 4:
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
        return select(NE(span, zero), mirrored, zero)

    def _place(self, position: Expr, size: Expr, dtype: DType) -> Expr:
        if self.padding_mode == "reflection":
            mirrored = self._reflected(cast(position, dtype), cast(size, dtype))
            position = cast(nearbyint(mirrored), INT64)
        return maximum(minimum(position, size - 1), 0)
