"""Integer expressions as sums of atoms with constant factors: the cheap normal form of indices.

For exact differences, hulls and strides without proofs; `arith` simplifies and proves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transect.ir.dtype import DType
from transect.ir.expr import Add, Cast, Expr, IntImm, Mul, Sub, Var, as_expr


@dataclass(frozen=True, slots=True)
class Affine:
    """`const` plus the sum of factor * atom; no factor is zero. Atoms are compared by identity."""

    const: int
    terms: Mapping[Expr, int]

    def __add__(self, other: Affine) -> Affine:
        return Affine(self.const + other.const, _joined(self.terms, other.terms, 1))

    def __sub__(self, other: Affine) -> Affine:
        return Affine(self.const - other.const, _joined(self.terms, other.terms, -1))

    def scaled(self, factor: int) -> Affine:
        """This sum times a constant."""
        if factor == 1:
            return self
        if factor == 0:
            return ZERO
        return Affine(self.const * factor, {atom: k * factor for atom, k in self.terms.items()})

    def plus(self, number: int) -> Affine:
        """This sum plus a constant."""
        return Affine(self.const + number, self.terms) if number else self

    @property
    def is_const(self) -> bool:
        return not self.terms

    def to_expr(self, dtype: DType) -> Expr:
        """The sum as an expression of `dtype`: atoms in order of appearance, then the constant."""
        result: Expr | None = None
        for atom, factor in self.terms.items():
            size = abs(factor)
            part = atom if size == 1 else atom * as_expr(size, dtype)
            if result is None:
                result = part if factor > 0 else as_expr(0, dtype) - part
            else:
                result = result + part if factor > 0 else result - part
        if result is None:
            return as_expr(self.const, dtype)
        if self.const == 0:
            return result
        number = as_expr(abs(self.const), dtype)
        return result + number if self.const > 0 else result - number


ZERO = Affine(0, {})


def _joined(a: Mapping[Expr, int], b: Mapping[Expr, int], sign: int) -> Mapping[Expr, int]:
    if not b:
        return a
    sums = dict(a)
    for atom, factor in b.items():
        total = sums.get(atom, 0) + sign * factor
        if total:
            sums[atom] = total
        else:
            del sums[atom]
    return sums


def affine(expr: Expr, values: Mapping[Var, Affine] | None = None) -> Affine:
    """The normal form of a scalar integer expression; variables in `values` are replaced.

    Assumes that nothing overflows, as indices do not. Parts that are not sums become atoms: a
    product of two atoms, a quotient, a load.
    """
    if isinstance(expr, IntImm):
        return Affine(expr.value, {})
    if isinstance(expr, Var):
        known = None if values is None else values.get(expr)
        return Affine(0, {expr: 1}) if known is None else known
    if isinstance(expr, Add):
        return affine(expr.a, values) + affine(expr.b, values)
    if isinstance(expr, Sub):
        return affine(expr.a, values) - affine(expr.b, values)
    if isinstance(expr, Mul):
        a, b = affine(expr.a, values), affine(expr.b, values)
        if a.is_const:
            return b.scaled(a.const)
        if b.is_const:
            return a.scaled(b.const)
        return Affine(0, {expr: 1})
    if isinstance(expr, Cast) and expr.to.is_int and expr.value.dtype.is_int:
        inner = affine(expr.value, values)
        if inner.is_const:
            return inner
    return Affine(0, {expr: 1})


def difference(a: Expr, b: Expr) -> int | None:
    """a - b if that is a constant."""
    rest = affine(a) - affine(b)
    return rest.const if rest.is_const else None
