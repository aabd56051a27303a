"""Conditions taken apart: what a conjunction joins, and the opposite of a comparison."""

from __future__ import annotations

from transect.ir.expr import GE, GT, LE, LT, And, Expr, as_int

_OPPOSITES: dict[type[Expr], type[LT | LE | GT | GE]] = {LT: GE, LE: GT, GT: LE, GE: LT}


def conjuncts(condition: Expr) -> list[Expr]:
    """The conditions that a conjunction joins; none for a condition that always holds."""
    if isinstance(condition, And):
        return [*conjuncts(condition.a), *conjuncts(condition.b)]
    return [] if as_int(condition) == 1 else [condition]


def opposite(condition: LT | LE | GT | GE) -> Expr:
    """The comparison of integers that holds where `condition` does not: `a >= b` for `a < b`."""
    return _OPPOSITES[type(condition)](condition.a, condition.b)
