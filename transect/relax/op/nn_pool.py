"""Pooling: maxima and means over sliding windows, and over windows that adapt to an output size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import Expr, IntImm, Var, as_int, cast, logical_and, maximum, minimum
from transect.ir.sizes import ceildiv
from transect.ir.types import TensorType, Type
from transect.relax.op.inference import (
    fail,
    require_finishable,
    require_number,
    require_rank,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import accumulator, result_shape
from transect.relax.op.operator import Operator
from transect.relax.op.windows import (
    SPATIAL,
    Layout,
    layout,
    pad_spatial,
    padded_sizes,
    padding_of,
    per_axis,
    positive_per_axis,
    spread,
    window_count,
)
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import if_then_else, lowest


@dataclass(frozen=True)
class Pool(Operator):
    """Base of the pools over sliding windows."""

    rank: ClassVar[int] = 2

    pool_size: int | tuple[int, ...] = 1
    strides: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False
    count_include_pad: bool = False
    layout: str = "NCHW"
    out_layout: str | None = None

    def orders(self) -> tuple[Layout, Layout]:
        """The layouts of the operand and of the result."""
        return pool_layouts(self, self.layout, self.out_layout, self.rank)

    def infer(self, data: Type) -> TensorType:
        """(n, c, windows...) in the result's layout."""
        x = tensor(self, data, "data")
        require_rank(self, x, self.rank + 2, "data")
        require_number(self, x, "data")
        orders = self.orders()
        window = positive_per_axis(self, self.pool_size, self.rank, "pool_size")
        strides = positive_per_axis(self, self.strides, self.rank, "strides")
        dilation = positive_per_axis(self, self.dilation, self.rank, "dilation")
        before, after = padding_of(self, self.padding, self.rank)
        for axis in range(self.rank):
            if max(before[axis], after[axis]) > dilation[axis] * (window[axis] - 1):
                fail(self, f"the padding {self.padding} leaves windows that hold only padding")
        if x.shape is None:
            require_finishable(self, map(IntImm, window))
            return unknown_like(x, ndim=self.rank + 2)
        n, c, *sizes = orders[0].to_plain(x.shape)
        require_finishable(self, padded_sizes(sizes, before, after), "its padding")
        counts = [
            window_count(
                self,
                size,
                IntImm(window[axis]),
                strides[axis],
                before[axis],
                after[axis],
                dilation=dilation[axis],
                ceil_mode=self.ceil_mode,
            )
            for axis, size in enumerate(sizes)
        ]
        require_finishable(self, (n, c, *counts, *map(IntImm, window)))
        return with_shape(x, orders[1].from_plain((n, c, *counts)))

    def places(self, i: Sequence[Expr], k: Sequence[Expr]) -> tuple[list[Expr], list[Expr]]:
        """Indices (n, c) and positions along the padded axes of tap `k` of the result's `i`."""
        strides = per_axis(self, self.strides, self.rank, "strides")
        dilation = per_axis(self, self.dilation, self.rank, "dilation")
        n, c, *place = self.orders()[1].to_plain(i)
        source: list[Expr] = [
            p * s + q * d for p, s, q, d in zip(place, strides, k, dilation, strict=True)
        ]
        return [n, c], source


def pool_layouts(op: Operator, data: str, out: str | None, rank: int) -> tuple[Layout, Layout]:
    """The layouts of the operand and of the result, by default the same."""
    plain = "NC" + SPATIAL[rank]
    return (
        layout(op, data, plain, "layout"),
        layout(op, data if out is None else out, plain, "out_layout"),
    )


@dataclass(frozen=True)
class MaxPool(Pool):
    """Base of the maxima over windows."""

    def legalize(self, b: FunctionBuilder, data: Buffer) -> Buffer:
        """The padding with the least value, then one reduction."""
        orders = self.orders()
        window = per_axis(self, self.pool_size, self.rank, "pool_size")
        strides = per_axis(self, self.strides, self.rank, "strides")
        before, after = padding_of(self, self.padding, self.rank)
        # In ceil mode the last window may reach past the padding, by less than a stride.
        reach = [
            high + (stride - 1 if self.ceil_mode else 0)
            for high, stride in zip(after, strides, strict=True)
        ]
        letters = SPATIAL[self.rank]
        padded = pad_spatial(
            b,
            data,
            spread(before, self.layout, letters),
            spread(reach, self.layout, letters),
            lowest(data.dtype),
        )

        def element(*i: Expr) -> Expr:
            outer, source = self.places(i[: self.rank + 2], i[self.rank + 2 :])
            return orders[0].at(padded, (*outer, *source))

        return b.reduce(result_shape(self, data), window, element, combiner="max", name="pool")


@dataclass(frozen=True)
class AvgPool(Pool):
    """Base of the means over windows."""

    def legalize(self, b: FunctionBuilder, data: Buffer) -> Buffer:
        """A sum over each window's elements inside the tensor, then a division."""
        orders = self.orders()
        wide = accumulator(data.dtype)
        window = per_axis(self, self.pool_size, self.rank, "pool_size")
        dilation = per_axis(self, self.dilation, self.rank, "dilation")
        before, after = padding_of(self, self.padding, self.rank)
        _, _, *sizes = orders[0].to_plain(data.shape)
        shape = result_shape(self, data)
        cut = self.ceil_mode or any((*before, *after))

        def element(*i: Expr) -> Expr:
            outer, source = self.places(i[: self.rank + 2], i[self.rank + 2 :])
            inside: list[Expr] = []
            for axis, size in enumerate(sizes):
                if before[axis]:
                    source[axis] = source[axis] - before[axis]
                    inside.append(source[axis] >= 0)
                if after[axis] or self.ceil_mode:
                    inside.append(source[axis] < size)
            value = cast(orders[0].at(data, (*outer, *source)), wide)
            return if_then_else(logical_and(*inside), value, 0)

        total = b.reduce(shape, window, element, combiner="sum", name="total")

        def divided(*i: Var) -> Expr:
            count: Expr = IntImm(1)
            _, start = self.places(i, [IntImm(0)] * self.rank)
            for axis, size in enumerate(sizes):
                taps = IntImm(window[axis])
                if not cut:
                    count = count * taps
                elif self.count_include_pad:
                    padded = size + (before[axis] + after[axis])
                    count = count * _taps(start[axis], IntImm(0), padded, taps, dilation[axis])
                else:
                    first = start[axis] - before[axis]
                    count = count * _taps(first, IntImm(0), size, taps, dilation[axis])
            if wide.is_float:
                return cast(total[i] / cast(count, wide), data.dtype)
            return cast(total[i] // cast(count, wide), data.dtype)

        return b.compute(shape, divided, name="y", dtype=data.dtype)


def _taps(start: Expr, low: Expr, high: Expr, taps: Expr, dilation: int) -> Expr:
    """How many of the positions start + k * dilation, k < taps, lie in [low, high)."""
    last = minimum(ceildiv(high - start, dilation), taps)
    return last - maximum(ceildiv(low - start, dilation), 0)


@dataclass(frozen=True)
class Adaptive(Operator):
    """Base of the pools whose windows cut the axes into `output_size` parts, overlapping by at
    most one element: part i is [floor(i * n / parts), ceil((i + 1) * n / parts)).

    output_size: one value, or one for each axis; None keeps the axes' extents.
    """

    rank: ClassVar[int] = 2

    output_size: int | tuple[int, ...] | None = None
    layout: str = "NCHW"
    out_layout: str | None = None

    def parts(self, sizes: Sequence[Expr]) -> tuple[Expr, ...]:
        """The extents of the result's spatial axes."""
        if self.output_size is None:
            return tuple(sizes)
        counts = positive_per_axis(self, self.output_size, self.rank, "output_size")
        return tuple(IntImm(count) for count in counts)

    def infer(self, data: Type) -> TensorType:
        """(n, c, parts...) in the result's layout."""
        x = tensor(self, data, "data")
        require_rank(self, x, self.rank + 2, "data")
        require_number(self, x, "data")
        orders = pool_layouts(self, self.layout, self.out_layout, self.rank)
        if x.shape is None:
            return unknown_like(x, ndim=self.rank + 2)
        n, c, *sizes = orders[0].to_plain(x.shape)
        return with_shape(x, orders[1].from_plain((n, c, *self.parts(sizes))))

    def reduce(
        self,
        b: FunctionBuilder,
        data: Buffer,
        value: Callable[[Expr], Expr],
        combiner: str,
        other: Expr,
    ) -> tuple[Buffer, Callable[[Sequence[Expr]], Expr]]:
        """The block that combines each window's elements (`other` stands for those beyond it),
        and the number of elements of the window at given indices."""
        orders = pool_layouts(self, self.layout, self.out_layout, self.rank)
        _, _, *sizes = orders[0].to_plain(data.shape)
        parts = self.parts(sizes)
        windows: list[Expr] = []
        even: list[bool] = []
        for size, count in zip(sizes, parts, strict=True):
            whole = as_int(simplify(size % count)) == 0
            even.append(whole)
            # A part begins and ends inside an element each where the division is not even.
            windows.append(simplify(size // count if whole else (size - 1) // count + 2))

        def bounds(axis: int, place: Expr) -> tuple[Expr, Expr]:
            size, count = sizes[axis], parts[axis]
            return place * size // count, ceildiv((place + 1) * size, count)

        def element(*i: Expr) -> Expr:
            n, c, *place = orders[1].to_plain(i[: self.rank + 2])
            source: list[Expr] = []
            inside: list[Expr] = []
            for axis, k in enumerate(i[self.rank + 2 :]):
                if even[axis]:
                    source.append(place[axis] * windows[axis] + k)
                    continue
                start, end = bounds(axis, place[axis])
                source.append(start + k)
                inside.append(start + k < end)
            return if_then_else(
                logical_and(*inside), value(orders[0].at(data, (n, c, *source))), other
            )

        def elements(i: Sequence[Expr]) -> Expr:
            _, _, *place = orders[1].to_plain(i)
            result: Expr = IntImm(1)
            for axis in range(self.rank):
                start, end = bounds(axis, place[axis])
                result = result * (windows[axis] if even[axis] else end - start)
            return result

        shape = result_shape(self, data)
        return b.reduce(shape, windows, element, combiner=combiner, name="pool"), elements


@dataclass(frozen=True)
class AdaptiveAvgPool(Adaptive):
    """Base of the means over adaptive windows."""

    def legalize(self, b: FunctionBuilder, data: Buffer) -> Buffer:
        """A sum over each window, then a division."""
        wide = accumulator(data.dtype)

        def value(x: Expr) -> Expr:
            return cast(x, wide)

        total, count = self.reduce(b, data, value, "sum", cast(0, wide))

        def divided(*i: Var) -> Expr:
            number = cast(count(i), wide)
            return cast(total[i] / number if wide.is_float else total[i] // number, data.dtype)

        return b.compute(total.shape, divided, name="y", dtype=data.dtype)


@dataclass(frozen=True)
class AdaptiveMaxPool(Adaptive):
    """Base of the maxima over adaptive windows."""

    def legalize(self, b: FunctionBuilder, data: Buffer) -> Buffer:
        """One reduction."""

        def value(x: Expr) -> Expr:
            return x

        return self.reduce(b, data, value, "max", lowest(data.dtype))[0]


# --- entries -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaxPool1d(MaxPool):
    """nn.max_pool1d(data): the greatest element of each window; NaN if any is.

    data: (n, c, w) in `layout`. Result: (n, c, windows...); windows as of nn.conv1d, in ceil mode
    with those that are cut off at the end. Padding never wins.
    Source: ONNX MaxPool-22.
    """

    name = "nn.max_pool1d"
    rank = 1
    layout: str = "NCW"


@dataclass(frozen=True)
class MaxPool2d(MaxPool):
    """nn.max_pool2d(data): the greatest element of each window; NaN if any is.

    data: (n, c, h, w) in `layout`. Result: (n, c, windows...); windows as of nn.conv2d, in ceil
    mode with those that are cut off at the end. Padding never wins.
    Source: ONNX MaxPool-22.
    """

    name = "nn.max_pool2d"


@dataclass(frozen=True)
class MaxPool3d(MaxPool):
    """nn.max_pool3d(data): the greatest element of each window; NaN if any is.

    data: (n, c, d, h, w) in `layout`. Result: (n, c, windows...); windows as of nn.conv3d, in
    ceil mode with those that are cut off at the end. Padding never wins.
    Source: ONNX MaxPool-22.
    """

    name = "nn.max_pool3d"
    rank = 3
    layout: str = "NCDHW"


@dataclass(frozen=True)
class AvgPool1d(AvgPool):
    """nn.avg_pool1d(data): the mean of each window.

    data: (n, c, w) in `layout`. Result: (n, c, windows...); windows as of nn.conv1d, in ceil mode
    with those that are cut off at the end. count_include_pad: padding counts as zeros; else it is
    left out.
    Source: ONNX AveragePool-22.
    """

    name = "nn.avg_pool1d"
    rank = 1
    layout: str = "NCW"


@dataclass(frozen=True)
class AvgPool2d(AvgPool):
    """nn.avg_pool2d(data): the mean of each window.

    data: (n, c, h, w) in `layout`. Result: (n, c, windows...); windows as of nn.conv2d, in ceil
    mode with those that are cut off at the end. count_include_pad: padding counts as zeros; else
    it is left out.
    Source: ONNX AveragePool-22.
    """

    name = "nn.avg_pool2d"


@dataclass(frozen=True)
class AvgPool3d(AvgPool):
    """nn.avg_pool3d(data): the mean of each window.

    data: (n, c, d, h, w) in `layout`. Result: (n, c, windows...); windows as of nn.conv3d, in
    ceil mode with those that are cut off at the end. count_include_pad: padding counts as zeros;
    else it is left out.
    Source: ONNX AveragePool-22.
    """

    name = "nn.avg_pool3d"
    rank = 3
    layout: str = "NCDHW"


@dataclass(frozen=True)
class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """nn.adaptive_avg_pool1d(data): the mean of each of `output_size` parts.

    data: (n, c, w) in `layout`. Result: (n, c, output_size...).
    Source: torch.nn.functional.adaptive_avg_pool1d.
    """

    name = "nn.adaptive_avg_pool1d"
    rank = 1
    layout: str = "NCW"


@dataclass(frozen=True)
class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """nn.adaptive_avg_pool2d(data): the mean of each of `output_size` parts.

    data: (n, c, h, w) in `layout`. Result: (n, c, output_size...).
    Source: torch.nn.functional.adaptive_avg_pool2d.
    """

    name = "nn.adaptive_avg_pool2d"


@dataclass(frozen=True)
class AdaptiveAvgPool3d(AdaptiveAvgPool):
    """nn.adaptive_avg_pool3d(data): the mean of each of `output_size` parts.

    data: (n, c, d, h, w) in `layout`. Result: (n, c, output_size...).
    Source: torch.nn.functional.adaptive_avg_pool3d.
    """

    name = "nn.adaptive_avg_pool3d"
    rank = 3
    layout: str = "NCDHW"


@dataclass(frozen=True)
class AdaptiveMaxPool1d(AdaptiveMaxPool):
    """nn.adaptive_max_pool1d(data): the greatest element of each of `output_size` parts.

    data: (n, c, w) in `layout`. Result: (n, c, output_size...).
    NaN if any element is. Source: torch.nn.functional.adaptive_max_pool1d.
    """

    name = "nn.adaptive_max_pool1d"
    rank = 1
    layout: str = "NCW"


@dataclass(frozen=True)
class AdaptiveMaxPool2d(AdaptiveMaxPool):
    """nn.adaptive_max_pool2d(data): the greatest element of each of `output_size` parts.

    data: (n, c, h, w) in `layout`. Result: (n, c, output_size...).
    NaN if any element is. Source: torch.nn.functional.adaptive_max_pool2d.
    """

    name = "nn.adaptive_max_pool2d"


@dataclass(frozen=True)
class AdaptiveMaxPool3d(AdaptiveMaxPool):
    """nn.adaptive_max_pool3d(data): the greatest element of each of `output_size` parts.

    data: (n, c, d, h, w) in `layout`. Result: (n, c, output_size...).
    NaN if any element is. Source: torch.nn.functional.adaptive_max_pool3d.
    """

    name = "nn.adaptive_max_pool3d"
    rank = 3
    layout: str = "NCDHW"
