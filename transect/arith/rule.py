"""What a rewrite rule is: two expressions over pattern variables, and when they are equal.

The tables of rules are in `division`, `sums`, `patterns` and `lemmas`; tests prove every entry
with Z3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ParamSpec

from transect.arith.inference import Inference
from transect.arith.poly import Poly
from transect.ir.dtype import BOOL, FLOAT32, HANDLE, INDEX, DType
from transect.ir.expr import Call, Expr, FloatImm, IntImm, Intrinsic, Var

P = ParamSpec("P")

Proposal = Mapping[Var, Poly]
"""What the pattern variables of an integer rule stand for."""

Proposer = Callable[P, Iterator[Proposal]]
"""Finds what the pattern variables of a rule may stand for where it applies."""


@dataclass(frozen=True)
class IntegerRule:
    """left == right for unbounded integers, where `when` holds and no divisor in `left` is zero.

    Division by zero has no value, so `left` may be taken not to divide by zero.
    """

    name: str
    left: Expr
    right: Expr
    when: Expr


@dataclass(frozen=True)
class QuotientRule(IntegerRule):
    """A rule whose `left` is a division of any kind.

    propose: for a given numerator and divisor, finds values of the pattern variables for which
    `left` is their quotient and `when` holds.
    """

    propose: Proposer[[Inference, Poly, Poly]]


@dataclass(frozen=True)
class PatternRule:
    """left == right for whatever the pattern variables stand for, matched by structure.

    A pattern variable matches any expression of its kind: `INT` variables (int64) scalar
    integers of any width, `FLOAT` ones scalar or vector floats, `TRUTH` ones conditions, `ANY`
    ones everything. `same`: variables that stand for one expression must be pure to be merged.
    """

    name: str
    left: Expr
    right: Expr


def integer(name: str) -> Var:
    """A pattern variable for integers."""
    return Var(name, INDEX)


def floating(name: str) -> Var:
    """A pattern variable for floats."""
    return Var(name, FLOAT32)


def condition(name: str) -> Var:
    """A pattern variable for conditions."""
    return Var(name, BOOL)


def anything(name: str) -> Var:
    """A pattern variable for values of any dtype."""
    return Var(name, HANDLE)


def _kind_matches(pattern: DType, actual: DType) -> bool:
    if pattern is HANDLE:
        return True
    if pattern is BOOL:
        return actual.is_bool
    if pattern is INDEX:
        return actual.is_integral and actual.is_scalar
    return actual.is_float


def match(pattern: Expr, expr: Expr, found: dict[Var, Expr]) -> bool:
    """Whether `expr` has the shape of `pattern`; fills `found`."""
    if isinstance(pattern, Var):
        if pattern in found:
            return found[pattern] is expr
        if not _kind_matches(pattern.dtype, expr.dtype):
            return False
        found[pattern] = expr
        return True
    if isinstance(pattern, IntImm):
        return (
            isinstance(expr, IntImm)
            and expr.value == pattern.value
            and expr.dtype.is_bool == pattern.dtype.is_bool
        )
    if isinstance(pattern, FloatImm):
        # Both hex strings tell 0.0 from -0.0.
        return isinstance(expr, FloatImm) and expr.value.hex() == pattern.value.hex()
    if type(pattern) is not type(expr):
        return False
    if isinstance(pattern, Call) and isinstance(expr, Call):
        same = (
            isinstance(pattern.op, Intrinsic)
            and isinstance(expr.op, Intrinsic)
            and pattern.op.name == expr.op.name
            and len(pattern.args) == len(expr.args)
        )
        return same and all(
            match(p, e, found) for p, e in zip(pattern.args, expr.args, strict=True)
        )
    pairs = zip(pattern.children(), expr.children(), strict=True)
    return all(match(p, e, found) for p, e in pairs if isinstance(p, Expr) and isinstance(e, Expr))
