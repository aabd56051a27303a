"""Signals: Fourier transforms, frames, mel filters."""

from __future__ import annotations

import math as numbers
from dataclasses import dataclass

from transect.ir.dtype import FLOAT32, FLOAT64, INT64, DType
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
    select,
)
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    as_sizes,
    fail,
    require_finishable,
    require_float,
    require_rank,
    shape,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import accumulator, math, result_shape
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import floor, if_then_else


@dataclass(frozen=True)
class Fourier(Operator):
    """signal.dft(x, length, axis): the discrete Fourier transform along `axis`.

    x: (..., 1) real or (..., 2) complex, float. length: a shape of one value, what the axis is cut
    or filled with zeros to. axis: a shape of one value, not negative, nor that of the parts.
    inverse: with the other sign, over the length. onesided: of a real signal the first
    length // 2 + 1 values; inverted, the real signal of `length` that these say.
    Result: (..., 2), or (..., 1) of an inverted half. Source: ONNX DFT-20.
    """

    name = "signal.dft"
    inverse: bool = False
    onesided: bool = False

    def infer(self, x: Type, length: Type, axis: Type) -> TensorType:
        """The axis of its new extent, real and imaginary parts last."""
        data = tensor(self, x, "x")
        require_float(self, data)
        sizes = shape(self, length, "length")
        axes = shape(self, axis, "axis")
        if data.shape is None or sizes is None or axes is None:
            return unknown_like(data)
        if len(sizes) != 1 or len(axes) != 1:
            fail(self, "length and axis must have 1 value each")
        if data.ndim < 2:
            fail(self, f"x must have at least 2 dimensions, got {data.ndim}")
        parts = as_int(data.shape[-1])
        if parts not in (1, 2):
            fail(self, f"the last extent of x must be 1 or 2, got {data.shape[-1]!r}")
        if self.onesided and not self.inverse and parts != 1:
            fail(self, "only the transform of a real signal is onesided")
        place = axes[0]
        known = as_int(place)
        if known is not None and not 0 <= known < data.ndim - 1:
            fail(self, f"axis {known} of {data.ndim - 1} and the parts")
        (count,) = as_sizes(sizes)
        half = self.onesided and not self.inverse
        new = count // 2 + 1 if half else count
        extents = [
            simplify(select(EQ(place, IntImm(k)), new, old))
            for k, old in enumerate(data.shape[:-1])
        ]
        require_finishable(self, (*extents, count))
        parts_out = IntImm(1 if self.onesided and self.inverse else 2)
        return with_shape(data, [*extents, parts_out])

    def legalize(
        self, b: FunctionBuilder, x: Buffer, length: tuple[Expr, ...], axis: tuple[Expr, ...]
    ) -> Buffer:
        """Two tables, then a sum of products."""
        (count,) = as_sizes(length)
        wide = accumulator(x.dtype)
        chosen = [EQ(axis[0], IntImm(k)) for k in range(x.ndim - 1)]
        sign = 1.0 if self.inverse else -1.0

        def table(name: str) -> Buffer:
            def entry(k: Var) -> Expr:
                # In double precision: the tables are short, and their errors would add up.
                turn = cast(k, FLOAT64) / cast(count, FLOAT64)
                return cast(math(name, turn * const(2 * numbers.pi * sign, FLOAT64)), wide)

            return b.compute((count,), entry, name=name)

        cosine, sine = table("cos"), table("sin")
        mirrors = self.onesided and self.inverse
        complex_input = as_int(x.shape[-1]) == 2

        def term(*i: Expr) -> Expr:
            *place, part, j = i
            row: Expr = IntImm(0)
            extent: Expr = IntImm(1)
            for here, item, size in zip(chosen, place, x.shape, strict=False):
                row, extent = select(here, item, row), select(here, size, extent)
            turn = row * j % count
            # The second half of the spectrum of a real signal mirrors the first.
            folded = select(j * 2 > count, count - j, j) if mirrors else j
            inside = folded < extent
            at = tuple(select(here, folded, item) for here, item in zip(chosen, place, strict=True))
            real = cast(if_then_else(inside, x[(*at, 0)], 0), wide)
            c, s = cosine[turn], sine[turn]
            if not complex_input:
                return real * select(EQ(part, IntImm(0)), c, s)
            imaginary = cast(if_then_else(inside, x[(*at, 1)], 0), wide)
            if mirrors:
                return real * c - select(j * 2 > count, -imaginary, imaginary) * s
            return select(EQ(part, IntImm(0)), real * c - imaginary * s, real * s + imaginary * c)

        total = b.reduce(result_shape(self, x, length, axis), (count,), term, name="total")

        def element(*i: Var) -> Expr:
            value = total[i]
            return cast(value / cast(count, wide) if self.inverse else value, x.dtype)

        return b.compute(total.shape, element, name="y", dtype=x.dtype)


@dataclass(frozen=True)
class Frames(Operator):
    """signal.frames(x, length, step): overlapping pieces of a signal.

    x: (batch, samples, parts). length, step: shapes of one value. Result: (batch, frames, length,
    parts), with as many frames as fit. Source: ONNX STFT-17.
    """

    name = "signal.frames"

    def infer(self, x: Type, length: Type, step: Type) -> TensorType:
        """(batch, frames, length, parts)."""
        data = tensor(self, x, "x")
        require_rank(self, data, 3, "x")
        sizes, steps = shape(self, length, "length"), shape(self, step, "step")
        if sizes is None or steps is None or data.shape is None:
            return unknown_like(data, ndim=4)
        if len(sizes) != 1 or len(steps) != 1:
            fail(self, "length and step must have 1 value each")
        (count,), (stride,) = as_sizes(sizes), as_sizes(steps)
        known = as_int(stride)
        if known is not None and known < 1:
            fail(self, f"step must be positive, got {known}")
        batch, samples, parts = data.shape
        frames = simplify((samples - count) // stride + 1)
        return with_shape(data, (batch, frames, count, parts))

    def legalize(
        self, b: FunctionBuilder, x: Buffer, length: tuple[Expr, ...], step: tuple[Expr, ...]
    ) -> Buffer:
        """One map."""
        (stride,) = as_sizes(step)

        def element(batch: Var, frame: Var, i: Var, part: Var) -> Expr:
            return x[batch, frame * stride + i, part]

        return b.compute(result_shape(self, x, length, step), element, name="y")


@dataclass(frozen=True)
class MelWeights(Operator):
    """signal.mel_weights(size, rate, low, high): the matrix that takes a spectrum to mel bands.

    size: the shape (bands, length of the transform). rate: samples in a second, an integer scalar
    tensor. low, high: float scalar tensors, the range in Hertz.
    Result: (length // 2 + 1, bands) of `dtype`. Source: ONNX MelWeightMatrix-17.
    """

    name = "signal.mel_weights"
    dtype: DType = FLOAT32

    def infer(self, size: Type, rate: Type, low: Type, high: Type) -> TensorType:
        """(length // 2 + 1, bands)."""
        for item, what in ((rate, "rate"), (low, "low"), (high, "high")):
            require_rank(self, tensor(self, item, what), 0, what)
        sizes = shape(self, size, "size")
        if sizes is None:
            return TensorType(None, self.dtype, 2, None)
        if len(sizes) != 2:
            fail(self, f"size must have 2 values, got {len(sizes)}")
        bands, length = as_sizes(sizes)
        return tensor_type((simplify(length // 2 + 1), bands), self.dtype)

    def legalize(
        self,
        b: FunctionBuilder,
        size: tuple[Expr, ...],
        rate: Buffer,
        low: Buffer,
        high: Buffer,
    ) -> Buffer:
        """The edges of the bands, then one map."""
        bands, length = as_sizes(size)
        wide = FLOAT64

        def number(value: float) -> Expr:
            return const(value, wide)

        def mel(frequency: Expr) -> Expr:
            ratio = number(1) + cast(frequency, wide) / number(700)
            return number(2595) * math("log10", ratio)

        def edge(k: Var) -> Expr:
            first, last = mel(low[()]), mel(high[()])
            step = (last - first) / cast(bands + 2, wide)
            place = cast(k, wide) * step + first
            frequency = number(700) * (math("pow", number(10), place / number(2595)) - number(1))
            bins = cast(length + 1, wide) * frequency / cast(rate[()], wide)
            return cast(floor(bins), INT64)

        edges = b.compute((bands + 2,), edge, name="edges")

        def element(i: Var, j: Var) -> Expr:
            left, middle, right = edges[j], edges[j + 1], edges[j + 2]
            rising, falling = middle - left, right - middle
            up = cast(i - left, wide) / cast(select(NE(rising, IntImm(0)), rising, 1), wide)
            down = cast(right - i, wide) / cast(select(NE(falling, IntImm(0)), falling, 1), wide)
            before = logical_and(i >= left, i < middle)
            after = logical_and(i > middle, i < right)
            aside = select(before, up, select(after, down, number(0)))
            return select(EQ(i, middle), number(1), aside)

        return b.compute(result_shape(self, size, rate, low, high), element, dtype=self.dtype)
