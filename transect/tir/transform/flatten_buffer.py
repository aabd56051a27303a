"""FlattenBuffer: multi-dimensional buffers become one-dimensional views of their memory.

A buffer with axis separators becomes one of as many dimensions as it has groups of axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from transect.ir.dtype import INDEX
from transect.ir.expr import Broadcast, Expr, IntImm, as_expr, as_int, promote
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite
from transect.support.errors import UnsupportedError
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import Allocate, BufferStore, DeclBuffer, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.transform.lower_match_buffer import strides_of
from transect.tir.visit import StmtRewriter
from transect.transform import Context

TermT = TypeVar("TermT", bound=Term)


@dataclass(frozen=True)
class FlattenBuffer(FunctionPass):
    """Compute the offsets of accesses.

    Requires a function without blocks. Leaves accesses with one index each, counted in elements
    from the buffer's pointer (strides and offset included), and allocations of constant size
    one-dimensional. The function's buffer_map stays as it was: it describes the arguments; the
    body declares flat buffers over the same pointers. Buffers with axis separators keep one index
    for each group of axes; targets whose memory has one dimension refuse them.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with flat accesses."""
        flatten = _Flatten()
        body = flatten.visit(func.body)
        if body is func.body:
            return func
        params = [
            DeclBuffer(flatten.flat(buffer)) for buffer in func.buffers if buffer in flatten.known
        ]
        return replace(func, body=seq(*params, body))


def offset(buffer: Buffer, indices: tuple[Expr, ...]) -> Expr:
    """The position of an element in the buffer's memory, in elements."""
    if not indices:
        return buffer.elem_offset
    if buffer.strides:
        total: Expr = buffer.elem_offset
        for index, stride in zip(indices, strides_of(buffer), strict=True):
            total = _add(total, _multiply(index, stride))
        return total
    return _add(buffer.elem_offset, _row_major(indices, buffer.shape))


def offsets(buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The position of an element in each group of axes. Raises UnsupportedError for a buffer of
    several groups whose strides or offset are given."""
    groups = axis_groups(buffer)
    if len(groups) == 1:
        return (offset(buffer, indices),)
    if buffer.strides or as_int(buffer.elem_offset) != 0:
        raise UnsupportedError(
            f"{buffer.name} has axis separators, and strides or an offset",
            remedy="separate the axes of compact buffers",
        )
    return tuple(_row_major(indices[group], buffer.shape[group]) for group in groups)


def axis_groups(buffer: Buffer) -> list[slice]:
    """The axes that are flattened together, in order."""
    ends = [0, *buffer.axis_separators, buffer.ndim]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _row_major(indices: tuple[Expr, ...], shape: tuple[Expr, ...]) -> Expr:
    total = indices[0]
    for index, extent in zip(indices[1:], shape[1:], strict=True):
        total = _add(_multiply(total, extent), index)
    return total


def _add(a: Expr, b: Expr) -> Expr:
    if as_int(a) == 0:
        return _like(b, a)
    return _like(a, b) if as_int(b) == 0 else a + b


def _multiply(a: Expr, b: Expr) -> Expr:
    if as_int(b) == 1:
        return _like(a, b)
    if as_int(a) == 0:
        return _zero(a, b)
    return a * b


def _like(value: Expr, other: Expr) -> Expr:
    return promote(value, other)[0]


def _zero(a: Expr, b: Expr) -> Expr:
    kind = promote(a, b)[0].dtype
    zero = IntImm(0, kind.element)
    return zero if kind.is_scalar else Broadcast(zero, kind.lanes, kind.scalable)


class _Flatten(StmtRewriter):
    def __init__(self) -> None:
        self.known: dict[Buffer, Buffer] = {}
        self.memo: dict[Term, Term] = {}

    def flat(self, buffer: Buffer) -> Buffer:
        """The one-dimensional buffer over the same memory."""
        found = self.known.get(buffer)
        if found is None:
            groups = axis_groups(buffer)
            sizes: list[Expr] = []
            for group in groups:
                size: Expr = as_expr(1, INDEX)
                for extent in buffer.shape[group]:
                    size = extent if as_int(size) == 1 else size * extent
                sizes.append(size)
            found = replace(
                buffer,
                shape=tuple(sizes),
                strides=(),
                elem_offset=as_expr(0, INDEX),
                axis_separators=tuple(range(1, len(groups))),
            )
            self.known[buffer] = found
        return found

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad):
            places = offsets(item.buffer, item.indices)
            return BufferLoad(self.flat(item.buffer), places, item.predicate)
        return item

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        if not isinstance(new, BufferStore):
            return new
        places = offsets(stmt.buffer, new.indices)
        return replace(new, buffer=self.flat(stmt.buffer), indices=places)

    def visit_decl_buffer(self, stmt: DeclBuffer) -> Stmt:
        return replace(stmt, buffer=self.flat(stmt.buffer))

    def visit_allocate(self, stmt: Allocate) -> Stmt:
        sizes = [as_int(extent) for extent in stmt.extents]
        known = [size for size in sizes if size is not None]
        if len(known) == 1 or len(known) < len(sizes):
            # Products of sizes that only the run knows are left to code that checks for overflow.
            return stmt
        return replace(stmt, extents=(IntImm(math.prod(known)),))
