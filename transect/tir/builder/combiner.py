"""How a reduction joins values: the combiners that have names, and the form of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transect.ir.dtype import DType
from transect.ir.expr import (
    EQ,
    And,
    Expr,
    ExprLike,
    Or,
    const,
    logical_and,
    logical_or,
    make,
    maximum,
    minimum,
    select,
)
from transect.tir.op import highest, lowest

Values = tuple[Expr, ...]


@dataclass(frozen=True)
class Combiner:
    """A commutative, associative operation on tuples of values.

    identity: from the dtypes, the values that change nothing. combine: two tuples into one.
    Most reductions have tuples of one value; argmax has (index, value).
    """

    name: str
    identity: Callable[[tuple[DType, ...]], tuple[ExprLike, ...]]
    combine: Callable[[Values, Values], tuple[ExprLike, ...]]


def _single(
    name: str, identity: Callable[[DType], ExprLike], combine: Callable[[Expr, Expr], Expr]
) -> Combiner:
    return Combiner(
        name, lambda dtypes: (identity(dtypes[0]),), lambda a, b: (combine(a[0], b[0]),)
    )


COMBINERS: dict[str, Combiner] = {
    item.name: item
    for item in (
        _single("sum", lambda dtype: const(0, dtype), lambda a, b: a + b),
        _single("prod", lambda dtype: const(1, dtype), lambda a, b: a * b),
        # The first operand is looked at for NaN: the chain of results should not wait for that.
        _single("max", lowest, lambda a, b: maximum(b, a)),
        _single("min", highest, lambda a, b: minimum(b, a)),
        _single("any", lambda dtype: const(False, dtype), lambda a, b: make(Or, a, b)),
        _single("all", lambda dtype: const(True, dtype), lambda a, b: make(And, a, b)),
    )
}
"""The combiners that `FunctionBuilder.reduce` takes by name. max and min: NaN if any is NaN."""


def _arg_combiner(
    name: str, start: Callable[[DType], Expr], better: Callable[[Expr, Expr], Expr]
) -> Combiner:
    def combine(a: Values, b: Values) -> Values:
        tie = logical_and(EQ(a[1], b[1]), a[0] < b[0])
        keep = logical_or(better(a[1], b[1]), tie)
        return select(keep, a[0], b[0]), select(keep, a[1], b[1])

    # The index starts above all others so that an input equal to the start value wins the tie.
    return Combiner(name, lambda dtypes: (highest(dtypes[0]), start(dtypes[1])), combine)


ARGMAX = _arg_combiner("argmax", lowest, lambda a, b: a > b)
"""(index, value) of the largest value, the first of equal ones."""
ARGMIN = _arg_combiner("argmin", highest, lambda a, b: a < b)
"""(index, value) of the smallest value, the first of equal ones."""
