"""UnrollLoop: unrolled loops become copies of their body."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import as_expr, as_int
from transect.ir.node import replace
from transect.support.errors import UnsupportedError
from transect.tir.function import PrimFunc
from transect.tir.stmt import For, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, fresh_copy, walk_stmts
from transect.transform import Context


@dataclass(frozen=True)
class UnrollLoop(FunctionPass):
    """Replace loops marked "unrolled" by copies of their body, the variable substituted.

    limit: statements that one loop may become. Requires constant extents. Leaves no unrolled loop.
    Raises UnsupportedError for an extent that is not constant, or beyond `limit`.
    """

    limit: int = 1 << 14

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function without unrolled loops."""
        return replace(func, body=_Unroll(self.limit).visit(func.body))


class _Unroll(StmtRewriter):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def visit_for(self, stmt: For) -> Stmt:
        new = super().visit_for(stmt)
        if not isinstance(new, For) or new.kind != "unrolled":
            return new
        count = as_int(new.extent)
        if count is None:
            raise UnsupportedError(
                f"loop {new.var.name} is unrolled, but its extent is not a constant", span=new.span,
                remedy="split it by a constant and unroll the inner loop",
            )  # fmt: skip
        size = count * sum(1 for _ in walk_stmts(new.body))
        if size > self.limit:
            raise UnsupportedError(
                f"unrolling loop {new.var.name} gives {size} statements", span=new.span,
                remedy="unroll fewer iterations",
            )  # fmt: skip
        copies = [
            fresh_copy(new.body, {new.var: new.min + as_expr(number, new.var.dtype)})
            for number in range(count)
        ]
        return seq(*copies)
