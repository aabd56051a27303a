"""Simplify: integer expressions in canonical form, conditions decided where they can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from transect.arith import Analyzer
from transect.ir.condition import conjuncts
from transect.ir.expr import (
    Call,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Mod,
    Ramp,
    Range,
    Select,
    Var,
    as_int,
    logical_and,
    logical_not,
)
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite, walk
from transect.tir.buffer import BufferLoad, BufferRegion
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import AssertStmt, Bind, BufferStore, For, IfThenElse, SeqStmt, Stmt
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.transform.vector_index import as_ramp
from transect.tir.visit import StmtRewriter, map_items
from transect.transform import Context

TermT = TypeVar("TermT", bound=Term)


@dataclass(frozen=True)
class Simplify(FunctionPass):
    """Simplify under what loops, conditions and dimensions say.

    division: also replace floor division and modulo by the truncating ones where the dividend
    cannot be negative, which machines do faster.

    Leaves fewer branches and loops: those whose condition or extent is known go away.
    """

    division: bool = False

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function simplified."""
        del context
        analyzer = Analyzer()
        # No bounds of the user: they are of names, and hold only where the entry has checked them.
        for var in symbolic_vars(func):
            analyzer.bind(var, (0, None))
        return replace(func, body=_Simplify(analyzer, division=self.division).visit(func.body))


class _Simplify(StmtRewriter):
    def __init__(self, analyzer: Analyzer, *, division: bool) -> None:
        self.analyzer = analyzer
        self.division = division
        self.memo: dict[Term, Term] = {}
        self.indices: dict[Expr, Expr] = {}

    def forget(self) -> None:
        """Drop results: other things are known from here on."""
        self.memo.clear()
        self.indices.clear()

    def expr(self, value: TermT) -> TermT:
        if isinstance(value, IntImm | Var):
            return value
        return (
            rewrite(value, self._replace, self.memo)
            if not isinstance(value, BufferRegion)
            else value
        )

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad):
            indices = map_items(self._index, item.indices)
            return (
                item
                if indices is item.indices
                else BufferLoad(item.buffer, indices, item.predicate)
            )
        if isinstance(item, Select) and item.condition.dtype.is_scalar:
            condition = self._index(item.condition)
            known = as_int(condition)
            if known is not None:
                return item.true_value if known else item.false_value
            return Select(condition, item.true_value, item.false_value)
        if isinstance(item, Call) and item.op is INTRINSICS["if_then_else"]:
            condition, value, other = item.args
            condition = self._index(condition)
            known = as_int(condition)
            if known is not None:
                return value if known else other
            return Call(item.op, (condition, value, other), item.kind)
        return item

    def _index(self, value: Expr) -> Expr:
        """A simplified integer or condition."""
        if isinstance(value, IntImm | Var):
            return value
        known = self.indices.get(value)
        if known is None:
            simple = self._vector(as_ramp(value))
            known = self.indices[value] = self._divide(simple) if self.division else simple
        return known

    def _vector(self, value: Expr) -> Expr:
        if isinstance(value, Ramp):
            base, stride = self._index(value.base), self._index(value.stride)
            return Ramp(base, stride, value.lanes, value.scalable)
        return self.analyzer.simplify(value)

    def _divide(self, value: Expr) -> Expr:
        if not any(isinstance(item, FloorDiv | FloorMod) for item in walk(value)):
            return value

        def visit(item: Term) -> Term:
            if not isinstance(item, FloorDiv | FloorMod) or not item.dtype.is_scalar:
                return item
            divisor = as_int(item.b)
            if divisor is None or divisor <= 0 or divisor & (divisor - 1) == 0:
                return item
            low = self.analyzer.bounds(item.a).min
            if low is None or low < 0:
                return item
            return (Div if isinstance(item, FloorDiv) else Mod)(item.a, item.b)

        return rewrite(value, visit)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        return replace(
            stmt,
            value=self.expr(stmt.value),
            indices=map_items(self._index, stmt.indices),
            predicate=None if stmt.predicate is None else self.expr(stmt.predicate),
        )

    def visit_bind(self, stmt: Bind) -> Stmt:
        new = super().visit_bind(stmt)
        assert isinstance(new, Bind)
        if new.value.dtype.is_integral and new.value.dtype.is_scalar:
            return replace(new, value=self._index(new.value))
        return new

    def visit_for(self, stmt: For) -> Stmt:
        low, extent = self._index(stmt.min), self._index(stmt.extent)
        if (
            as_int(extent) is not None
            and (as_int(extent) or 0) <= 0
            and stmt.kind != "thread_binding"
        ):
            return SeqStmt((), stmt.span)
        self.analyzer.bind(stmt.var, Range(low, extent))
        self.forget()
        body = self.visit(stmt.body)
        if _is_empty(body) and stmt.kind != "thread_binding":
            return body
        return replace(stmt, min=low, extent=extent, body=body)

    def visit_if(self, stmt: IfThenElse) -> Stmt:
        condition = self._index(self.expr(stmt.condition))
        known = as_int(condition)
        if known is not None:
            if known:
                return self.visit(stmt.then_case)
            return SeqStmt((), stmt.span) if stmt.else_case is None else self.visit(stmt.else_case)
        self.forget()
        with self.analyzer.constraint(_lasting(condition)):
            then_case = self.visit(stmt.then_case)
        self.forget()
        else_case = None
        if stmt.else_case is not None:
            with self.analyzer.constraint(_lasting(logical_not(condition))):
                else_case = self.visit(stmt.else_case)
            self.forget()
        if _is_empty(then_case) and (else_case is None or _is_empty(else_case)):
            return then_case
        return replace(stmt, condition=condition, then_case=then_case, else_case=else_case)

    def visit_assert(self, stmt: AssertStmt) -> Stmt:
        new = super().visit_assert(stmt)
        assert isinstance(new, AssertStmt)
        condition = self._index(new.condition)
        return (
            SeqStmt((), stmt.span) if as_int(condition) == 1 else replace(new, condition=condition)
        )

    def visit_seq(self, stmt: SeqStmt) -> Stmt:
        stmts: list[Stmt] = []
        for item in stmt.stmts:
            new = self.visit(item)
            if not _is_empty(new):
                stmts.append(new)
        if len(stmts) == len(stmt.stmts) and all(
            a is b for a, b in zip(stmts, stmt.stmts, strict=True)
        ):
            return stmt
        return SeqStmt(tuple(stmts), stmt.span)


def _lasting(condition: Expr) -> Expr:
    """The part of a condition that still holds after stores: what reads no memory."""
    kept = (
        item
        for item in conjuncts(condition)
        if not any(isinstance(term, BufferLoad) for term in walk(item))
    )
    return logical_and(*kept)


def _is_empty(stmt: Stmt) -> bool:
    return isinstance(stmt, SeqStmt) and not stmt.stmts
