"""Linear forms with symbolic coefficients: indices of tiled loops, whose strides are terms.

`tir.affine` is the cheaper normal form where every factor is a number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from transect.ir.dtype import INDEX
from transect.ir.expr import (
    Add,
    Cast,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mul,
    Sub,
    Var,
    as_int,
    maximum,
    minimum,
)
from transect.ir.traverse import free_vars, walk

ZERO, ONE = IntImm(0, INDEX), IntImm(1, INDEX)


def add(a: Expr, b: Expr) -> Expr:
    """a + b; a zero is left out."""
    if as_int(a) == 0:
        return b
    return a if as_int(b) == 0 else a + b


def multiply(a: Expr, b: Expr) -> Expr:
    """a * b; a one is left out."""
    if as_int(a) == 1 or as_int(b) == 0:
        return b
    return a if as_int(b) == 1 or as_int(a) == 0 else a * b


def least(a: Expr, b: Expr) -> Expr:
    """The smaller one."""
    return a if a is b else minimum(a, b)


def clamp(value: Expr, high: Expr) -> Expr:
    """`value`, but not below 0 and not above `high`."""
    return maximum(minimum(value, high), ZERO)


_Monomial = frozenset[tuple[Expr, int]]


@lru_cache(maxsize=1 << 14)
def same(a: Expr, b: Expr) -> bool:
    """Whether two integer terms are the same polynomial of their parts."""
    return a is b or _polynomial(a) == _polynomial(b)


@lru_cache(maxsize=1 << 14)
def _polynomial(expr: Expr) -> Mapping[_Monomial, int]:
    """Coefficients by monomial: how often each atom occurs in it. Atoms compare by identity."""
    if isinstance(expr, IntImm):
        return {frozenset(): expr.value} if expr.value else {}
    if isinstance(expr, Add | Sub | Mul):
        left, right = _polynomial(expr.a), _polynomial(expr.b)
        if isinstance(expr, Mul):
            pairs = [(_joined(p, q), m * n) for p, m in left.items() for q, n in right.items()]
        else:
            sign = 1 if isinstance(expr, Add) else -1
            pairs = [*left.items(), *((p, sign * n) for p, n in right.items())]
        total: dict[_Monomial, int] = {}
        for monomial, number in pairs:
            total[monomial] = total.get(monomial, 0) + number
        return {monomial: number for monomial, number in total.items() if number}
    return {frozenset(((expr, 1),)): 1}


def _joined(a: _Monomial, b: _Monomial) -> _Monomial:
    if not a or not b:
        return a or b
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return frozenset(powers.items())


@dataclass(frozen=True)
class Linear:
    """`offset` plus the sum of coefficient * variable; offset and coefficients are terms without
    these variables."""

    coefficients: Mapping[Var, Expr]
    offset: Expr

    def plus(self, other: Linear, sign: int = 1) -> Linear:
        """The sum (sign 1) or difference (-1) of two forms."""
        found = dict(self.coefficients)
        for var, factor in other.coefficients.items():
            scaled = factor if sign > 0 else multiply(IntImm(-1, INDEX), factor)
            total = add(found[var], scaled) if var in found else scaled
            if as_int(total) == 0:
                del found[var]
            else:
                found[var] = total
        offset = add(self.offset, other.offset) if sign > 0 else self.offset - other.offset
        return Linear(found, offset)

    def scaled(self, factor: Expr) -> Linear:
        """The form times a term without its variables."""
        found = {var: multiply(own, factor) for var, own in self.coefficients.items()}
        return Linear(found, multiply(self.offset, factor))


def linear(expr: Expr, variables: Collection[Var], *, relaxed: bool = False) -> Linear | None:
    """`expr` as a linear form over `variables`, or None if it is none.

    relaxed: the minimum or maximum of a linear form and something fixed, as where an index is cut
    off at the end of a buffer, counts as that form.
    """
    if isinstance(expr, Var):
        return Linear({expr: ONE}, ZERO) if expr in variables else Linear({}, expr)
    if isinstance(expr, IntImm):
        return Linear({}, expr)
    if isinstance(expr, Add | Sub):
        a = linear(expr.a, variables, relaxed=relaxed)
        b = None if a is None else linear(expr.b, variables, relaxed=relaxed)
        return None if a is None or b is None else a.plus(b, 1 if isinstance(expr, Add) else -1)
    if isinstance(expr, Mul):
        a = linear(expr.a, variables, relaxed=relaxed)
        b = None if a is None else linear(expr.b, variables, relaxed=relaxed)
        if a is None or b is None or (a.coefficients and b.coefficients):
            return None
        return a.scaled(b.offset) if a.coefficients else b.scaled(a.offset)
    if not any(var in variables for var in free_vars([expr])):
        return Linear({}, expr)
    if isinstance(expr, Cast) and expr.to.is_int and expr.value.dtype.is_int:
        return linear(expr.value, variables, relaxed=relaxed)
    if relaxed and isinstance(expr, Min | Max):
        sides = [linear(side, variables, relaxed=True) for side in (expr.a, expr.b)]
        moving = [side for side in sides if side is None or side.coefficients]
        return moving[0] if len(moving) == 1 else None
    return None


def divided_variables(exprs: Collection[Expr], variables: Collection[Var]) -> dict[Var, Expr]:
    """Loop variables that occur in quotients or remainders of themselves, each with a divisor: that
    of a remainder if there is one, which is the smallest where loops were fused."""
    found: dict[Var, Expr] = {}
    for item in walk(*exprs):
        if not isinstance(item, FloorDiv | FloorMod) or not isinstance(item.a, Var):
            continue
        plain = item.a in variables and not any(var in variables for var in free_vars([item.b]))
        if plain and (item.a not in found or isinstance(item, FloorMod)):
            found[item.a] = item.b
    return found
