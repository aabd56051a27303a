"""LoopPartition: the guards and cut-off indices of tiles are tested once a tile, not once an
element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

import numpy as np

from transect.ir.condition import conjuncts
from transect.ir.expr import (
    GE,
    GT,
    LE,
    LT,
    Call,
    Expr,
    Max,
    Min,
    Select,
    Var,
    as_expr,
    as_int,
    equal,
    logical_and,
    maximum,
    minimum,
    true,
)
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, substitute, walk
from transect.tir.affine import difference
from transect.tir.analysis.iterations import (
    MOST_ITERATIONS,
    for_all,
    holds_in,
    iterations_with_effect,
)
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Bind, For, IfThenElse, SeqStmt, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import (
    StmtRewriter,
    child_stmts,
    fresh_copy,
    own_terms,
    substitute_stmt,
    walk_stmts,
)  # fmt: skip
from transect.transform import Context

TermT = TypeVar("TermT", bound=Term)


@dataclass(frozen=True)
class LoopPartition(FunctionPass):
    """Split the body of a loop over tiles in two versions, full tiles and partial ones.

    limit: statements of a body up to which partial tiles are split again by inner loops.

    Requires loops with conditions that compare linear expressions. A condition that depends on
    the loop and on inner loops of constant extent, and that holds for all of a full tile, is gone
    from the version for full tiles; so are minima and maxima that one side always wins there:

        for i0 in range((n + 3) // 4):         for i0 in range((n + 3) // 4):
            for i1 in range(4):           ->       if i0 * 4 + 3 < n:
                if i0 * 4 + i1 < n:                    for i1 in range(4): body
                    body                           else:
                                                       for i1 in range(4):
                                                           if i0 * 4 + i1 < n: body

    Where full tiles come first and nobody knows how many tiles there are, the two versions become
    two loops, one after the other: nothing is tested in them, and the registers of each are its
    own. Iterations at the end of a loop that do nothing that is seen later, as all that they store
    is stored under a condition that does not hold, are left out.
    """

    limit: int = 24

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with partitioned tiles."""
        return replace(func, body=_Partition(self.limit).visit(func.body))


class _Partition(StmtRewriter):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def visit_for(self, stmt: For) -> Stmt:
        if stmt.kind not in ("serial", "parallel"):
            return super().visit_for(stmt)
        active = iterations_with_effect(stmt)
        if active is not None:
            stmt = replace(stmt, extent=as_expr(active, stmt.extent.dtype))
        if not (
            stmt.kind == "parallel"
            or as_int(stmt.extent) is None
            or _has_serial_loop(stmt.body)
            or _unrolled_size(stmt.body) <= self.limit
        ):
            return super().visit_for(stmt)
        full = _full_tile(stmt)
        if not full:
            return super().visit_for(stmt)
        parts = _parts(stmt.body, full)
        testing = [part for part in parts if not full.keys().isdisjoint(_all_conditions(part))]
        alone = len(testing) == 1 and not any(
            _has_serial_loop(part) for part in parts if part is not testing[0]
        )
        if alone and stmt.kind == "serial" and as_int(stmt.extent) is None:
            count = _full_tiles(stmt, list(dict.fromkeys(full.values())))
            if count is not None:
                return self._loops(stmt, count, set(full))
        return replace(stmt, body=seq(*(self._versions(stmt, part, full) for part in parts)))

    def _loops(self, loop: For, count: Expr, full: set[Expr]) -> Stmt:
        """A loop over the first `count` tiles, which are full, and one over the others."""
        first = replace(loop, extent=count, body=self.visit(_Assume(full).visit(loop.body)))
        var = Var(f"{loop.var.name}_rest", loop.var.dtype)
        body = substitute_stmt(fresh_copy(loop.body), {loop.var: var})
        if sum(1 for _ in walk_stmts(body)) <= self.limit:
            body = self.visit(body)
        start = loop.min + count
        rest = replace(loop, var=var, min=start, extent=loop.extent - count, body=body)
        return seq(first, rest)

    def _versions(self, loop: For, body: Stmt, full: Mapping[Expr, Expr]) -> Stmt:
        """The version of a full tile and that of a partial one, of what differs between them."""
        own = {item: full[item] for item in full if item in _all_conditions(body)}
        if not own:
            return self.visit(body)
        condition = logical_and(*dict.fromkeys(own.values()))
        then_case = self.visit(_Assume(set(own)).visit(body))
        partial = _partial_tiles(loop, condition)
        # What these tiles lack is known then, and is not computed.
        known = [
            substitute_stmt(fresh_copy(body), {loop.var: as_expr(number, loop.var.dtype)})
            for number in partial
        ]
        if not known:
            known = [fresh_copy(body)]
        *others, else_case = [
            self.visit(case) if sum(1 for _ in walk_stmts(case)) <= self.limit else case
            for case in known
        ]
        for number, case in zip(partial, others, strict=False):
            else_case = IfThenElse(equal(loop.var, number), case, else_case)
        return IfThenElse(condition, then_case, else_case)


def _full_tiles(loop: For, tests: Sequence[Expr]) -> Expr | None:
    """How many iterations from the first on pass all of `tests`, if each that fails one is
    followed by none that passes it; None if that is not known."""
    count = loop.extent
    for test in tests:
        # What a call reads may change while the loop runs; loads are never among the tests.
        impure = any(isinstance(item, Call) and item.effect != "pure" for item in walk(test))
        if not isinstance(test, LT | LE | GT | GE) or impure:
            return None
        low, high = (test.a, test.b) if isinstance(test, LT | LE) else (test.b, test.a)
        gap = high - low
        one: dict[Var, Expr] = {loop.var: loop.var + 1}
        step = difference(gap, substitute(gap, one))
        if gap.dtype is not loop.extent.dtype or step is None or step <= 0:
            return None
        at_first = substitute(gap, {loop.var: loop.min})
        inclusive = isinstance(test, LE | GE)
        # The gap, which shrinks by `step`, has to stay positive, or not negative.
        count = minimum(count, (at_first + (0 if inclusive else -1)) // step + 1)
    return maximum(count, 0)


def _partial_tiles(loop: For, is_full: Expr) -> list[int]:
    """The iterations of a loop that are not full tiles, if they are known and at most two: those at
    the ends, for the most part."""
    extent, low = as_int(loop.extent), as_int(loop.min)
    if extent is None or not 2 <= extent <= MOST_ITERATIONS or low != 0:
        return []
    if free_vars([is_full]) != [loop.var]:
        return []
    full = holds_in(is_full, loop.var, extent)
    if full is None:
        return []
    partial = [int(number) for number in np.flatnonzero(~full)]
    return partial if len(partial) <= 2 else []


def _parts(body: Stmt, full: Mapping[Expr, Expr]) -> list[Stmt]:
    """A sequence in parts of loops that do not depend on the same tests, such as a nest that pads
    and one that computes; anything else as a whole. full: the test that decides a condition."""
    if not isinstance(body, SeqStmt):
        return [body]
    groups: list[tuple[list[Stmt], set[Expr]]] = []
    for item in body.stmts:
        tested = {full[held] for held in _all_conditions(item) if held in full}
        if tested and not isinstance(item, For):
            return [body]
        same = next((n for n, (_, held) in enumerate(groups) if held & tested), None)
        if same is None:
            groups.append(([item], tested))
            continue
        # What stands between parts that belong together belongs to them.
        if any(not isinstance(each, For) for items, _ in groups[same + 1 :] for each in items):
            return [body]
        merged = [each for items, _ in groups[same:] for each in items]
        held = tested.union(*(held for _, held in groups[same:]))
        groups[same:] = [([*merged, item], held)]
    return [seq(*items) for items, _ in groups]


def _all_conditions(stmt: Stmt) -> set[Expr]:
    """All comparisons in a statement."""
    return {
        term
        for inner in walk_stmts(stmt)
        for term in walk(*own_terms(inner))
        if isinstance(term, LT | LE | GT | GE)
    } | {
        wins
        for inner in walk_stmts(stmt)
        for term in walk(*own_terms(inner))
        if isinstance(term, Min | Max)
        for _, wins in _sides(term)
    }


class _Assume(StmtRewriter):
    """Takes conditions as true."""

    def __init__(self, conditions: set[Expr]) -> None:
        self.conditions = conditions
        self.memo: dict[Term, Term] = {}

    def visit_if(self, stmt: IfThenElse) -> Stmt:
        left = self._left(stmt.condition)
        if left is None:
            return super().visit_if(stmt)
        then_case = self.visit(stmt.then_case)
        if left is true():
            return then_case
        else_case = None if stmt.else_case is None else self.visit(stmt.else_case)
        return replace(stmt, condition=left, then_case=then_case, else_case=else_case)

    def _left(self, condition: Expr) -> Expr | None:
        """What is left of a condition; None if nothing is gone."""
        parts = conjuncts(condition)
        left = [part for part in parts if part not in self.conditions]
        return None if len(left) == len(parts) else logical_and(*left)

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._decided, self.memo)

    def _decided(self, item: Term) -> Term:
        if isinstance(item, Min | Max):
            for winner, wins in _sides(item):
                if wins in self.conditions:
                    return winner
        elif isinstance(item, Select):
            left = self._left(item.condition)
            if left is not None:
                if left is true():
                    return item.true_value
                return Select(left, item.true_value, item.false_value)
        elif _is_choice(item):
            condition, value, other = item.args
            left = self._left(condition)
            if left is not None:
                return value if left is true() else Call(item.op, (left, value, other), item.kind)
        return item


def _has_serial_loop(stmt: Stmt) -> bool:
    return any(isinstance(item, For) and item.kind == "serial" for item in walk_stmts(stmt))


def _is_choice(item: Term) -> TypeGuard[Call]:
    return isinstance(item, Call) and item.op is INTRINSICS["if_then_else"]


def _unrolled_size(stmt: Stmt) -> int:
    """How many statements the inner loops that are unrolled become."""
    if isinstance(stmt, For) and stmt.kind == "unrolled":
        return (as_int(stmt.extent) or 1) * _unrolled_size(stmt.body)
    return 1 + sum(_unrolled_size(child) for child in child_stmts(stmt))


def _sides(extremum: Min | Max) -> tuple[tuple[Expr, Expr], ...]:
    """Each side of a minimum or maximum with the condition that makes it the result."""
    a, b = extremum.a, extremum.b
    if not a.dtype.is_int or not a.dtype.is_scalar:
        return ()
    kind = LE if isinstance(extremum, Min) else GE
    return ((a, kind(a, b)), (b, kind(b, a)))


def _conditions(stmt: Stmt, loop: Var) -> list[Expr]:
    """The conditions that a statement itself tests, as guards or in its expressions, and those
    that make the side of a minimum or maximum that moves with `loop` the result."""
    found = conjuncts(stmt.condition) if isinstance(stmt, IfThenElse) else []
    for item in walk(*own_terms(stmt)):
        if isinstance(item, Select):
            found += conjuncts(item.condition)
        elif _is_choice(item):
            found += conjuncts(item.args[0])
        elif isinstance(item, Min | Max):
            moves = [any(each is loop for each in walk(side)) for side in (item.a, item.b)]
            if moves[0] is not moves[1]:
                found += [wins for (_, wins), yes in zip(_sides(item), moves, strict=False) if yes]
    return found


def _full_tile(loop: For) -> dict[Expr, Expr]:
    """The conditions inside `loop` that a test at the start of an iteration can decide, with that
    test."""
    inner: dict[Var, int] = {}
    found: dict[Expr, Expr] = {}
    hidden: set[Var] = set()

    def visit(stmt: Stmt) -> None:
        if isinstance(stmt, For):
            extent = as_int(stmt.extent)
            if extent is not None and extent > 0 and as_int(stmt.min) == 0:
                inner[stmt.var] = extent
            else:
                hidden.add(stmt.var)
        elif isinstance(stmt, Bind):
            hidden.add(stmt.var)
        for part in _conditions(stmt, loop.var):
            used = set(free_vars([part]))
            if loop.var in used and used & inner.keys() and not used & hidden and part not in found:
                worst = for_all(part, {var: inner[var] for var in used if var in inner})
                if worst is not None:
                    found[part] = worst

    for stmt in walk_stmts(loop.body):
        visit(stmt)
    return found
