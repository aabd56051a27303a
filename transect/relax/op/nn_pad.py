"""Padding, and exchanging channels for space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transect.ir.expr import (
    Expr,
    IntImm,
    Var,
    as_int,
    const,
    logical_and,
    maximum,
    minimum,
    select,
)
from transect.ir.types import TensorType, Type
from transect.relax.expr import Op
from transect.relax.op.inference import (
    as_sizes,
    common_device,
    common_dtype,
    fail,
    optional_tensor,
    require_rank,
    require_same,
    shape,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import result_shape
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import if_then_else


def _mirrored(place: Expr, last: Expr, period: Expr) -> Expr:
    around = place % maximum(period, 1)
    return select(around <= last, around, period - around)


_SOURCE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "edge": lambda place, size: maximum(minimum(place, size - 1), 0),
    "circular": lambda place, size: place % size,
    "reflect": lambda place, size: _mirrored(place, size - 1, (size - 1) * 2),
    # The mirror stands between two elements: position -1 shows element 0.
    "symmetric": lambda place, size: select(
        place % (size * 2) < size, place % (size * 2), size * 2 - 1 - place % (size * 2)
    ),
}
"""Where the element at a position outside [0, size) comes from, by mode."""

_MODES = {"constant": "constant", "replicate": "edge", "wrap": "circular"} | {
    mode: mode for mode in _SOURCE
}


@dataclass(frozen=True)
class Pad(Operator):
    """nn.pad(x, pad_width, pad_mode, pad_value): x extended on both sides of its axes.

    pad_width: (before, after) of each axis, flat or in pairs; negative ones crop. pad_mode:
    "constant" (pad_value), "reflect" (without repeating the end), "symmetric" (repeating it),
    "edge" or "replicate", "circular" or "wrap". Source: ONNX Pad-21, numpy.pad.
    """

    name = "nn.pad"
    pad_width: tuple[int, ...] | tuple[tuple[int, int], ...] = ()
    pad_mode: str = "constant"
    pad_value: float = 0.0

    def widths(self, ndim: int) -> list[tuple[int, int]]:
        """(before, after) for each axis."""
        flat: list[int] = []
        for item in self.pad_width:
            flat += [item] if isinstance(item, int) else list(item)
        if len(flat) != 2 * ndim:
            fail(
                self,
                f"pad_width must have {2 * ndim} values for {ndim} dimensions, got {len(flat)}",
            )
        return list(zip(flat[::2], flat[1::2], strict=True))

    def infer(self, x: Type) -> TensorType:
        """The extents with the padding added."""
        data = tensor(self, x, "x")
        _mode(self, self.pad_mode)
        if data.ndim < 0:
            return unknown_like(data)
        flat = [IntImm(item) for pair in zip(*self.widths(data.ndim), strict=True) for item in pair]
        return _padded_type(self, data, flat, self.pad_mode)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        flat = [IntImm(item) for pair in zip(*self.widths(x.ndim), strict=True) for item in pair]
        fill = const(self.pad_value, x.dtype)
        return _padded(b, x, flat, self.pad_mode, fill, result_shape(self, x))


@dataclass(frozen=True)
class DynamicPad(Operator):
    """nn.dynamic_pad(x, widths, value): nn.pad with widths that are expressions.

    widths: a shape, before every axis and then after every axis; negative ones crop. value: a
    scalar tensor of the dtype of x, what to fill with; 0 by default. pad_mode: as of nn.pad.
    Source: ONNX Pad-21.
    """

    name = "nn.dynamic_pad"
    pad_mode: str = "constant"

    def infer(self, x: Type, widths: Type, value: Type | None = None) -> TensorType:
        """The extents with the padding added."""
        data = tensor(self, x, "x")
        _mode(self, self.pad_mode)
        fill = optional_tensor(self, value, "value")
        if fill is not None:
            require_rank(self, fill, 0, "value")
            common_dtype(self, data, fill)
            common_device(self, data, fill)
        values = shape(self, widths, "widths")
        if values is None or data.ndim < 0:
            return unknown_like(data)
        if len(values) != 2 * data.ndim:
            fail(self, f"widths must have {2 * data.ndim} values, got {len(values)}")
        return _padded_type(self, data, as_sizes(values), self.pad_mode)

    def legalize(
        self,
        b: FunctionBuilder,
        x: Buffer,
        widths: tuple[Expr, ...],
        value: Buffer | None = None,
    ) -> Buffer:
        """One map."""
        fill = const(0, x.dtype) if value is None else value[()]
        sizes = result_shape(self, x, widths)
        return _padded(b, x, as_sizes(widths), self.pad_mode, fill, sizes)


def _mode(op: Op, mode: str) -> str:
    if mode not in _MODES:
        fail(op, f"pad_mode must be one of {', '.join(_MODES)}, got {mode!r}")
    return _MODES[mode]


def _padded_type(op: Op, x: TensorType, widths: Sequence[Expr], mode: str) -> TensorType:
    """The type of `x` padded by `widths`, all before and then all after."""
    if x.shape is None:
        return x
    sizes: list[Expr] = []
    for axis, old in enumerate(x.shape):
        before, after = widths[axis], widths[axis + x.ndim]
        size = simplify(old + (before + after))
        known = as_int(size)
        if known is not None and known < 0:
            fail(op, f"axis {axis} of extent {old!r} cannot be cropped by {(before, after)}")
        if as_int(old) == 0 and known != 0 and mode != "constant":
            fail(op, f"axis {axis} of extent 0 has nothing to pad with")
        sizes.append(size)
    return with_shape(x, sizes)


def _padded(
    b: FunctionBuilder,
    x: Buffer,
    widths: Sequence[Expr],
    mode: str,
    fill: Expr,
    sizes: Sequence[Expr],
) -> Buffer:
    """The map that pads `x` by `widths`, all before and then all after."""

    def adds(width: Expr) -> bool:
        known = as_int(width)
        return known is None or known > 0

    def element(*i: Var) -> Expr:
        place: list[Expr] = []
        inside: list[Expr] = []
        for axis, extent in enumerate(x.shape):
            before, after = widths[axis], widths[axis + x.ndim]
            spot: Expr = i[axis] if as_int(before) == 0 else i[axis] - before
            if _MODES[mode] == "constant":
                inside += [spot >= 0] if adds(before) else []
                inside += [spot < extent] if adds(after) else []
            elif adds(before) or adds(after):
                # What is cropped does not show at the other end.
                skipped, lost = minimum(before, 0), minimum(after, 0)
                kept = simplify(extent + skipped + lost)
                spot = _SOURCE[_MODES[mode]](i[axis] - maximum(before, 0), kept) - skipped
            place.append(spot)
        return if_then_else(logical_and(*inside), x[tuple(place)], fill)

    return b.compute(tuple(sizes), element, name="y")


@dataclass(frozen=True)
class PixelShuffle(Operator):
    """nn.pixel_shuffle(x, upscale_factor): blocks of r × r channels as blocks of r × r pixels.

    x: (…, c * r * r, h, w). Result: (…, c, h * r, w * r). Source: ONNX DepthToSpace-13 (CRD).
    """

    name = "nn.pixel_shuffle"
    upscale_factor: int = 1

    def infer(self, x: Type) -> TensorType:
        """(…, c, h * r, w * r)."""
        data = tensor(self, x, "x")
        r = self.upscale_factor
        if r < 1:
            fail(self, f"upscale_factor must be positive, got {r}")
        if 0 <= data.ndim < 3:
            fail(self, f"x must have at least 3 dimensions, got {data.ndim}")
        if data.shape is None:
            return unknown_like(data)
        *lead, c, h, w = data.shape
        rest = simplify(c % (r * r))
        require_same(self, rest, simplify(0), "the channels left over by the blocks and 0")
        return with_shape(data, [*lead, simplify(c // (r * r)), simplify(h * r), simplify(w * r)])

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        r = self.upscale_factor

        def element(*i: Var) -> Expr:
            *lead, c, h, w = i
            channel = c * (r * r) + h % r * r + w % r
            return x[(*lead, channel, h // r, w // r)]

        return b.compute(result_shape(self, x), element, name="y")


@dataclass(frozen=True)
class PixelUnshuffle(Operator):
    """nn.pixel_unshuffle(x, downscale_factor): blocks of r × r pixels as blocks of r × r channels.

    x: (…, c, h * r, w * r). Result: (…, c * r * r, h, w). Source: torch.nn.functional.
    """

    name = "nn.pixel_unshuffle"
    downscale_factor: int = 1

    def infer(self, x: Type) -> TensorType:
        """(…, c * r * r, h, w)."""
        data = tensor(self, x, "x")
        r = self.downscale_factor
        if r < 1:
            fail(self, f"downscale_factor must be positive, got {r}")
        if 0 <= data.ndim < 3:
            fail(self, f"x must have at least 3 dimensions, got {data.ndim}")
        if data.shape is None:
            return unknown_like(data)
        *lead, c, h, w = data.shape
        for size in (h, w):
            require_same(self, simplify(size % r), simplify(0), "the pixels left over and 0")
        return with_shape(data, [*lead, simplify(c * (r * r)), simplify(h // r), simplify(w // r)])

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        r = self.downscale_factor

        def element(*i: Var) -> Expr:
            *lead, c, h, w = i
            inner = c % (r * r)
            return x[(*lead, c // (r * r), h * r + inner // r, w * r + inner % r)]

        return b.compute(result_shape(self, x), element, name="y")
