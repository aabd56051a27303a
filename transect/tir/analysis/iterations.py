"""What is known of all iterations of loops, or of some: conditions, and effects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from transect.arith import Analyzer
from transect.arith.evaluate import evaluate
from transect.ir.condition import conjuncts
from transect.ir.expr import GE, GT, LE, LT, Call, Expr, Var, as_expr, as_int
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.buffer import BufferLoad
from transect.tir.stmt import (
    Allocate,
    AssertStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    Stmt,
    While,
)
from transect.tir.visit import child_stmts, walk_stmts

MOST_ITERATIONS = 1 << 12
"""Iterations of a loop up to which each is looked at."""


def for_all(condition: Expr, extents: Mapping[Var, int]) -> Expr | None:
    """A condition that implies `condition` while each variable runs over [0, extent), or None.

    A comparison that is linear in a variable is extreme at its first or its last value.
    """
    return _extreme(condition, extents, first=True)


def for_some(condition: Expr, extents: Mapping[Var, int]) -> Expr | None:
    """A condition that holds where `condition` does for some values of the variables, each of
    [0, extent), or None."""
    return _extreme(condition, extents, first=False)


def _extreme(condition: Expr, extents: Mapping[Var, int], *, first: bool) -> Expr | None:
    """The condition where it is hardest to fulfil, at the first value of a variable that makes it
    easier, or where it is easiest."""
    if not isinstance(condition, LT | LE | GT | GE) or not condition.a.dtype.is_int:
        return None
    if any(isinstance(item, BufferLoad) for item in walk(condition)):
        return None
    analyzer = Analyzer()
    result: Expr = condition
    for var, extent in extents.items():
        assert isinstance(result, LT | LE | GT | GE)
        upward = isinstance(result, LT | LE)
        gap = result.b - result.a if upward else result.a - result.b
        here, second = (substitute(gap, {var: as_expr(n, var.dtype)}) for n in (0, 1))
        slope = as_int(analyzer.simplify(second - here))
        if slope is None or not analyzer.can_prove_equal(gap, here + var * slope):
            return None
        place = as_expr(0 if (slope >= 0) is first else extent - 1, var.dtype)
        result = substitute(result, {var: place})
    return analyzer.simplify(result)


def holds_in(condition: Expr, loop: Var, extent: int) -> np.ndarray | None:
    """In which iterations of a loop a condition on its variable holds; None if it calls what has no
    known value."""
    if any(isinstance(item, Call) for item in walk(condition)):
        return None
    return np.broadcast_to(evaluate(condition, {loop: np.arange(extent)}), extent)


def iterations_with_effect(loop: For) -> int | None:
    """How many iterations of a loop there are up to the last one that does anything that is seen
    after it; None if that is not known, or all of them are needed for all that is known."""
    extent = as_int(loop.extent)
    if extent is None or as_int(loop.min) != 0 or not 2 <= extent <= MOST_ITERATIONS:
        return None
    inside = list(walk_stmts(loop.body))
    if not any(isinstance(item, IfThenElse) for item in inside):
        return None
    own = {item.var for item in inside if isinstance(item, Allocate)}
    needed = _Effects(loop.var, extent, own).of(loop.body, {})
    last = int(np.flatnonzero(needed)[-1]) + 1 if needed.any() else 0
    return last if last < extent else None


class _Effects:
    """Which iterations of the loop over `var` may store to memory that is not `own`, or call."""

    def __init__(self, var: Var, extent: int, own: set[Var]) -> None:
        self.var, self.extent, self.own = var, extent, own

    def of(self, stmt: Stmt, inner: Mapping[Var, int]) -> np.ndarray:
        """For each iteration; inner: the extents of loops inside, as far as they are known."""
        needed = np.zeros(self.extent, bool)
        if isinstance(stmt, BufferStore):
            return needed | (stmt.buffer.data not in self.own)
        if isinstance(stmt, Evaluate | AssertStmt | While):
            return ~needed
        if isinstance(stmt, IfThenElse):
            needed |= self.of(stmt.then_case, inner) & self._may_hold(stmt.condition, inner)
            return needed if stmt.else_case is None else needed | self.of(stmt.else_case, inner)
        if isinstance(stmt, For):
            extent = as_int(stmt.extent)
            if extent is not None and extent > 0 and as_int(stmt.min) == 0:
                inner = {**inner, stmt.var: extent}
        for child in child_stmts(stmt):
            needed |= self.of(child, inner)
            if needed.all():
                break
        return needed

    def _may_hold(self, condition: Expr, inner: Mapping[Var, int]) -> np.ndarray:
        holds = np.ones(self.extent, bool)
        for part in conjuncts(condition):
            used = set(free_vars([part]))
            if self.var not in used or not used <= {self.var, *inner}:
                continue
            easiest = for_some(part, {var: inner[var] for var in used if var is not self.var})
            known = None if easiest is None else holds_in(easiest, self.var, self.extent)
            if known is not None:
                holds &= known
        return holds
