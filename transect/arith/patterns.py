"""Rules matched by structure: conditions, choices, extrema and floats.

Float rules hold bit for bit under IEEE 754 for every value, NaN, infinities and signed zeros
included; that is why there are so few.
"""

from __future__ import annotations

from transect.arith.rule import PatternRule, anything, condition, floating, integer
from transect.ir.dtype import FLOAT32
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Div,
    Expr,
    FloatImm,
    Max,
    Min,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    false,
    true,
)

P, S, T = (condition(name) for name in "pst")
U, V, W = (anything(name) for name in "uvw")
F = floating("f")
I, J = (integer(name) for name in "ij")  # noqa: E741 - the field's letters

LOGIC_RULES = (
    PatternRule("and.true_left", And(true(), P), P),
    PatternRule("and.true_right", And(P, true()), P),
    PatternRule("and.false_left", And(false(), P), false()),
    PatternRule("and.false_right", And(P, false()), false()),
    PatternRule("and.same", And(P, P), P),
    PatternRule("and.repeated", And(And(P, S), S), And(P, S)),
    PatternRule("and.repeated_first", And(And(P, S), P), And(P, S)),
    PatternRule("and.opposite", And(P, Not(P)), false()),
    PatternRule("and.opposite_left", And(Not(P), P), false()),
    PatternRule("and.absorb", And(P, Or(P, S)), P),
    PatternRule("or.true_left", Or(true(), P), true()),
    PatternRule("or.true_right", Or(P, true()), true()),
    PatternRule("or.false_left", Or(false(), P), P),
    PatternRule("or.false_right", Or(P, false()), P),
    PatternRule("or.same", Or(P, P), P),
    PatternRule("or.repeated", Or(Or(P, S), S), Or(P, S)),
    PatternRule("or.repeated_first", Or(Or(P, S), P), Or(P, S)),
    PatternRule("or.opposite", Or(P, Not(P)), true()),
    PatternRule("or.opposite_left", Or(Not(P), P), true()),
    PatternRule("or.absorb", Or(P, And(P, S)), P),
    PatternRule("not.not", Not(Not(P)), P),
    PatternRule("not.and", Not(And(P, S)), Or(Not(P), Not(S))),
    PatternRule("not.or", Not(Or(P, S)), And(Not(P), Not(S))),
    PatternRule("not.equal", Not(EQ(U, V)), NE(U, V)),
    PatternRule("not.not_equal", Not(NE(U, V)), EQ(U, V)),
    # Only of integers: not (a < b) is true of a NaN, a >= b is not.
    PatternRule("not.less", Not(LT(I, J)), LE(J, I)),
    PatternRule("not.less_equal", Not(LE(I, J)), LT(J, I)),
    PatternRule("not.greater", Not(GT(I, J)), LE(I, J)),
    PatternRule("not.greater_equal", Not(GE(I, J)), LT(I, J)),
    PatternRule("equal.true", EQ(P, true()), P),
    PatternRule("equal.false", EQ(P, false()), Not(P)),
    PatternRule("equal.same_truth", EQ(P, P), true()),
    PatternRule("not_equal.true", NE(P, true()), Not(P)),
    PatternRule("not_equal.false", NE(P, false()), P),
    PatternRule("not_equal.same_truth", NE(P, P), false()),
)

CHOICE_RULES = (
    PatternRule("select.true", Select(true(), U, V), U),
    PatternRule("select.false", Select(false(), U, V), V),
    PatternRule("select.same", Select(P, U, U), U),
    PatternRule("select.not", Select(Not(P), U, V), Select(P, V, U)),
    PatternRule("select.nested_true", Select(P, Select(P, U, V), W), Select(P, U, W)),
    PatternRule("select.nested_false", Select(P, U, Select(P, V, W)), Select(P, U, W)),
    PatternRule("select.truth", Select(P, true(), false()), P),
    PatternRule("select.falsehood", Select(P, false(), true()), Not(P)),
)


def _number(value: float) -> FloatImm:
    return FloatImm(value, FLOAT32)


FLOAT_RULES = (
    # x + 0.0 is 0.0 for x = -0.0, so only the other zero is neutral.
    PatternRule("float.add_negative_zero", Add(F, _number(-0.0)), F),
    PatternRule("float.negative_zero_add", Add(_number(-0.0), F), F),
    PatternRule("float.subtract_zero", Sub(F, _number(0.0)), F),
    PatternRule("float.multiply_one", Mul(F, _number(1.0)), F),
    PatternRule("float.one_multiply", Mul(_number(1.0), F), F),
    PatternRule("float.divide_one", Div(F, _number(1.0)), F),
    PatternRule("float.negate_twice", Mul(Mul(F, _number(-1.0)), _number(-1.0)), F),
    PatternRule("float.min_same", Min(F, F), F),
    PatternRule("float.max_same", Max(F, F), F),
)

PATTERN_RULES: tuple[PatternRule, ...] = (*LOGIC_RULES, *CHOICE_RULES, *FLOAT_RULES)


def _by_root() -> dict[type[Expr], tuple[PatternRule, ...]]:
    roots: dict[type[Expr], list[PatternRule]] = {}
    for rule in PATTERN_RULES:
        roots.setdefault(type(rule.left), []).append(rule)
    return {kind: tuple(rules) for kind, rules in roots.items()}


RULES_BY_ROOT = _by_root()
"""The rules that may apply to an expression of a class."""
