"""What may be computed in front of a loop: integer arithmetic, which reads nothing and cannot fail:
code divides by zero to zero.

LLVM's own motion of code is off (`backend`): it would keep constants of what follows a loop in
registers during the loop. Addresses of nests of loops are made outside in instead, each part
where its last variable is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from transect.ir.dtype import INT64
from transect.ir.expr import (
    Add,
    And,
    Broadcast,
    Cast,
    Comparison,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Ramp,
    Sub,
    Var,
    as_int,
)

_MOVABLE = (
    Add, Sub, Mul, Div, Mod, Min, Max, FloorDiv, FloorMod, Cast, Comparison, And, Or, Not,
    Broadcast, Ramp,
)  # fmt: skip


class Motion:
    """How far out an expression may be computed; answers are kept, as terms are shared."""

    def __init__(self) -> None:
        self._variables: dict[Var, int] = {}
        self._terms: dict[Expr, int | None] = {}

    def define(self, var: Var, depth: int) -> None:
        """Say in which region, counted from the outermost, a variable gets its value."""
        if self._variables.get(var, depth) != depth:
            self._terms.clear()
        self._variables[var] = depth

    def depth(self, expr: Expr) -> int | None:
        """The innermost region that defines a variable of `expr`; None if `expr` stays in place."""
        if isinstance(expr, IntImm):
            return 0
        if isinstance(expr, Var):
            return self._variables.get(expr)
        if expr not in self._terms:
            self._terms[expr] = self._find(expr)
        return self._terms[expr]

    def target(self, expr: Expr) -> int | None:
        """`depth`, for a result that is worth a register while a loop runs: a scalar, or a mask."""
        dtype = expr.dtype
        fits = dtype.is_bool or (dtype.is_int and dtype.is_scalar)
        if not fits or isinstance(expr, Var | IntImm):
            return None
        return self.depth(expr)

    def _find(self, expr: Expr) -> int | None:
        if not isinstance(expr, _MOVABLE):
            return None
        deepest = 0
        for child in expr.children():
            if not isinstance(child, Expr) or child.dtype.is_float:
                return None
            depth = self.depth(child)
            if depth is None:
                return None
            deepest = max(deepest, depth)
        return deepest


def summands(index: Expr) -> tuple[list[Expr], int]:
    """The terms whose sum an index is, and the constant among them. Of 64 bits, as narrower sums
    may wrap around where their parts do not."""
    if index.dtype is not INT64:
        return [index], 0
    terms: list[Expr] = []
    constant = 0
    todo: list[Expr] = [index]
    while todo:
        item = todo.pop()
        value = as_int(item)
        if value is not None:
            constant += value
        elif isinstance(item, Add):
            todo += [item.b, item.a]
        elif isinstance(item, Sub) and as_int(item.b) is not None:
            constant -= as_int(item.b) or 0
            todo.append(item.a)
        else:
            terms.append(item)
    return terms, constant


def total(terms: Iterable[Expr]) -> Expr:
    """The sum of terms."""
    first, *rest = terms
    for term in rest:
        first = Add(first, term)
    return first
