"""Arithmetic on extents that every room needs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from transect.ir.expr import Expr, ExprLike, IntImm, promote


def product(factors: Iterable[Expr]) -> Expr:
    """The product of extents, such as the number of elements of a shape; 1 of none."""
    found = list(factors)
    return reduce(lambda total, factor: total * factor, found) if found else IntImm(1)


def ceildiv(a: ExprLike, b: ExprLike) -> Expr:
    """ceil(a / b) of integers, b > 0."""
    left, right = promote(a, b)
    return (left + (right - 1)) // right
