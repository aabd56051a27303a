"""The sliding windows of ONNX operators: strides, dilations and padding, also automatic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transect.frontend.onnx.node import Node
from transect.ir.dtype import DType
from transect.ir.expr import Expr, IntImm, as_int, maximum, truncdiv
from transect.ir.sizes import ceildiv
from transect.relax.expr import Value, constant

LAYOUTS = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW"), 3: ("NCDHW", "OIDHW")}
"""The layouts of data and kernel, by the number of spatial dimensions."""


@dataclass(frozen=True)
class Window:
    """strides, dilations, and the padding: all begins, then all ends.

    widths: the padding where it depends on dynamic dimensions; `padding` is then 0.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[int, ...]
    widths: tuple[Expr, ...] | None = None

    def fields(self) -> dict[str, Any]:
        """The same as fields of a graph operator."""
        return {"strides": self.strides, "dilation": self.dilations, "padding": self.padding}


def per_axis(node: Node, name: str, count: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with `count` values. Raises ImportModelError if it has another number."""
    values = tuple(node.attribute(name, [default] * count)) or (default,) * count
    if len(values) != count:
        raise node.error(f"{name} has {len(values)} values for {count}")
    return values


def window(
    node: Node, kernel: list[int], dims: tuple[Expr, ...], *, centred: bool = False
) -> Window:
    """The windows of a node whose data has dimensions (n, c, sizes...).

    centred: where automatic padding is negative, that is windows leave gaps, half of it is cropped
    at the begin, as pools do; convolutions crop at the end only.
    """
    rank = len(kernel)
    if len(dims) != rank + 2:
        raise node.error(f"a window of {rank} axes over a tensor of {len(dims)} dimensions")
    strides, dilations = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    mode = node.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return Window(strides, dilations, per_axis(node, "pads", 2 * rank, 0))
    none = (0,) * 2 * rank
    if mode == "VALID":
        return Window(strides, dilations, none)
    begins: list[Expr] = []
    ends: list[Expr] = []
    for dim, size, stride, dilation in zip(dims[2:], kernel, strides, dilations, strict=True):
        # There are always dim / stride windows, rounded up.
        reach = dilation * (size - 1) + 1
        total = node.simplify((ceildiv(dim, stride) - 1) * stride + reach - dim)
        spare = total if centred else maximum(total, 0)
        begin = node.simplify(truncdiv(spare if mode == "SAME_UPPER" else spare + 1, 2))
        begins.append(begin)
        ends.append(node.simplify(total - begin))
    known = [as_int(width) for width in (*begins, *ends)]
    numbers = [width for width in known if width is not None]
    if len(numbers) == 2 * rank and min(numbers[:rank]) >= 0:
        return Window(strides, dilations, tuple(max(width, 0) for width in numbers))
    return Window(strides, dilations, none, (*begins, *ends))


def padded(
    node: Node, value: Value, frame: Window, *, lowest: bool = False, fill: Value | None = None
) -> tuple[Value, Window]:
    """The data with padding that depends on dynamic dimensions already added, and the rest.

    lowest: pad with the least value, else with 0. fill: add all padding here, with this scalar.
    """
    if fill is not None and frame.widths is None and any(frame.padding):
        widths = tuple(IntImm(width) for width in frame.padding)
        frame = replace(frame, padding=(0,) * len(widths), widths=widths)
    if frame.widths is None:
        return value, frame
    rank = len(frame.strides)
    none = [IntImm(0)] * 2
    widths = node.shape_of([*none, *frame.widths[:rank], *none, *frame.widths[rank:]])
    if lowest:
        fill = constant(_lowest(node.dtype(value)))
    operands = [value, widths, *([] if fill is None else [fill])]
    return node.emit("nn.dynamic_pad", *operands), replace(frame, widths=None)


def _lowest(dtype: DType) -> np.ndarray:
    kind = dtype.numpy
    return np.asarray(-np.inf if dtype.is_float else np.iinfo(kind).min, kind)


def channel_vector(node: Node, value: Value, rank: int) -> Value:
    """A vector over channels, shaped to broadcast over `rank` spatial dimensions."""
    dims = [*node.shape(value), *[IntImm(1)] * rank]
    return node.emit("reshape", value, node.shape_of(dims))
