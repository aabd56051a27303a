"""What the algorithms of `simplify` and `inference` rely on, beyond the rules in tables.

The code that uses a lemma names it. They are data only so that the tests prove them as they prove
the rules.
"""

from __future__ import annotations

from transect.arith.rule import IntegerRule, condition, integer
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    Max,
    Min,
    Select,
    false,
    logical_and,
    not_equal,
    true,
)

X, Y, Z, R, D, G = (integer(name) for name in "xyzrdg")
P = condition("p")

EXTREMUM_LEMMAS = (
    IntegerRule("min.dominated", Min(X, Y), X, X <= Y),
    IntegerRule("max.dominated", Max(X, Y), X, X >= Y),
    IntegerRule("min.common", Min(X + Z, Y + Z), Min(X, Y) + Z, true()),
    IntegerRule("max.common", Max(X + Z, Y + Z), Max(X, Y) + Z, true()),
    IntegerRule("min.commutes", Min(X, Y), Min(Y, X), true()),
    IntegerRule("max.commutes", Max(X, Y), Max(Y, X), true()),
    IntegerRule("min.associates", Min(X, Min(Y, Z)), Min(Min(X, Y), Z), true()),
    IntegerRule("max.associates", Max(X, Max(Y, Z)), Max(Max(X, Y), Z), true()),
)
COMPARISON_LEMMAS = (
    IntegerRule("compare.greater", GT(X, Y), LT(Y, X), true()),
    IntegerRule("compare.greater_equal", GE(X, Y), LE(Y, X), true()),
    IntegerRule("compare.less_difference", LT(X, Y), LT(X - Y, R - R), true()),
    IntegerRule("compare.less_equal_difference", LE(X, Y), LT(X - Y - 1, R - R), true()),
    IntegerRule("compare.equal_difference", EQ(X, Y), EQ(X - Y, R - R), true()),
    IntegerRule("compare.move", LT(X - Y + Z, R - R), LT(X, Y - Z), true()),
    IntegerRule("compare.step", LT(X, Y + 1), LE(X, Y), true()),
    IntegerRule("compare.less_divided", LT(G * X + R, R - R), LT(X, 0 - R // G), G > 0),
    IntegerRule(
        "compare.equal_divided",
        EQ(G * X + R, R - R),
        EQ(X, 0 - R // G),
        logical_and(G > 0, EQ(R % G, R - R)),
    ),
    IntegerRule(
        "compare.never_equal",
        EQ(G * X + R, R - R),
        false(),
        logical_and(G > 0, not_equal(R % G, 0)),
    ),
)
FACT_LEMMAS = (
    IntegerRule("fact.quotient_below", D * (X // D) <= X, true(), D > 0),
    IntegerRule("fact.quotient_above", X < D * (X // D) + D, true(), D > 0),
    IntegerRule("fact.remainder_below", X % D < D, true(), D > 0),
    IntegerRule("fact.remainder_nonnegative", X % D >= 0, true(), D > 0),
    IntegerRule("fact.remainder_of_small", X % D <= X, true(), logical_and(D > 0, X >= 0)),
    IntegerRule("fact.min_left", Min(X, Y) <= X, true(), true()),
    IntegerRule("fact.min_right", Min(X, Y) <= Y, true(), true()),
    IntegerRule("fact.max_left", Max(X, Y) >= X, true(), true()),
    IntegerRule("fact.max_right", Max(X, Y) >= Y, true(), true()),
    IntegerRule("fact.min_cases", Min(X, Y) >= Z, true(), logical_and(X >= Z, Y >= Z)),
    IntegerRule("fact.choice_cases", Select(P, X, Y) >= Z, true(), logical_and(X >= Z, Y >= Z)),
    IntegerRule("fact.scaled", G * X * Y >= R - R, true(), logical_and(G > 0, X >= 0, Y >= 0)),
)
LEMMAS = (*EXTREMUM_LEMMAS, *COMPARISON_LEMMAS, *FACT_LEMMAS)
