"""Regions of images whose place is data: pooled regions, convolutions with moved taps, and the sum
of overlapping blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transect.ir.dtype import INT64
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
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    as_sizes,
    common_device,
    common_dtype,
    fail,
    optional_tensor,
    product,
    require_finishable,
    require_float,
    require_integer,
    require_rank,
    require_same,
    same,
    shape,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.linear_algebra import contraction
from transect.relax.op.loops import accumulator, result_shape
from transect.relax.op.nn_conv import Conv2d
from transect.relax.op.operator import Operator
from transect.relax.op.windows import padding_of, per_axis, positive_per_axis
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, serial, store
from transect.tir.op import ceil, checked, floor, if_then_else, lowest, round
from transect.tir.stmt import Stmt, seq

Pixel = Callable[[Expr, Expr], Expr]
"""The value at (row, column), which are inside the image."""


def corners(
    y: Expr, x: Expr, height: Expr, width: Expr, pixel: Pixel, *, clamp: bool
) -> list[Expr]:
    """The four weighted pixels around a point, which add up to the value there.

    clamp: pixels beyond an edge are those at it; else they are 0.
    """
    one, zero = const(1, y.dtype), const(0, y.dtype)
    if clamp:
        y = maximum(minimum(y, cast(height - 1, y.dtype)), zero)
        x = maximum(minimum(x, cast(width - 1, x.dtype)), zero)
    low_y, low_x = floor(y), floor(x)
    t, s = y - low_y, x - low_x
    found: list[Expr] = []
    for down in (0, 1):
        for right in (0, 1):
            row, column = cast(low_y, INT64) + down, cast(low_x, INT64) + right
            inside = logical_and(row >= 0, row < height, column >= 0, column < width)
            weight = (t if down else one - t) * (s if right else one - s)
            found.append(if_then_else(inside, cast(pixel(row, column), y.dtype), zero) * weight)
    return found


def _regions(
    op: Operator, data: Type, regions: Type, columns: int, sizes: tuple[int, int]
) -> TensorType:
    """(regions, channels, sizes...) of an operator on regions of images."""
    x, boxes = tensor(op, data, "data"), tensor(op, regions, "regions")
    require_float(op, x, "data")
    require_rank(op, x, 4, "data")
    require_rank(op, boxes, 2, "regions")
    dtype, device = common_dtype(op, x, boxes), common_device(op, x, boxes)
    if min(sizes) < 1:
        fail(op, f"the size of the result must be positive, got {sizes}")
    if x.shape is None or boxes.shape is None:
        return TensorType(None, dtype, 4, device)
    require_same(op, boxes.shape[1], IntImm(columns), f"the columns of regions and {columns}")
    return tensor_type((boxes.shape[0], x.shape[1], *map(IntImm, sizes)), dtype, device=device)


_MOST_SAMPLES = 1 << 40
"""Of a cell along an axis: far more than images have pixels; the number of an infinite region."""


def _images(b: FunctionBuilder, count: Expr, images: Expr, number: Callable[[Var], Expr]) -> Buffer:
    """The number of each region's image. One that does not exist is an error when this runs."""

    def element(r: Var) -> Expr:
        found = cast(number(r), INT64)
        message = ("a region of image ", found, " of ", images)
        return checked(found, logical_and(found >= 0, found < images), *message)

    return b.compute((count,), element, name="image")


@dataclass(frozen=True)
class RoiAlign(Operator):
    """image.roi_align(data, regions, batch): each region of an image sampled into a grid of
    output_size cells, with the mean or maximum over the samples of a cell.

    data: (n, c, h, w). regions: (r, 4), x1 y1 x2 y2, times spatial_scale. batch: (r,) integers.
    sampling_ratio: samples of a cell along each axis; 0: as many as it has pixels. mode: "avg" or
    "max" (of the weighted pixels around the samples). half_pixel: coordinates are of pixels'
    centres; else a region is at least one pixel large.
    Result: (r, c, output_size...). Source: ONNX RoiAlign-16.
    """

    name = "image.roi_align"
    output_size: tuple[int, int] = (1, 1)
    sampling_ratio: int = 0
    spatial_scale: float = 1.0
    mode: str = "avg"
    half_pixel: bool = True

    def infer(self, data: Type, regions: Type, batch: Type) -> TensorType:
        """(r, c, output_size...)."""
        numbers = tensor(self, batch, "batch")
        require_integer(self, numbers, "batch")
        require_rank(self, numbers, 1, "batch")
        if self.mode not in ("avg", "max"):
            fail(self, f'mode must be "avg" or "max", got {self.mode!r}')
        if self.sampling_ratio < 0:
            fail(self, f"sampling_ratio must not be negative, got {self.sampling_ratio}")
        result = _regions(self, data, regions, 4, self.output_size)
        samples = [IntImm(max(self.sampling_ratio, 1))] * 2
        require_finishable(self, (*(result.shape or ()), *samples))
        return result

    def legalize(self, b: FunctionBuilder, data: Buffer, regions: Buffer, batch: Buffer) -> Buffer:
        """For each cell a loop over its samples."""
        _, _, height, width = data.shape
        wide = accumulator(data.dtype)
        target = b.allocate(result_shape(self, data, regions, batch), wide, name="cell")
        offset = const(0.5 if self.half_pixel else 0.0, wide)
        scale, one, half = const(self.spatial_scale, wide), const(1, wide), const(0.5, wide)

        def span(r: Expr, axis: int) -> tuple[Expr, Expr, Expr]:
            """Start, size of a cell, samples of a cell, along an axis (0: rows)."""
            low, high = (cast(regions[r, k], wide) * scale - offset for k in (1 - axis, 3 - axis))
            size = high - low if self.half_pixel else maximum(high - low, one)
            cell = size / const(self.output_size[axis], wide)
            if self.sampling_ratio > 0:
                return low, cell, IntImm(self.sampling_ratio)
            return low, cell, cast(minimum(ceil(cell), const(_MOST_SAMPLES, wide)), INT64)

        images = _images(b, regions.shape[0], data.shape[0], lambda r: batch[r])

        def body(r: Var, c: Var, i: Var, j: Var) -> Stmt:
            here = (r, c, i, j)
            spans = [span(r, 0), span(r, 1)]
            image = images[r]

            def place(axis: int, cell: Expr, k: Expr) -> Expr:
                low, size, count = spans[axis]
                return (
                    low
                    + cast(cell, wide) * size
                    + (cast(k, wide) + half) * size / cast(count, wide)
                )

            def near(axis: int, cell: Expr, limit: Expr) -> tuple[Expr, Expr]:
                """The first sample that may be in the image, and the number of those that may:
                the others are 0. However large a region is, few are."""
                low, size, count = spans[axis]
                step = size / cast(count, wide)
                start = low + cast(cell, wide) * size
                most = cast(count, wide)

                def sample_at(position: Expr, more: int) -> Expr:
                    k = floor((position - start) / step) + const(more, wide)
                    return cast(maximum(minimum(k, most), const(0, wide)), INT64)

                # A sample more on both sides makes up for rounding.
                first = sample_at(-one, -1)
                number = maximum(sample_at(cast(limit, wide), 2) - first, 0)
                return first, select(step > const(0, wide), number, const(0, INT64))

            (top, height_near), (left, width_near) = near(0, i, height), near(1, j, width)

            def sample(k: Var, m: Var) -> Stmt:
                y, x = place(0, i, top + k), place(1, j, left + m)
                outside = logical_or(
                    logical_or(y < -one, y > cast(height, wide)),
                    logical_or(x < -one, x > cast(width, wide)),
                )

                def pixel(row: Expr, column: Expr) -> Expr:
                    return data[image, c, row, column]

                values = corners(y, x, height, width, pixel, clamp=True)
                if self.mode == "avg":
                    value = values[0] + values[1] + values[2] + values[3]
                else:
                    value = maximum(maximum(values[0], values[1]), maximum(values[2], values[3]))
                value = select(outside, const(0, wide), value)
                old = target[here]
                return store(
                    target, here, old + value if self.mode == "avg" else maximum(old, value)
                )

            rows, columns = spans[0][2], spans[1][2]
            loops = serial(
                height_near, lambda k: serial(width_near, lambda m: sample(k, m), name="m")
            )
            count = maximum(cast(rows, wide) * cast(columns, wide), one)
            if self.mode == "avg":
                return seq(
                    store(target, here, const(0, wide)),
                    loops,
                    store(target, here, target[here] / count),
                )
            # A cell without samples is 0, and so are those outside, which the loops may leave out.
            all_near = logical_and(EQ(height_near, rows), EQ(width_near, columns))
            filled = logical_and(all_near, rows > 0, columns > 0)
            start = select(filled, lowest(wide), const(0, wide))
            return seq(store(target, here, start), loops)

        b.block(target.shape, body, name="roi_align")
        return b.compute(target.shape, lambda *i: target[i], name="y", dtype=data.dtype)


@dataclass(frozen=True)
class RoiMaxPool(Operator):
    """image.roi_max_pool(data, regions): the maximum in each cell of a region cut into output_size
    cells; 0 where a cell is empty.

    data: (n, c, h, w). regions: (r, 5), image x1 y1 x2 y2, corners times spatial_scale.
    Result: (r, c, output_size...). Source: ONNX MaxRoiPool-22.
    """

    name = "image.roi_max_pool"
    output_size: tuple[int, int] = (1, 1)
    spatial_scale: float = 1.0

    def infer(self, data: Type, regions: Type) -> TensorType:
        """(r, c, output_size...)."""
        return _regions(self, data, regions, 5, self.output_size)

    def legalize(self, b: FunctionBuilder, data: Buffer, regions: Buffer) -> Buffer:
        """For each cell a loop over its pixels."""
        wide = accumulator(data.dtype)
        target = b.allocate(result_shape(self, data, regions), data.dtype, name="cell")
        scale = const(self.spatial_scale, wide)
        far = const(_MOST_SAMPLES, wide)
        images = _images(b, regions.shape[0], data.shape[0], lambda r: cast(regions[r, 0], wide))

        def within(corner: Expr) -> Expr:
            return maximum(minimum(corner, far), -far)

        def span(r: Expr, axis: int, cell: Expr) -> tuple[Expr, Expr]:
            """The first pixel of a cell and the one after its last, along an axis (0: rows)."""
            low, high = (
                cast(within(round(cast(regions[r, k], wide) * scale)), INT64)
                for k in (2 - axis, 4 - axis)
            )
            size = cast(maximum(high - low + 1, 1), wide) / const(self.output_size[axis], wide)
            first = cast(floor(cast(cell, wide) * size), INT64) + low
            after = cast(ceil(cast(cell + 1, wide) * size), INT64) + low
            limit = data.shape[2 + axis]
            return maximum(minimum(first, limit), 0), maximum(minimum(after, limit), 0)

        def body(r: Var, c: Var, i: Var, j: Var) -> Stmt:
            here = (r, c, i, j)
            top, bottom = span(r, 0, i)
            left, right = span(r, 1, j)
            image = images[r]
            empty = logical_or(bottom <= top, right <= left)
            start = select(empty, const(0, data.dtype), lowest(data.dtype))

            def step(k: Var, m: Var) -> Stmt:
                value = data[image, c, top + k, left + m]
                return store(target, here, maximum(target[here], value))

            height, width = maximum(bottom - top, 0), maximum(right - left, 0)
            loops = serial(height, lambda k: serial(width, lambda m: step(k, m), name="m"))
            return seq(store(target, here, start), loops)

        b.block(target.shape, body, name="roi_max_pool")
        return target


@dataclass(frozen=True)
class DeformConv2d(Operator):
    """nn.deform_conv2d(data, weight, offset, mask): nn.conv2d whose taps are moved by offsets, read
    between pixels, 0 outside, and times a mask.

    data: (n, c, h, w). weight: (o, c / groups, kh, kw). offset: (n, offset_groups * kh * kw * 2,
    windows...), rows before columns. mask: (n, offset_groups * kh * kw, windows...) or absent.
    Result: (n, o, windows...). Source: ONNX DeformConv-22; Dai et al., arXiv 1703.06211.
    """

    name = "nn.deform_conv2d"
    strides: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    offset_groups: int = 1

    def infer(self, data: Type, weight: Type, offset: Type, mask: Type | None = None) -> TensorType:
        """As nn.conv2d."""
        moved, factor = tensor(self, offset, "offset"), optional_tensor(self, mask, "mask")
        result = Conv2d(self.strides, self.padding, self.dilation, self.groups).infer(data, weight)
        for item, per_tap, what in ((moved, 2, "offset"), (factor, 1, "mask")):
            if item is None:
                continue
            require_rank(self, item, 4, what)
            kernel = tensor(self, weight, "weight").shape
            if item.shape is None or result.shape is None or kernel is None:
                continue
            taps = kernel[2] * kernel[3] * (per_tap * self.offset_groups)
            require_same(
                self, item.shape[1], simplify(taps), f"the channels of {what} and its taps"
            )
            for axis in (0, 2, 3):
                wanted = result.shape[axis]
                require_same(
                    self, item.shape[axis], wanted, f"axis {axis} of {what} and the result"
                )
        if self.offset_groups < 1:
            fail(self, f"offset_groups must be positive, got {self.offset_groups}")
        return result

    def legalize(
        self,
        b: FunctionBuilder,
        data: Buffer,
        weight: Buffer,
        offset: Buffer,
        mask: Buffer | None = None,
    ) -> Buffer:
        """The pixels of every window, then one sum of products."""
        shape = result_shape(self, data, weight, offset, mask)
        n, channels, height, width = data.shape
        outputs, per_group, rows, columns = weight.shape
        strides = per_axis(self, self.strides, 2, "strides")
        dilation = per_axis(self, self.dilation, 2, "dilation")
        before, _ = padding_of(self, self.padding, 2)
        wide = accumulator(data.dtype)
        share = simplify(channels // self.offset_groups)

        def column(*i: Var) -> Expr:
            image, c, k, m, p, q = i
            tap = (c // share) * (rows * columns) + k * columns + m
            moves = [cast(offset[image, tap * 2 + axis, p, q], wide) for axis in (0, 1)]
            y, x = (
                cast(out * stride - low + step * apart, wide) + move
                for out, stride, low, step, apart, move in zip(
                    (p, q), strides, before, (k, m), dilation, moves, strict=True
                )
            )

            def pixel(row: Expr, at: Expr) -> Expr:
                return data[image, c, row, at]

            found = corners(y, x, height, width, pixel, clamp=False)
            value = found[0] + found[1] + found[2] + found[3]
            return value if mask is None else value * cast(mask[image, tap, p, q], wide)

        pixels = b.compute((n, channels, rows, columns, *shape[2:]), column, name="pixels")
        outer = simplify(outputs // self.groups)

        def factors(*i: Expr) -> tuple[Expr, ...]:
            image, o, p, q, c, k, m = i
            source = c if self.groups == 1 else o // outer * per_group + c
            return pixels[image, source, k, m, p, q], weight[o, c, k, m]

        return contraction(b, shape, (per_group, rows, columns), factors, data.dtype, "conv")


@dataclass(frozen=True)
class Col2Im(Operator):
    """nn.col2im(x, size, block): blocks of an image put where they come from, added where they
    overlap.

    x: (n, c * block elements, windows). size: the image's. block: a block's. strides, dilation,
    padding: of the windows, as of nn.conv2d. Result: (n, c, size...). Source: ONNX Col2Im-18.
    """

    name = "nn.col2im"
    strides: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1

    def infer(self, x: Type, size: Type, block: Type) -> TensorType:
        """(n, c, size...). That the windows fit is refused only where it is provably wrong."""
        data = tensor(self, x, "x")
        require_rank(self, data, 3, "x")
        sizes, taps = shape(self, size, "size"), shape(self, block, "block")
        if sizes is None or taps is None or data.shape is None:
            return unknown_like(data, ndim=-1 if sizes is None else len(sizes) + 2)
        for what, values in (("size", sizes), ("block", taps)):
            if any((as_int(value) or 0) < 0 for value in values):
                fail(self, f"{what} must not be negative, got {values!r}")
        if len(sizes) != len(taps):
            fail(self, f"size has {len(sizes)} values, block {len(taps)}")
        positive_per_axis(self, self.strides, len(taps), "strides")
        positive_per_axis(self, self.dilation, len(taps), "dilation")
        elements = simplify(product(as_sizes(taps)))
        channels, known = as_int(data.shape[1]), as_int(elements)
        if channels is not None and known and channels % known:
            fail(self, f"{channels} channels do not divide into blocks of {known}")
        windows = simplify(product(self.windows(as_sizes(sizes), as_sizes(taps))))
        if same(data.shape[2], windows) is False:
            fail(self, f"x has {data.shape[2]!r} windows, size and block give {windows!r}")
        c = simplify(data.shape[1] // elements)
        require_finishable(self, (data.shape[0], c, *as_sizes(sizes), *as_sizes(taps)))
        return with_shape(data, [data.shape[0], c, *as_sizes(sizes)])

    def windows(self, sizes: Sequence[Expr], block: Sequence[Expr]) -> list[Expr]:
        """The number of windows along each axis."""
        rank = len(block)
        strides = per_axis(self, self.strides, rank, "strides")
        dilation = per_axis(self, self.dilation, rank, "dilation")
        before, after = padding_of(self, self.padding, rank)
        return [
            simplify((n + (low + high) - (k - 1) * apart - 1) // stride + 1)
            for n, k, stride, apart, low, high in zip(
                sizes, block, strides, dilation, before, after, strict=True
            )
        ]

    def legalize(
        self, b: FunctionBuilder, x: Buffer, size: tuple[Expr, ...], block: tuple[Expr, ...]
    ) -> Buffer:
        """A sum over the taps that reach an output, the others adding zero."""
        rank = len(block)
        extents = as_sizes(block)
        strides = per_axis(self, self.strides, rank, "strides")
        dilation = per_axis(self, self.dilation, rank, "dilation")
        before, _ = padding_of(self, self.padding, rank)
        windows = self.windows(as_sizes(size), extents)
        wide = accumulator(x.dtype)

        def term(*i: Expr) -> Expr:
            image, channel, *place = i[: rank + 2]
            taps = i[rank + 2 :]
            reached: list[Expr] = []
            at: Expr = IntImm(0)
            for axis in range(rank):
                channel = channel * extents[axis] + taps[axis]
                spot = place[axis] + before[axis] - taps[axis] * dilation[axis]
                number = spot // strides[axis]
                reached += [EQ(spot % strides[axis], IntImm(0)), spot >= 0, number < windows[axis]]
                at = at * windows[axis] + number
            reached.append(at < x.shape[2])
            value = x[image, channel, at]
            return cast(if_then_else(logical_and(*reached), value, const(0, x.dtype)), wide)

        total = b.reduce(result_shape(self, x, size, block), extents, term, name="total")
        return b.compute(total.shape, lambda *i: total[i], name="y", dtype=x.dtype)
