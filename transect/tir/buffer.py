"""Buffers, and the terms that read them or name a region of them."""

from __future__ import annotations

from typing import Any, ClassVar

from transect.ir.dtype import HANDLE, INDEX, DType, as_dtype
from transect.ir.expr import Expr, ExprLike, Pointer, Range, Var, as_expr, as_int
from transect.ir.node import Node, node
from transect.ir.term import Term, set_derived, term
from transect.support.errors import InputTypeError
from transect.support.span import Spans


@node
class Buffer(Node):
    """A multi-dimensional view of memory. Compares by identity, as a variable does.

    data: the pointer variable (its Pointer type holds the element type and scope). shape, strides
    (in elements; empty: compact, row-major) and elem_offset are integer expressions.
    alignment: of `data` in bytes. offset_factor: elem_offset is a multiple of it (0: unknown).
    axis_separators: where the axes are cut into groups that are flattened apart.
    layout: a named layout such as "swizzle128", for targets that have them.
    """

    cosmetic: ClassVar[tuple[str, ...]] = ("name",)
    binds: ClassVar[tuple[str, ...]] = ("data", "shape", "strides", "elem_offset")
    identity: ClassVar[bool] = True

    name: str
    data: Var
    dtype: DType
    shape: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    elem_offset: Expr
    alignment: int = 64
    offset_factor: int = 1
    axis_separators: tuple[int, ...] = ()
    layout: str | None = None
    span: Spans = ()

    @property
    def scope(self) -> str:
        """The memory scope: "global", "shared", "shared.dyn", "local", "wmma.accumulator", …"""
        return self.data.pointer.scope if self.data.pointer is not None else "global"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def region(self) -> BufferRegion:
        """All of the buffer."""
        return BufferRegion(self, tuple(Range.of(extent) for extent in self.shape))

    def __getitem__(self, indices: ExprLike | tuple[ExprLike, ...]) -> BufferLoad:
        items = indices if isinstance(indices, tuple) else (indices,)
        return BufferLoad(self, tuple(as_expr(item, INDEX) for item in items))


def buffer(
    name: str,
    shape: tuple[ExprLike, ...],
    dtype: DType | str = "float32",
    *,
    scope: str = "global",
    data: Var | None = None,
    strides: tuple[ExprLike, ...] = (),
    elem_offset: ExprLike = 0,
    **options: Any,
) -> Buffer:
    """A new buffer, with a data pointer of its own unless `data` is given.

    shape, strides: integers (taken as int64) or integer expressions.
    """
    kind = as_dtype(dtype)
    pointer = data if data is not None else Var(name, HANDLE, Pointer(kind, scope))
    return Buffer(
        name,
        pointer,
        kind,
        tuple(as_expr(item, INDEX) for item in shape),
        tuple(as_expr(item, INDEX) for item in strides),
        as_expr(elem_offset, INDEX),
        **options,
    )


@term
class BufferLoad(Expr):
    """The element of `buffer` at `indices`; a vector if the last index is one.

    predicate: lanes to read, None for all. Equal loads are one term even across a store to the
    buffer: never merge them without knowing what lies between.
    """

    reads: ClassVar[bool] = True

    buffer: Buffer
    indices: tuple[Expr, ...]
    predicate: Expr | None = None

    def _derive(self) -> None:
        if not isinstance(self.buffer, Buffer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputTypeError(f"a load from {type(self.buffer).__name__}, not a buffer")
        if len(self.indices) != len(self.buffer.shape):
            raise InputTypeError(
                f"{self.buffer.name} has {len(self.buffer.shape)} dimensions, "
                f"indexed with {len(self.indices)}"
            )
        lanes = self.indices[-1].dtype if self.indices else INDEX
        kind = self.buffer.dtype
        if not lanes.is_scalar:
            kind = kind.element.with_lanes(kind.lanes * lanes.lanes, scalable=lanes.scalable)
        set_derived(self, "dtype", kind)


@term
class BufferRegion(Term):
    """A box of a buffer: one range per dimension."""

    buffer: Buffer
    ranges: tuple[Range, ...]

    @staticmethod
    def point(load: BufferLoad) -> BufferRegion:
        """The region of one element."""
        return BufferRegion(load.buffer, tuple(Range(i, as_expr(1, i.dtype)) for i in load.indices))


def is_scalar_buffer(value: Buffer) -> bool:
    """Whether the buffer holds one element."""
    return all(as_int(extent) == 1 for extent in value.shape)
