"""HoistChecks: what T.checked tests is tested before a loop that does not change it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transect.ir.expr import And, Call, Expr, Or, Var, as_int
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, walk
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.op import is_checked
from transect.tir.stmt import AttrStmt, Bind, BufferStore, For, SeqStmt, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, bound_vars, map_terms, own_terms, walk_stmts
from transect.transform import Context


@dataclass(frozen=True)
class HoistChecks(FunctionPass):
    """Evaluate a check once, before the serial loop in whose every iteration it is the same.

    Only of loops that run at least once, where nothing decides whether the check is made, and
    where the loop writes nothing that the check reads. Before -> after:

        for j in range(96):                        place = T.checked(i[r], i[r] < n, ...)
            y[r, j] = x[T.checked(i[r], ...), j]   for j in range(96):
                                                       y[r, j] = x[place, j]
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with checks in front of loops."""
        del context
        body = _Hoist().visit(func.body)
        return func if body is func.body else replace(func, body=body)


class _Hoist(StmtRewriter):
    def visit_for(self, stmt: For) -> Stmt:
        new = super().visit_for(stmt)
        if not isinstance(new, For) or new.kind != "serial" or (as_int(new.extent) or 0) < 1:
            return new
        found = [item for item in dict.fromkeys(_certain_checks(new.body)) if _is_fixed(item, new)]
        if not found:
            return new
        names: dict[Term, Var] = {item: Var("place", item.dtype) for item in found}

        def change(item: Term) -> Term:
            return names.get(item, item)

        body = map_terms(new.body, change)
        return seq(*(Bind(names[item], item) for item in found), replace(new, body=body))


def _certain_checks(stmt: Stmt) -> Iterator[Expr]:
    """The checks that every run of `stmt` makes, the outermost of nested ones."""
    if isinstance(stmt, SeqStmt):
        for item in stmt.stmts:
            yield from _certain_checks(item)
    elif isinstance(stmt, AttrStmt):
        yield from _certain_checks(stmt.body)
    elif isinstance(stmt, For):
        if stmt.kind == "serial" and (as_int(stmt.extent) or 0) >= 1:
            yield from _certain_checks(stmt.body)
    elif isinstance(stmt, BufferStore | Bind):
        for root in own_terms(stmt):
            yield from _certain_in(root)


def _certain_in(term: Term) -> Iterator[Expr]:
    if isinstance(term, Call) and is_checked(term):
        yield term
        return
    decides = isinstance(term, And | Or)
    if isinstance(term, Call) and term.op is INTRINSICS["if_then_else"]:
        yield from _certain_in(term.args[0])
        return
    for child in term.children()[: 1 if decides else None]:
        yield from _certain_in(child)


def _is_fixed(check: Expr, loop: For) -> bool:
    """Whether a check is the same in all iterations."""
    inside = {loop.var}
    written: set[Var] = set()
    for stmt in walk_stmts(loop.body):
        inside.update(bound_vars(stmt))
        if isinstance(stmt, BufferStore):
            written.add(stmt.buffer.data)
        if any(isinstance(t, Call) and t.effect == "write" for t in walk(*own_terms(stmt))):
            return False
    if not inside.isdisjoint(free_vars((check,))):
        return False
    loads = (item for item in walk(check) if isinstance(item, BufferLoad))
    return all(load.buffer.data not in written | inside for load in loads)
