"""Polynomials with integer coefficients over atoms: the canonical form of +, - and *.

An atom is any integer expression that is not itself a sum or product of constants: a variable, a
quotient, a minimum, a load. Exact integers here; wrapping to a dtype happens when one becomes an
expression again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from transect.ir.dtype import DType
from transect.ir.expr import Add, Expr, IntImm, Mul, Sub

Monomial = tuple[Expr, ...]
"""A product of atoms in the order of an `Order`, with repetitions; () is the constant term."""


class Order:
    """The order of atoms: of first appearance, so it is the same in every process."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: dict[Expr, int] = {}

    def number(self, atom: Expr) -> int:
        """The rank of an atom, given on first sight."""
        return self.numbers.setdefault(atom, len(self.numbers))

    def product(self, a: Monomial, b: Monomial) -> Monomial:
        """The product of two monomials."""
        if not a or not b:
            return a or b
        return tuple(sorted(a + b, key=self.number))

    def key(self, monomial: Monomial) -> tuple[int, ...]:
        """What to sort monomials by."""
        return tuple(self.number(atom) for atom in monomial)


class Poly:
    """A sum of coefficient * monomial; zero coefficients are left out. Immutable."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = terms

    @staticmethod
    def constant(value: int) -> Poly:
        """The polynomial without atoms."""
        return Poly({(): value} if value else {})

    @staticmethod
    def atom(expr: Expr) -> Poly:
        """The polynomial that is one atom."""
        return Poly({(expr,): 1})

    @property
    def value(self) -> int | None:
        """The integer that this is, if no atom occurs."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None

    @property
    def offset(self) -> int:
        """The constant term."""
        return self.terms.get((), 0)

    @property
    def only(self) -> Expr | None:
        """The atom that this is, with coefficient 1 and nothing else."""
        if len(self.terms) == 1:
            ((monomial, factor),) = self.terms.items()
            if factor == 1 and len(monomial) == 1:
                return monomial[0]
        return None

    @property
    def degree(self) -> int:
        """Atoms of the longest monomial."""
        return max(map(len, self.terms), default=0)

    def plus(self, other: Poly, factor: int = 1) -> Poly:
        """self + factor * other."""
        if not other.terms or factor == 0:
            return self
        terms = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            total = terms.get(monomial, 0) + factor * coefficient
            if total:
                terms[monomial] = total
            else:
                del terms[monomial]
        return Poly(terms)

    def scaled(self, factor: int) -> Poly:
        """factor * self."""
        if factor == 1:
            return self
        if factor == 0:
            return Poly({})
        return Poly({monomial: factor * c for monomial, c in self.terms.items()})

    def shifted(self, amount: int) -> Poly:
        """self + amount."""
        return self.plus(Poly.constant(amount))

    def times(self, other: Poly, order: Order) -> Poly:
        """self * other, multiplied out."""
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial = order.product(left, right)
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Poly({monomial: c for monomial, c in terms.items() if c})

    def divided(self, divisor: int) -> Poly:
        """self / divisor; every coefficient must be a multiple."""
        return Poly({monomial: c // divisor for monomial, c in self.terms.items()})

    def content(self) -> int:
        """The greatest common divisor of all coefficients but the constant term; 0 if constant."""
        return math.gcd(*(c for monomial, c in self.terms.items() if monomial))

    def same(self, other: Poly) -> bool:
        """Whether the two are the same polynomial."""
        return self.terms == other.terms

    def atoms(self) -> list[Expr]:
        """The distinct atoms in order of appearance."""
        return list(dict.fromkeys(atom for monomial in self.terms for atom in monomial))


def wrap(value: int, dtype: DType) -> int:
    """The representative of a coefficient modulo 2**bits that is nearest to zero."""
    half = 1 << (dtype.bits - 1)
    return value if -half <= value < half else (value + half) % (2 * half) - half


def to_expr(terms: Mapping[Monomial, int], dtype: DType, order: Order) -> Expr:
    """The sum as an expression of `dtype`: positive terms first, the constant last.

    Coefficients are reduced modulo 2**bits, which +, - and * on machine integers do as well.
    """
    pairs = [(m, wrap(c, dtype)) for m, c in terms.items() if m]
    pairs.sort(key=lambda item: (item[1] < 0, order.key(item[0])))
    constant = wrap(terms.get((), 0), dtype)
    result: Expr | None = None
    for monomial, factor in pairs:
        if not factor:
            continue
        if factor < 0 and (result is not None or constant > 0):
            if result is None:
                result, constant = _constant(constant, dtype), 0
            result = Sub(result, _product(monomial, -factor, dtype))
        else:
            item = _product(monomial, factor, dtype)
            result = item if result is None else Add(result, item)
    if result is None:
        return _constant(constant, dtype)
    if constant > 0:
        return Add(result, _constant(constant, dtype))
    return Sub(result, _constant(-constant, dtype)) if constant else result


def _constant(value: int, dtype: DType) -> IntImm:
    # The most negative value has no positive twin; it is its own negative, modulo 2**bits.
    low, span = int(dtype.min_value), 1 << dtype.bits
    return IntImm((value - low) % span + low, dtype)


def _product(monomial: Iterable[Expr], factor: int, dtype: DType) -> Expr:
    items = iter(monomial)
    result = next(items)
    for item in items:
        result = Mul(result, item)
    return result if factor == 1 else Mul(result, _constant(factor, dtype))
