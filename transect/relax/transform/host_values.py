"""What a graph value is while its function is lowered to a host function.

How values are computed is in `host_body`; which a caller passes or gets in `host_interface`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.dtype import BOOL, INT64, DType
from transect.ir.expr import (
    GE,
    LE,
    Add,
    Cast,
    Expr,
    FloorDiv,
    IntImm,
    Max,
    Min,
    Mul,
    Select,
    Sub,
    as_expr,
    cast,
    const,
    logical_and,
    make,
)
from transect.tir.intrinsics import INTRINSICS

TENSOR_INDEX = 70
SHAPE_INDEX = 69
ARRAY_INDEX = 71
INT_INDEX = 1
BOOL_INDEX = 2
FLOAT_INDEX = 3
"""Type indices of tvm-ffi's C ABI (tvm/ffi/c_api.h, TVMFFITypeIndex)."""

_LARGEST = float(1 << 62)


@dataclass(frozen=True)
class Slot:
    """A slot of an any-list; what it holds is owned by the list."""

    items: Expr
    index: int

    def item(self) -> Expr:
        """The slot as an argument."""
        return INTRINSICS["anylist_getitem"](self.items, self.index)


@dataclass(frozen=True)
class TensorValue:
    """A compact tensor: the address of its first element, its dtype and shape (None: any rank).

    slot: where the tensor object is, if it is one; without, it is bare memory.
    constant: the memory may not be written.
    """

    data: Expr
    dtype: DType
    shape: tuple[Expr, ...] | None
    slot: Slot | None = None
    constant: bool = False

    def bytes(self) -> Expr:
        """The size in bytes."""
        return size_in_bytes(self.shape or (), self.dtype)


@dataclass(frozen=True)
class ScalarValue:
    """A number."""

    value: Expr


@dataclass(frozen=True)
class ShapeValue:
    """A shape, held as its dimensions."""

    values: tuple[Expr, ...]


@dataclass(frozen=True)
class TupleValue:
    """A tuple, held as its items."""

    items: tuple[HostValue, ...]


@dataclass(frozen=True)
class ObjectValue:
    """Anything, in a slot."""

    slot: Slot


@dataclass(frozen=True)
class TextValue:
    """A string known at compile time."""

    text: str


HostValue = TensorValue | ScalarValue | ShapeValue | TupleValue | ObjectValue | TextValue


def size_in_bytes(shape: Iterable[Expr], dtype: DType) -> Expr:
    """The bytes of a compact tensor, as int64."""
    total: Expr = as_expr(dtype.bytes)
    for extent in shape:
        total = cast(extent, INT64) * total
    return total


def fits_in_memory(shape: Iterable[Expr], dtype: DType) -> Expr:
    """The condition that no extent is negative and the bytes of a tensor do not overflow.

    The product is taken in double precision, which cannot wrap around. True for constant shapes.
    """
    extents = tuple(cast(extent, INT64) for extent in shape)
    conditions: list[Expr] = []
    total: Expr = const(float(dtype.bytes), "float64")
    for extent in extents:
        if not isinstance(extent, IntImm):
            conditions.append(make(GE, extent, as_expr(0)))
        total = make(Mul, total, as_float(extent))
    if all(isinstance(extent, IntImm) for extent in extents):
        return IntImm(1, BOOL)
    return logical_and(*conditions, make(LE, total, const(_LARGEST, "float64")))


_LINEAR = (Add, Sub, Mul, Min, Max)


def as_float(value: Expr) -> Expr:
    """An integer expression evaluated in double precision, where nothing wraps around."""
    if isinstance(value, _LINEAR):
        return make(type(value), as_float(value.a), as_float(value.b))
    if isinstance(value, FloorDiv) and isinstance(value.b, IntImm):
        # An upper estimate is enough, so the rounding is left out.
        return make(Mul, as_float(value.a), const(1.0 / value.b.value, "float64"))
    if isinstance(value, Select):
        return Select(value.condition, as_float(value.true_value), as_float(value.false_value))
    if isinstance(value, Cast) and value.to.is_integral and value.value.dtype.is_integral:
        return as_float(value.value)
    return cast(value, "float64")
