"""Convolutions and their transposes, in one to three spatial dimensions and any axis order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import DType
from transect.ir.expr import EQ, Expr, IntImm, as_int, const, logical_and
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    common_device,
    common_dtype,
    fail,
    require_finishable,
    require_number,
    require_rank,
    require_same,
    simplify,
    tensor,
)
from transect.relax.op.linear_algebra import contraction
from transect.relax.op.loops import result_type
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
from transect.tir.op import if_then_else


@dataclass(frozen=True)
class Convolution(Operator):
    """Base of what convolutions and their transposes check and share."""

    rank: ClassVar[int] = 2
    kernel_plain: ClassVar[str] = "OI"

    def layouts(self, data: str, kernel: str, out: str | None) -> tuple[Layout, Layout, Layout]:
        """The layouts of data, weight and result, the last by default that of the data."""
        letters = SPATIAL[self.rank]
        return (
            layout(self, data, "NC" + letters, "data_layout"),
            layout(self, kernel, self.kernel_plain + letters, "kernel_layout"),
            layout(self, data if out is None else out, "NC" + letters, "out_layout"),
        )

    def operands(
        self, data: Type, weight: Type, out_dtype: DType | None
    ) -> tuple[TensorType, TensorType, TensorType]:
        """The operands' types, and that of the result without its shape."""
        x, w = tensor(self, data, "data"), tensor(self, weight, "weight")
        require_rank(self, x, self.rank + 2, "data")
        require_rank(self, w, self.rank + 2, "weight")
        require_number(self, x, "data")
        require_number(self, w, "weight")
        dtype = common_dtype(self, x, w) if out_dtype is None else out_dtype
        return x, w, tensor_type(None, dtype, self.rank + 2, common_device(self, x, w))


@dataclass(frozen=True)
class Conv(Convolution):
    """Base of the convolutions (cross-correlations, as in all of machine learning)."""

    strides: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    data_layout: str = "NCHW"
    kernel_layout: str = "OIHW"
    out_layout: str | None = None
    out_dtype: DType | None = None

    def infer(self, data: Type, weight: Type) -> TensorType:
        """(n, o, windows...) in the result's layout."""
        x, w, result = self.operands(data, weight, self.out_dtype)
        orders = self.layouts(self.data_layout, self.kernel_layout, self.out_layout)
        strides = positive_per_axis(self, self.strides, self.rank, "strides")
        dilation = positive_per_axis(self, self.dilation, self.rank, "dilation")
        before, after = padding_of(self, self.padding, self.rank)
        if self.groups < 1:
            fail(self, f"groups must be positive, got {self.groups}")
        if x.shape is None or w.shape is None:
            return result
        n, c, *sizes = orders[0].to_plain(x.shape)
        o, i, *window = orders[1].to_plain(w.shape)
        require_same(self, c, simplify(i * self.groups), "the input channels and groups * weight's")
        known = as_int(o)
        if known is not None and known % self.groups:
            fail(self, f"{known} output channels do not divide into {self.groups} groups")
        require_finishable(self, padded_sizes(sizes, before, after), "its padding")
        counts = [
            window_count(self, size, k, s, low, high, dilation=d)
            for size, k, s, low, high, d in zip(
                sizes, window, strides, before, after, dilation, strict=True
            )
        ]
        shape = orders[2].from_plain((n, o, *counts))
        return tensor_type(shape, result.dtype, device=result.device)

    def legalize(self, b: FunctionBuilder, data: Buffer, weight: Buffer) -> Buffer:
        """The padding, then one sum of products."""
        result = result_type(self, data, weight)
        dtype = result.dtype or data.dtype
        orders = self.layouts(self.data_layout, self.kernel_layout, self.out_layout)
        strides = per_axis(self, self.strides, self.rank, "strides")
        dilation = per_axis(self, self.dilation, self.rank, "dilation")
        before, after = padding_of(self, self.padding, self.rank)
        letters = SPATIAL[self.rank]
        padded = pad_spatial(
            b,
            data,
            spread(before, self.data_layout, letters),
            spread(after, self.data_layout, letters),
            const(0, data.dtype),
        )
        out_channels, channels, *window = orders[1].to_plain(weight.shape)
        per_group = simplify(out_channels // self.groups)

        def factors(*i: Expr) -> tuple[Expr, ...]:
            n, o, *place = orders[2].to_plain(i[: self.rank + 2])
            c, *k = i[self.rank + 2 :]
            source: list[Expr] = [
                simplify(p * s + q * d)
                for p, s, q, d in zip(place, strides, k, dilation, strict=True)
            ]
            channel = c if self.groups == 1 else simplify(o // per_group * channels + c)
            return orders[0].at(padded, (n, channel, *source)), orders[1].at(weight, (o, c, *k))

        sizes = result.shape or ()
        return contraction(b, sizes, (channels, *window), factors, dtype, "conv")


@dataclass(frozen=True)
class Conv1d(Conv):
    """nn.conv1d(data, weight): the sum over channels and taps of data times weight, at strides.

    data: (n, c, w). weight: (o, c / groups, k). Result: (n, o, windows), windows = (w + padding -
    dilation * (k - 1) - 1) // strides + 1, each in its own layout. padding: one value, or (left,
    right). out_dtype: of the products and the result. Source: ONNX Conv-11.
    """

    name = "nn.conv1d"
    rank = 1
    data_layout: str = "NCW"
    kernel_layout: str = "OIW"


@dataclass(frozen=True)
class Conv2d(Conv):
    """nn.conv2d(data, weight): the sum over channels and taps of data times weight, at strides.

    data: (n, c, h, w). weight: (o, c / groups, kh, kw). Result: (n, o, windows...), windows =
    (size + padding - dilation * (k - 1) - 1) // strides + 1, each in its own layout. padding: one
    value, (vertical, horizontal), or (top, left, bottom, right). out_dtype: of the products and
    the result. Source: ONNX Conv-11.
    """

    name = "nn.conv2d"


@dataclass(frozen=True)
class Conv3d(Conv):
    """nn.conv3d(data, weight): the sum over channels and taps of data times weight, at strides.

    data: (n, c, d, h, w). weight: (o, c / groups, kd, kh, kw). Result: (n, o, windows...), as of
    nn.conv2d. padding: one value, one for each axis, or all before and then all after.
    Source: ONNX Conv-11.
    """

    name = "nn.conv3d"
    rank = 3
    data_layout: str = "NCDHW"
    kernel_layout: str = "OIDHW"


@dataclass(frozen=True)
class ConvTranspose(Convolution):
    """Base of the transposes of convolutions: what distributes each input over a window."""

    kernel_plain = "IO"
    strides: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    output_padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    data_layout: str = "NCHW"
    kernel_layout: str = "IOHW"
    out_layout: str | None = None
    out_dtype: DType | None = None

    def infer(self, data: Type, weight: Type) -> TensorType:
        """(n, o, sizes...) in the result's layout."""
        x, w, result = self.operands(data, weight, self.out_dtype)
        orders = self.layouts(self.data_layout, self.kernel_layout, self.out_layout)
        strides = positive_per_axis(self, self.strides, self.rank, "strides")
        dilation = positive_per_axis(self, self.dilation, self.rank, "dilation")
        before, after = padding_of(self, self.padding, self.rank)
        extra = per_axis(self, self.output_padding, self.rank, "output_padding")
        if self.groups < 1:
            fail(self, f"groups must be positive, got {self.groups}")
        if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, strides, dilation, strict=True)):
            fail(self, f"output_padding must be below the stride or the dilation, got {extra}")
        if x.shape is None or w.shape is None:
            return result
        n, c, *sizes = orders[0].to_plain(x.shape)
        i, o, *window = orders[1].to_plain(w.shape)
        require_same(self, c, i, "the input channels of data and weight")
        known = as_int(c)
        if known is not None and known % self.groups:
            fail(self, f"{known} input channels do not divide into {self.groups} groups")
        outer: list[Expr] = []
        for axis, size in enumerate(sizes):
            reach = dilation[axis] * (window[axis] - 1) + 1 + extra[axis]
            whole = (size - 1) * strides[axis] + reach - (before[axis] + after[axis])
            outer.append(simplify(whole))
        shape = orders[2].from_plain((n, simplify(o * self.groups), *outer))
        return tensor_type(shape, result.dtype, device=result.device)

    def legalize(self, b: FunctionBuilder, data: Buffer, weight: Buffer) -> Buffer:
        """One sum of products over the taps that reach an output, the others adding zero."""
        result = result_type(self, data, weight)
        dtype = result.dtype or data.dtype
        orders = self.layouts(self.data_layout, self.kernel_layout, self.out_layout)
        strides = per_axis(self, self.strides, self.rank, "strides")
        dilation = per_axis(self, self.dilation, self.rank, "dilation")
        before, _ = padding_of(self, self.padding, self.rank)
        _, channels, *sizes = orders[0].to_plain(data.shape)
        _, per_group, *window = orders[1].to_plain(weight.shape)
        channels = simplify(channels // self.groups)

        def factors(*i: Expr) -> tuple[Expr, ...]:
            n, o, *place = orders[2].to_plain(i[: self.rank + 2])
            c, *k = i[self.rank + 2 :]
            if self.groups > 1:
                c = o // per_group * channels + c
                o = o % per_group
            reached: list[Expr] = []
            source: list[Expr] = []
            for axis, stride in enumerate(strides):
                spot = place[axis] + before[axis] - k[axis] * dilation[axis]
                source.append(spot if stride == 1 else spot // stride)
                if stride != 1:
                    reached.append(EQ(spot % stride, IntImm(0)))
                reached += [spot >= 0, source[axis] < sizes[axis]]
            value = orders[0].at(data, (n, c, *source))
            return (
                if_then_else(logical_and(*reached), value, const(0, data.dtype)),
                orders[1].at(weight, (c, o, *k)),
            )

        shape = result.shape or ()
        return contraction(b, shape, (channels, *window), factors, dtype, "conv_transpose")


@dataclass(frozen=True)
class Conv1dTranspose(ConvTranspose):
    """nn.conv1d_transpose(data, weight): each input, times weight, added to a window at strides.

    data: (n, c, w). weight: (c, o / groups, k). Result: (n, o, (w - 1) * strides - padding +
    dilation * (k - 1) + 1 + output_padding). Source: ONNX ConvTranspose-11.
    """

    name = "nn.conv1d_transpose"
    rank = 1
    data_layout: str = "NCW"
    kernel_layout: str = "IOW"


@dataclass(frozen=True)
class Conv2dTranspose(ConvTranspose):
    """nn.conv2d_transpose(data, weight): each input, times weight, added to a window at strides.

    data: (n, c, h, w). weight: (c, o / groups, kh, kw). Result: (n, o, sizes...), each
    (size - 1) * strides - padding + dilation * (k - 1) + 1 + output_padding.
    Source: ONNX ConvTranspose-11.
    """

    name = "nn.conv2d_transpose"


@dataclass(frozen=True)
class Conv3dTranspose(ConvTranspose):
    """nn.conv3d_transpose(data, weight): each input, times weight, added to a window at strides.

    data: (n, c, d, h, w). weight: (c, o / groups, kd, kh, kw). Result: (n, o, sizes...), as of
    nn.conv2d_transpose. Source: ONNX ConvTranspose-11.
    """

    name = "nn.conv3d_transpose"
    rank = 3
    data_layout: str = "NCDHW"
    kernel_layout: str = "IODHW"
