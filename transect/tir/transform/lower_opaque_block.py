"""LowerOpaqueBlock: blocks become plain loops, conditions and allocations."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Expr, IntImm, as_int
from transect.ir.node import replace
from transect.support.errors import VerifyError
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import Allocate, BlockRealize, DeclBuffer, For, IfThenElse, SeqStmt, Stmt
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import Substitution, map_items
from transect.transform import Context


@dataclass(frozen=True)
class LowerOpaqueBlock(FunctionPass):
    """Remove blocks.

    Requires blocks without iteration variables, init and match_buffers. Leaves loops; predicates
    as conditions; allocated buffers as Allocate and DeclBuffer at the start of their block; and no
    serial loop of a single iteration.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function without blocks."""
        return replace(func, body=_Lower().visit(func.body))


class _Lower(Substitution):
    def visit_block_realize(self, stmt: BlockRealize) -> Stmt:
        block = stmt.block
        if block.iter_vars or block.init is not None or block.match_buffers:
            raise VerifyError(f"block {block.name!r} is not opaque", span=block.span)
        allocations: list[Stmt] = []
        for old in block.alloc_buffers:
            buffer = self.bound_buffer(old)
            allocations += [allocation(buffer), DeclBuffer(buffer, buffer.span)]
        body = self.visit(block.body)
        if allocations:
            # A sequence of its own: the memory is released at its end.
            body = SeqStmt((*allocations, *(body.stmts if isinstance(body, SeqStmt) else (body,))))
        predicate = self.expr(stmt.predicate)
        return body if as_int(predicate) == 1 else IfThenElse(predicate, body, span=stmt.span)

    def visit_for(self, stmt: For) -> Stmt:
        if as_int(stmt.extent) == 1 and stmt.kind != "thread_binding":
            self.define(stmt.var, self.expr(stmt.min))
            return self.visit(stmt.body)
        return super().visit_for(stmt)

    def visit_seq(self, stmt: SeqStmt) -> Stmt:
        new = map_items(self.visit, stmt.stmts)
        return stmt if new is stmt.stmts else SeqStmt(new, stmt.span)


def allocation(buffer: Buffer) -> Allocate:
    """The memory of a buffer: its elements, or what its strides span."""
    extents: tuple[Expr, ...] = buffer.shape
    if buffer.strides:
        spans = [
            extent * stride for extent, stride in zip(buffer.shape, buffer.strides, strict=True)
        ]
        known = [as_int(span) for span in spans]
        fixed = [span for span in known if span is not None]
        extents = (IntImm(max(fixed)),) if len(fixed) == len(known) and fixed else (spans[0],)
    annotations = {"alignment": buffer.alignment} if buffer.alignment != 64 else {}
    return Allocate(buffer.data, buffer.dtype, extents or (IntImm(1),), annotations, buffer.span)
