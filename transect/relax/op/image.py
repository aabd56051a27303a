"""Sampling of images at the places that a grid names. `resize.py` has regular grids."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import INT64
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
from transect.relax.op.windows import layout
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import floor, if_then_else, nearbyint


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
