"""FlattenBuffer: multi-dimensional buffers become one-dimensional views of their memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from transect.ir.dtype import INDEX
from transect.ir.expr import Broadcast, Expr, IntImm, as_expr, as_int, promote
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite
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
    body declares flat buffers over the same pointers. Buffers with axis separators stay.
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
    total = indices[0]
    for index, extent in zip(indices[1:], buffer.shape[1:], strict=True):
        total = _add(_multiply(total, extent), index)
    return _add(buffer.elem_offset, total)


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
            size: Expr = as_expr(1, INDEX)
            for extent in buffer.shape:
                size = extent if as_int(size) == 1 else size * extent
            found = replace(buffer, shape=(size,), strides=(), elem_offset=as_expr(0, INDEX))
            self.known[buffer] = found
        return found

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and not item.buffer.axis_separators:
            return BufferLoad(
                self.flat(item.buffer), (offset(item.buffer, item.indices),), item.predicate
            )
        return item

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        if not isinstance(new, BufferStore) or stmt.buffer.axis_separators:
            return new
        return replace(
            new, buffer=self.flat(stmt.buffer), indices=(offset(stmt.buffer, new.indices),)
        )

    def visit_decl_buffer(self, stmt: DeclBuffer) -> Stmt:
        return stmt if stmt.buffer.axis_separators else replace(stmt, buffer=self.flat(stmt.buffer))

    def visit_allocate(self, stmt: Allocate) -> Stmt:
        sizes = [as_int(extent) for extent in stmt.extents]
        known = [size for size in sizes if size is not None]
        if len(known) == 1 or len(known) < len(sizes):
            # Products of sizes that only the run knows are left to code that checks for overflow.
            return stmt
        return replace(stmt, extents=(IntImm(math.prod(known)),))
