"""Terms as Z3 expressions: the oracle's meaning of integer, bool and float operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import z3

from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Call,
    Div,
    Expr,
    FloatImm,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    Var,
)


class Translation:
    """Translates terms; `side` collects what defines the quotients met on the way.

    sort: makes the Z3 constant of a number ("int": unbounded integers, or a float sort).
    """

    def __init__(self, variables: Mapping[Var, Any], float_sort: Any = None) -> None:
        self.variables = dict(variables)
        self.float_sort = float_sort
        self.side: list[Any] = []
        self.divisors: list[Any] = []
        self.quotients: dict[tuple[int, int], Any] = {}

    def of(self, expr: Expr) -> Any:
        if isinstance(expr, Var):
            return self.variables[expr]
        if isinstance(expr, IntImm):
            return z3.BoolVal(bool(expr.value)) if expr.dtype.is_bool else z3.IntVal(expr.value)
        if isinstance(expr, FloatImm):
            return (
                z3.FPVal(expr.value, self.float_sort)
                if str(expr.value) != "-0.0"
                else z3.fpMinusZero(self.float_sort)
            )
        if isinstance(expr, Not):
            return z3.Not(self.of(expr.a))
        if isinstance(expr, Select):
            return z3.If(
                self.of(expr.condition), self.of(expr.true_value), self.of(expr.false_value)
            )
        if isinstance(expr, Call):
            condition, left, right = (self.of(arg) for arg in expr.args)
            return z3.If(condition, left, right)
        assert isinstance(expr, Binary)
        return self.binary(type(expr), self.of(expr.a), self.of(expr.b))

    def binary(self, kind: type[Binary], a: Any, b: Any) -> Any:
        if z3.is_fp(a) and kind in _FLOAT:
            return _FLOAT[kind](a, b)
        if kind in (FloorDiv, FloorMod, Div, Mod):
            quotient = self.floor_quotient(a, b)
            if kind in (Div, Mod):
                exact = quotient * b == a
                quotient = z3.If(z3.And(quotient < 0, z3.Not(exact)), quotient + 1, quotient)
            return quotient if kind in (FloorDiv, Div) else a - b * quotient
        return _BINARY[kind](a, b)

    def floor_quotient(self, a: Any, b: Any) -> Any:
        key = (z3.simplify(a).get_id(), z3.simplify(b).get_id())
        if key not in self.quotients:
            q = z3.FreshInt("q")
            self.quotients[key] = q
            self.divisors.append(b)
            positive = z3.And(b * q <= a, a < b * q + b)
            negative = z3.And(b * q >= a, a > b * q + b)
            self.side.append(z3.And(z3.Implies(b > 0, positive), z3.Implies(b < 0, negative)))
        return self.quotients[key]


_BINARY = {
    Add: lambda a, b: a + b,
    Sub: lambda a, b: a - b,
    Mul: lambda a, b: a * b,
    Min: lambda a, b: z3.If(a <= b, a, b),
    Max: lambda a, b: z3.If(a >= b, a, b),
    EQ: lambda a, b: a == b,
    NE: lambda a, b: a != b,
    LT: lambda a, b: a < b,
    LE: lambda a, b: a <= b,
    GT: lambda a, b: a > b,
    GE: lambda a, b: a >= b,
    And: z3.And,
    Or: z3.Or,
}
_NEAREST = z3.RNE()


def _extremum(pick: Any) -> Any:
    def operation(a: Any, b: Any) -> Any:
        nan = z3.fpNaN(a.sort())
        return z3.If(z3.Or(z3.fpIsNaN(a), z3.fpIsNaN(b)), nan, z3.If(pick(a, b), a, b))

    return operation


_FLOAT = {
    Add: lambda a, b: z3.fpAdd(_NEAREST, a, b),
    Sub: lambda a, b: z3.fpSub(_NEAREST, a, b),
    Mul: lambda a, b: z3.fpMul(_NEAREST, a, b),
    Div: lambda a, b: z3.fpDiv(_NEAREST, a, b),
    Min: _extremum(z3.fpLEQ),
    Max: _extremum(z3.fpGEQ),
    EQ: z3.fpEQ,
    NE: z3.fpNEQ,
    LT: z3.fpLT,
    LE: z3.fpLEQ,
    GT: z3.fpGT,
    GE: z3.fpGEQ,
}


def refute(*assertions: Any, milliseconds: int = 20_000) -> Any:
    """A model of the assertions, or None if Z3 shows that there is none. Fails if Z3 gives up."""
    solver = z3.Solver()
    solver.set("timeout", milliseconds)
    solver.add(*assertions)
    verdict = solver.check()
    if verdict == z3.unsat:
        return None
    assert verdict == z3.sat, f"Z3 could not decide: {solver.reason_unknown()}"
    return solver.model()
