"""LowerMatchBuffer: buffers that name a region become accesses to that region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from transect.ir.expr import Expr, Range, Var, as_expr
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite, walk
from transect.support.errors import VerifyError
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BufferStore, MatchBufferRegion, Stmt
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.transform.vector_index import as_ramp
from transect.tir.visit import Substitution, map_items, own_terms, walk_stmts
from transect.transform import Context

TermT = TypeVar("TermT", bound=Term)


@dataclass(frozen=True)
class LowerMatchBuffer(FunctionPass):
    """Replace accesses to matched buffers by accesses to their sources.

    Requires blocks without iteration variables. Leaves no match_buffers. Variables in a matched
    buffer's strides and offset are bound to the source's; a matched buffer whose pointer is used
    directly is declared over the source's memory instead.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function without matched buffers."""
        return replace(func, body=_Lower().visit(func.body))


def row_major(shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The strides of a compact buffer, in elements."""
    strides: list[Expr] = []
    total: Expr | None = None
    for extent in reversed(shape):
        strides.append(as_expr(1, extent.dtype) if total is None else total)
        total = extent if total is None else total * extent
    return tuple(reversed(strides))


def strides_of(buffer: Buffer) -> tuple[Expr, ...]:
    """The buffer's strides in elements, given or compact."""
    return buffer.strides or row_major(buffer.shape)


class _Lower(Substitution):
    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[Buffer, BufferRegion] = {}

    def visit_block(self, stmt: Block) -> Stmt:
        if not stmt.match_buffers:
            return super().visit_block(stmt)
        for match in stmt.match_buffers:
            self._match(match, stmt.body)
        return replace(
            stmt,
            match_buffers=(),
            reads=map_items(self.expr, stmt.reads),
            writes=map_items(self.expr, stmt.writes),
            body=self.visit(stmt.body),
            annotations=self.annotations(stmt.annotations),
        )

    def _match(self, match: MatchBufferRegion, body: Stmt) -> None:
        source = self.expr(match.source)
        buffer, whole = match.buffer, source.buffer
        if len(buffer.shape) > len(whole.shape):
            raise VerifyError(
                f"{buffer.name} has more dimensions than {whole.name}, whose region it names"
            )
        strides = strides_of(whole)
        offset: Expr = whole.elem_offset
        for item, stride in zip(source.ranges, strides, strict=True):
            offset = offset + item.min * stride
        tail = len(whole.shape) - len(buffer.shape)
        for field, value in (
            # A matched buffer without strides takes those of its source.
            *(zip(buffer.strides, strides[tail:], strict=True) if buffer.strides else ()),
            (buffer.elem_offset, offset),
        ):
            if isinstance(field, Var) and field not in self.values:
                self.define(field, value)
        for field, item in zip(buffer.shape, source.ranges[tail:], strict=True):
            if isinstance(field, Var) and field not in self.values:
                self.define(field, item.extent)
        self.define(buffer.data, whole.data)
        if buffer.dtype is whole.dtype and not _uses_pointer(body, buffer):
            self.sources[buffer] = source
        else:
            self.buffers[buffer] = replace(
                buffer,
                data=whole.data,
                shape=map_items(self.expr, buffer.shape),
                strides=strides[tail:],
                elem_offset=offset,
            )

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo)

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer in self.sources:
            buffer, indices = self._shift(item.buffer, item.indices)
            return BufferLoad(buffer, indices, item.predicate)
        if isinstance(item, BufferRegion) and item.buffer in self.sources:
            source = self.sources[item.buffer]
            tail = len(source.ranges) - len(item.ranges)
            shifted = tuple(
                _shifted(outer, inner)
                for outer, inner in zip(source.ranges[tail:], item.ranges, strict=True)
            )
            return BufferRegion(source.buffer, (*source.ranges[:tail], *shifted))
        return self._replace_term(item)

    def _shift(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Buffer, tuple[Expr, ...]]:
        source = self.sources[buffer]
        tail = len(source.ranges) - len(indices)
        shifted = (
            as_ramp(outer.min + index)
            for outer, index in zip(source.ranges[tail:], indices, strict=True)
        )
        return source.buffer, (*(outer.min for outer in source.ranges[:tail]), *shifted)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        if isinstance(new, BufferStore) and stmt.buffer in self.sources:
            buffer, indices = self._shift(stmt.buffer, new.indices)
            return replace(new, buffer=buffer, indices=indices)
        return new


def _shifted(outer: Range, inner: Range) -> Range:
    """`inner`, relative to `outer`, in absolute terms."""
    return Range(outer.min + inner.min, inner.extent)


def _uses_pointer(body: Stmt, buffer: Buffer) -> bool:
    """Whether the buffer is reached in another way than by element."""
    return any(item is buffer.data for stmt in walk_stmts(body) for item in walk(*own_terms(stmt)))
