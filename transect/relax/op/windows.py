"""What sliding-window operators share: layouts, per-axis attributes, output extents, padding.

Used by convolutions, pooling and image operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.expr import Expr, Var, as_int, logical_and, minimum
from transect.ir.sizes import ceildiv
from transect.relax.expr import Op
from transect.relax.op.inference import fail, simplify
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import if_then_else

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}
"""The letters of the spatial axes, by their number."""


@dataclass(frozen=True)
class Layout:
    """The order of axes, by letters such as "NHWC"; `plain` is the order that formulas use."""

    text: str
    plain: str

    def to_plain(self, items: Sequence[Expr]) -> tuple[Expr, ...]:
        """Values given in this layout, in the plain order."""
        return tuple(items[self.text.index(letter)] for letter in self.plain)

    def from_plain(self, items: Sequence[Expr]) -> tuple[Expr, ...]:
        """Values given in the plain order, in this layout."""
        return tuple(items[self.plain.index(letter)] for letter in self.text)

    def at(self, x: Buffer, indices: Sequence[Expr]) -> Expr:
        """The element of a buffer in this layout at indices in the plain order."""
        return x[self.from_plain(indices)]


def layout(op: Op, text: str, plain: str, what: str) -> Layout:
    """A layout by name. Raises InferenceError unless it is a permutation of `plain`."""
    if sorted(text) != sorted(plain):
        fail(op, f"{what} must be a permutation of {plain!r}, got {text!r}")
    return Layout(text, plain)


def per_axis(op: Op, value: int | tuple[int, ...], rank: int, what: str) -> tuple[int, ...]:
    """An attribute with one value for each of `rank` spatial axes; one value serves all."""
    items = (value,) if isinstance(value, int) else value
    if len(items) == 1:
        items = items * rank
    if len(items) != rank:
        fail(op, f"{what} must have 1 or {rank} values, got {len(items)}")
    return items


def positive_per_axis(
    op: Op, value: int | tuple[int, ...], rank: int, what: str
) -> tuple[int, ...]:
    """As `per_axis`, refusing values below 1."""
    items = per_axis(op, value, rank, what)
    if any(item < 1 for item in items):
        fail(op, f"{what} must be positive, got {items}")
    return items


def padding_of(
    op: Op, value: int | tuple[int, ...], rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding before and after each spatial axis.

    value: one for all, one for each axis (both sides), or all before and then all after.
    """
    items = (value,) if isinstance(value, int) else value
    if len(items) == 1:
        items = items * (2 * rank)
    elif len(items) == rank:
        items = items * 2
    if len(items) != 2 * rank:
        fail(op, f"padding must have 1, {rank} or {2 * rank} values, got {len(items)}")
    if any(item < 0 for item in items):
        fail(op, f"padding must not be negative, got {items}")
    return items[:rank], items[rank:]


def window_count(
    op: Op,
    size: Expr,
    window: Expr,
    stride: int,
    before: int,
    after: int,
    *,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Expr:
    """How many windows fit an axis of `size`.

    ceil_mode: a last window that is cut off counts if it starts before the padding after the axis.
    Raises InferenceError where even one window provably does not fit.
    """
    room = simplify(size + (before + after) - dilation * (window - 1) - 1)
    known = as_int(room)
    if known is not None and known < 0 and as_int(size) != 0:
        fail(op, f"a window of {window!r} (dilation {dilation}) does not fit {size!r} padded")
    if not ceil_mode:
        return simplify(room // stride + 1)
    full = ceildiv(room, stride) + 1
    return simplify(minimum(full, (size + (before - 1)) // stride + 1))


def padded_sizes(
    sizes: Sequence[Expr], before: Sequence[int], after: Sequence[int]
) -> tuple[Expr, ...]:
    """Extents with the padding on both sides of each."""
    return tuple(
        simplify(n + (low + high)) for n, low, high in zip(sizes, before, after, strict=True)
    )


def pad_spatial(
    b: FunctionBuilder,
    x: Buffer,
    before: Sequence[int],
    after: Sequence[int],
    value: Expr,
) -> Buffer:
    """`x` with its axes extended on both sides by `value`; `x` itself where nothing is added."""
    if not any((*before, *after)):
        return x
    sizes = padded_sizes(x.shape, before, after)

    def element(*i: Var) -> Expr:
        inside: list[Expr] = []
        for axis, (low, high) in enumerate(zip(before, after, strict=True)):
            if low:
                inside.append(i[axis] >= low)
            if high:
                inside.append(i[axis] < x.shape[axis] + low)
        place = tuple(item - low if low else item for item, low in zip(i, before, strict=True))
        return if_then_else(logical_and(*inside), x[place], value)

    return b.compute(sizes, element, name="padded")


def spread(values: Sequence[int], letters: str, spatial: str) -> tuple[int, ...]:
    """Values of the spatial axes as one for each axis of a layout, 0 for the others."""
    return tuple(values[spatial.index(x)] if x in spatial else 0 for x in letters)
